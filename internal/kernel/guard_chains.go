package kernel

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"frond/internal/dataplane"
)

// wanted are all chains of a guard.
func (f guardFamily) wanted(g dataplane.Guard) []guardChain {
	return slices.Concat(f.chains, f.hooked(g))
}

// hooked are the chains of devices of a guard.
func (f guardFamily) hooked(g dataplane.Guard) []guardChain {
	if f.onDevices == nil {
		return nil
	}
	return f.onDevices(g)
}

func (c guardChain) in(table *nftables.Table) *nftables.Chain {
	chain := &nftables.Chain{Table: table, Name: c.name}
	if c.hook != nil {
		prio, accept := nftables.ChainPriority(c.prio), nftables.ChainPolicyAccept
		chain.Type, chain.Hooknum, chain.Priority, chain.Policy, chain.Device = nftables.ChainTypeFilter, c.hook, &prio, &accept, c.device
	}
	return chain
}

// add adds a chain to the transaction, which makes sets of these numbers.
func (c guardChain) add(conn *nftables.Conn, table *nftables.Table, ids map[string]uint32) {
	chain := conn.AddChain(c.in(table))
	for _, rule := range c.rules {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: withIDs(rule, ids)})
	}
}

// rehook adds to the transaction what makes chains of some devices those of
// others, and tells whether that is anything.
func (f guardFamily) rehook(conn *nftables.Conn, from, to []guardChain) bool {
	table := f.table()
	surplus, missing := slices.DeleteFunc(slices.Clone(from), has(to)), slices.DeleteFunc(slices.Clone(to), has(from))
	for _, c := range surplus {
		conn.DelChain(&nftables.Chain{Table: table, Name: c.name})
	}
	for _, c := range missing {
		c.add(conn, table, nil)
	}
	return len(surplus)+len(missing) > 0
}

// has tells of a chain whether one of its name is among these.
func has(chains []guardChain) func(guardChain) bool {
	names := make(map[string]bool, len(chains))
	for _, c := range chains {
		names[c.name] = true
	}
	return func(c guardChain) bool { return names[c.name] }
}

// look returns the chains of devices that there are, and tells whether all else
// is as make makes it.
func (f guardFamily) look(conn *nftables.Conn, g dataplane.Guard) (hooked []guardChain, whole bool, err error) {
	chains, err := conn.ListChainsOfTableFamily(f.family)
	if err != nil {
		return nil, false, fmt.Errorf("list chains: %w", err)
	}
	wanted := make(map[string]guardChain)
	for _, c := range f.wanted(g) {
		wanted[c.name] = c
	}
	missing := len(f.chains)
	isFixed := has(f.chains)
	for _, have := range chains {
		if have.Table.Name != guardTable {
			continue
		}
		c := guardChain{name: have.Name}
		switch want, known := wanted[have.Name]; {
		case !known && f.onDevices == nil || !known && have.Hooknum == nil:
			return nil, false, nil
		case known:
			if same, err := f.same(conn, have, want); err != nil || !same {
				return nil, false, err
			}
		}
		if isFixed(c) {
			missing--
		} else {
			hooked = append(hooked, c)
		}
	}
	if missing > 0 {
		return nil, false, nil
	}
	sets, err := conn.GetSets(f.table())
	if err != nil {
		return nil, false, fmt.Errorf("list sets: %w", err)
	}
	return hooked, len(sets) == len(f.sets)+len(f.drops)+len(f.meters), nil // rules name them all
}

// same tells whether a chain is as it should be.
func (f guardFamily) same(conn *nftables.Conn, have *nftables.Chain, want guardChain) (bool, error) {
	if !sameChain(have, want) {
		return false, nil
	}
	rules, err := conn.GetRules(f.table(), have)
	if err != nil {
		return false, fmt.Errorf("list rules: %w", err)
	}
	return slices.EqualFunc(rules, want.rules, func(have *nftables.Rule, want []expr.Any) bool { return sameGuardRule(have.Exprs, want) }), nil
}

func sameChain(have *nftables.Chain, want guardChain) bool {
	if want.hook == nil {
		return have.Hooknum == nil
	}
	return have.Hooknum != nil && *have.Hooknum == *want.hook && have.Priority != nil && int32(*have.Priority) == want.prio &&
		(have.Policy == nil || *have.Policy == nftables.ChainPolicyAccept)
}

func sameGuardRule(have, want []expr.Any) bool {
	plain := func(rule []expr.Any) []expr.Any {
		rule = withIDs(rule, nil)
		for _, e := range rule {
			if d, ok := e.(*expr.Dynset); ok {
				d.Exprs = limitsOf(d.Exprs)
			}
		}
		return rule
	}
	return sameRule(plain(have), plain(want))
}

// limitsOf leaves counters out, which are as they stand.
func limitsOf(all []expr.Any) (limits []expr.Any) {
	for _, e := range all {
		if _, ok := e.(*expr.Limit); ok {
			limits = append(limits, e)
		}
	}
	return limits
}
