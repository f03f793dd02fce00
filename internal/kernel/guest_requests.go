package kernel

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"frond/internal/dataplane"
)

// requestTable is the name of the nf_tables tables, of the families bridge and
// inet, that keep guests' DHCP requests on their node. All that is in them is
// frond's.
const requestTable = "frond-dhcp"

// beforeBridged is NF_BR_PRI_FILTER_BRIDGED: with br_netfilter in the kernel
// and net.bridge.bridge-nf-call-iptables set, what comes after it and up to
// NF_BR_PRI_BRNF, 0, does not see the bridge's IP packets.
const beforeBridged = -200

// requests are those to the servers of one protocol.
type requests struct {
	etherType uint16
	next      uint32 // where the network header names what it carries
	port      uint16
	wanted    func(dataplane.Segment) bool
}

var (
	requests4 = requests{unix.ETH_P_IP, 9, portDHCPServer, func(s dataplane.Segment) bool { return s.DHCP }}
	requests6 = requests{unix.ETH_P_IPV6, 6, portDHCP6Server, func(s dataplane.Segment) bool { return s.DHCP6 }}
)

// SetRequests keeps requests to DHCP servers off the fabric on exactly these
// segments, those with DHCP or DHCPv6: they do not leave by the VXLAN device, and
// the bridge's host, whose gateway address a guest may send them to, does not
// refuse them by ICMP. Of IPv6 all are to a group that the host is not in. What
// hears them on the guests' ports comes before. It tells whether anything had to
// be changed.
func (k *Kernel) SetRequests(segments []dataplane.Segment) (bool, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(k.ns.Fd()))
	if err != nil {
		return false, fmt.Errorf("open nf_tables: %w", err)
	}
	crossing := requestRules{family: nftables.TableFamilyBridge, hook: nftables.ChainHookForward}
	refused := requestRules{family: nftables.TableFamilyINet, hook: nftables.ChainHookInput}
	for _, s := range segments {
		for _, r := range []requests{requests4, requests6} {
			if r.wanted(s) {
				crossing.rules = append(crossing.rules, r.rule(expr.MetaKeyOIFNAME, s.VXLAN))
			}
		}
		if requests4.wanted(s) {
			refused.rules = append(refused.rules, requests4.rule(expr.MetaKeyIIFNAME, s.Bridge))
		}
	}
	changed := false
	for _, r := range []requestRules{crossing, refused} {
		did, err := r.set(conn)
		if err != nil {
			return changed, fmt.Errorf("keep DHCP requests off the fabric (does this kernel have nf_tables for bridges?): %w", err)
		}
		changed = changed || did
	}
	return changed, nil
}

// requestRules are those of one family, in a chain at one hook.
type requestRules struct {
	family nftables.TableFamily
	hook   *nftables.ChainHook
	rules  [][]expr.Any
}

const requestChain = "requests"

// set has the family's table hold exactly these rules.
func (r requestRules) set(conn *nftables.Conn) (changed bool, err error) {
	same, err := r.held(conn)
	if err != nil || same {
		return false, err
	}
	table := conn.AddTable(&nftables.Table{Family: r.family, Name: requestTable}) // so that there is one to delete
	conn.DelTable(table)
	if len(r.rules) == 0 {
		return true, conn.Flush()
	}
	table = conn.AddTable(table)
	chain := conn.AddChain(&nftables.Chain{
		Table: table, Name: requestChain, Type: nftables.ChainTypeFilter,
		Hooknum: r.hook, Priority: nftables.ChainPriorityRef(beforeBridged),
	})
	for _, rule := range r.rules {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: rule})
	}
	return true, conn.Flush()
}

// held tells whether the kernel holds exactly these rules.
func (r requestRules) held(conn *nftables.Conn) (bool, error) {
	tables, err := conn.ListTablesOfFamily(r.family)
	if err != nil {
		if len(r.rules) == 0 && isUnsupported(err) {
			return true, nil // there are none to be removed
		}
		return false, fmt.Errorf("list tables: %w", err)
	}
	there := slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == requestTable })
	if !there || len(r.rules) == 0 {
		return !there && len(r.rules) == 0, nil
	}
	chains, err := conn.ListChainsOfTableFamily(r.family)
	if err != nil {
		return false, fmt.Errorf("list chains: %w", err)
	}
	chains = slices.DeleteFunc(chains, func(c *nftables.Chain) bool { return c.Table.Name != requestTable })
	if len(chains) != 1 || chains[0].Name != requestChain || !sameChain(chains[0], guardChain{hook: r.hook, prio: beforeBridged}) {
		return false, nil
	}
	rules, err := conn.GetRules(chains[0].Table, chains[0])
	if err != nil {
		return false, fmt.Errorf("list rules: %w", err)
	}
	return slices.EqualFunc(rules, r.rules, func(have *nftables.Rule, want []expr.Any) bool {
		return sameRule(uncounted(have.Exprs), uncounted(want))
	}), nil
}

// uncounted leaves counters out, which are as they stand.
func uncounted(rule []expr.Any) []expr.Any {
	return slices.DeleteFunc(slices.Clone(rule), func(e expr.Any) bool { _, counts := e.(*expr.Counter); return counts })
}

// rule is, in nft(8)'s words of IPv4: oifname DEVICE meta protocol ip meta
// l4proto udp udp dport 67 drop.
func (r requests) rule(key expr.MetaKey, device string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: append([]byte(device), make([]byte, unix.IFNAMSIZ-len(device))...)},
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, r.etherType)},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: r.next, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, r.port)},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}
