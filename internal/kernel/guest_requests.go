package kernel

import (
	"encoding/binary"
	"fmt"

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
// hears them on the guests' ports comes before.
func (k *Kernel) SetRequests(segments []dataplane.Segment) error {
	conn, err := nftables.New(nftables.WithNetNSFd(k.ns.Fd()))
	if err != nil {
		return fmt.Errorf("open nf_tables: %w", err)
	}
	var crossing, refused [][]expr.Any
	for _, s := range segments {
		for _, r := range []requests{requests4, requests6} {
			if r.wanted(s) {
				crossing = append(crossing, r.rule(expr.MetaKeyOIFNAME, s.VXLAN))
			}
		}
		if requests4.wanted(s) {
			refused = append(refused, requests4.rule(expr.MetaKeyIIFNAME, s.Bridge))
		}
	}
	setRequests(conn, nftables.TableFamilyBridge, nftables.ChainHookForward, crossing)
	setRequests(conn, nftables.TableFamilyINet, nftables.ChainHookInput, refused)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("keep DHCP requests off the fabric (does this kernel have nf_tables for bridges?): %w", err)
	}
	return nil
}

// setRequests has the family's table hold exactly these rules.
func setRequests(conn *nftables.Conn, family nftables.TableFamily, hook *nftables.ChainHook, rules [][]expr.Any) {
	table := &nftables.Table{Family: family, Name: requestTable}
	conn.AddTable(table) // so that there is one to delete
	conn.DelTable(table)
	if len(rules) == 0 {
		return
	}
	table = conn.AddTable(&nftables.Table{Family: family, Name: requestTable})
	chain := conn.AddChain(&nftables.Chain{
		Table: table, Name: "requests", Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: nftables.ChainPriorityRef(beforeBridged),
	})
	for _, rule := range rules {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: rule})
	}
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
