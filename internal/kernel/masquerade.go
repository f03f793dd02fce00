package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"frond/internal/dataplane"
)

// natTable is the one nf_tables table that source NAT lives in, of family
// inet. All that is in it is frond's.
const (
	natTable = "frond-nat"
	natChain = "postrouting"
)

// SetMasquerade makes the kernel's source NAT exactly this, in one
// transaction. Connections that are known already keep their addresses: they
// are conntrack's, not the rules'.
func (k *Kernel) SetMasquerade(m dataplane.Masquerade) error {
	conn, err := nftables.New(nftables.WithNetNSFd(k.ns.Fd()))
	if err != nil {
		return fmt.Errorf("open nf_tables: %w", err)
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: natTable}
	conn.AddTable(table) // so that there is one to delete
	conn.DelTable(table)
	if m.Port != "" {
		if err := addMasquerade(conn, m); err != nil {
			return err
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("set source NAT on %s (does this kernel have nft_chain_nat and nft_masq?): %w", m.Port, err)
	}
	return nil
}

func addMasquerade(conn *nftables.Conn, m dataplane.Masquerade) error {
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: natTable})
	chain := conn.AddChain(&nftables.Chain{
		Table: table, Name: natChain, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	for _, f := range natFamilies {
		set := &nftables.Set{Table: table, Name: f.set, KeyType: f.key, Interval: true}
		if err := conn.AddSet(set, f.elements(m.Sources)); err != nil {
			return fmt.Errorf("encode the sources of source NAT: %w", err)
		}
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: f.rule(m.Port, set.ID)})
	}
	return nil
}

// natFamily is what IPv4 and IPv6 differ in.
type natFamily struct {
	set            string // of the sources
	key            nftables.SetDatatype
	proto          byte   // NFPROTO_IPV4 or NFPROTO_IPV6
	offset, length uint32 // of the source address in the header
}

var natFamilies = []natFamily{
	{set: "sources4", key: nftables.TypeIPAddr, proto: unix.NFPROTO_IPV4, offset: 12, length: 4},
	{set: "sources6", key: nftables.TypeIP6Addr, proto: unix.NFPROTO_IPV6, offset: 8, length: 16},
}

// rule is, in nft(8)'s words: oifname PORT meta nfproto … saddr @SET masquerade.
func (f natFamily) rule(port string, setID uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: append([]byte(port), make([]byte, unix.IFNAMSIZ-len(port))...)},
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f.proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: f.length},
		&expr.Lookup{SourceRegister: 1, SetName: f.set, SetID: setID},
		&expr.Masq{},
	}
}

// elements are the prefixes of the family as intervals: where each begins, and
// where what follows it does.
func (f natFamily) elements(prefixes []netip.Prefix) []nftables.SetElement {
	var elements []nftables.SetElement
	for _, p := range prefixes {
		if p.Addr().Is4() != (f.proto == unix.NFPROTO_IPV4) {
			continue
		}
		elements = append(elements, nftables.SetElement{Key: p.Masked().Addr().AsSlice()})
		if next := lastOf(p).Next(); next.IsValid() {
			elements = append(elements, nftables.SetElement{Key: next.AsSlice(), IntervalEnd: true})
		}
	}
	return elements
}

// lastOf is the highest address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// HasMasquerade tells whether the kernel's source NAT is exactly this.
func (k *Kernel) HasMasquerade(m dataplane.Masquerade) (bool, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(k.ns.Fd()))
	if err != nil {
		return false, fmt.Errorf("open nf_tables: %w", err)
	}
	chain, there, err := findNAT(conn)
	switch {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPROTONOSUPPORT), errors.Is(err, unix.EOPNOTSUPP):
		if m.Port == "" {
			return true, nil // a kernel without nf_tables has no source NAT to be removed
		}
		fallthrough
	case err != nil:
		return false, fmt.Errorf("read source NAT: %w", err)
	case m.Port == "":
		return !there, nil
	case chain == nil:
		return false, nil
	}
	return compareNAT(conn, chain, m)
}

// findNAT looks for frond's table, and for the only chain in it, which is nil
// if it is not as frond makes it.
func findNAT(conn *nftables.Conn) (*nftables.Chain, bool, error) {
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, false, err
	}
	ours := func(t *nftables.Table) bool { return t.Name == natTable }
	if !slices.ContainsFunc(tables, ours) {
		return nil, false, nil
	}
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, true, err
	}
	chains = slices.DeleteFunc(chains, func(c *nftables.Chain) bool { return !ours(c.Table) })
	if len(chains) != 1 || chains[0].Name != natChain || chains[0].Type != nftables.ChainTypeNAT ||
		chains[0].Hooknum == nil || *chains[0].Hooknum != *nftables.ChainHookPostrouting {
		return nil, true, nil
	}
	return chains[0], true, nil
}

// compareNAT compares rules and sets with what addMasquerade makes.
func compareNAT(conn *nftables.Conn, chain *nftables.Chain, m dataplane.Masquerade) (bool, error) {
	rules, err := conn.GetRules(chain.Table, chain)
	if err != nil || len(rules) != len(natFamilies) {
		return false, err
	}
	for i, f := range natFamilies {
		if !sameRule(rules[i].Exprs, f.rule(m.Port, 0)) {
			return false, nil
		}
		set, err := conn.GetSetByName(chain.Table, f.set)
		if err != nil {
			return false, nil //nolint:nilerr // there is none
		}
		elements, err := conn.GetSetElements(set)
		if err != nil {
			return false, fmt.Errorf("read the sources of source NAT: %w", err)
		}
		if !sameElements(elements, f.elements(m.Sources)) {
			return false, nil
		}
	}
	return true, nil
}

// sameRule compares expressions; what names a set by its number in a
// transaction is the transaction's.
func sameRule(have, want []expr.Any) bool {
	for _, e := range have {
		if lookup, ok := e.(*expr.Lookup); ok {
			lookup.SetID = 0
		}
	}
	return reflect.DeepEqual(have, want)
}

// sameElements compares intervals, which the kernel gives in an order of its own.
func sameElements(have, want []nftables.SetElement) bool {
	ends := func(elements []nftables.SetElement) []string {
		var texts []string
		for _, e := range elements {
			texts = append(texts, fmt.Sprintf("%x %t", e.Key, e.IntervalEnd))
		}
		slices.Sort(texts)
		return texts
	}
	return slices.Equal(ends(have), ends(want))
}
