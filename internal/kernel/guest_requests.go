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

// SetRequests keeps requests to DHCP servers off the fabric on exactly these
// segments, those with DHCP: they do not leave by the VXLAN device, and the
// bridge's host, whose gateway address a guest may send them to, does not
// refuse them by ICMP. What hears them on the guests' ports comes before.
func (k *Kernel) SetRequests(segments []dataplane.Segment) error {
	conn, err := nftables.New(nftables.WithNetNSFd(k.ns.Fd()))
	if err != nil {
		return fmt.Errorf("open nf_tables: %w", err)
	}
	addRequests(conn, nftables.TableFamilyBridge, nftables.ChainHookForward, expr.MetaKeyOIFNAME, segments,
		func(s dataplane.Segment) string { return s.VXLAN })
	addRequests(conn, nftables.TableFamilyINet, nftables.ChainHookInput, expr.MetaKeyIIFNAME, segments,
		func(s dataplane.Segment) string { return s.Bridge })
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("keep DHCP requests off the fabric (does this kernel have nf_tables for bridges?): %w", err)
	}
	return nil
}

func addRequests(conn *nftables.Conn, family nftables.TableFamily, hook *nftables.ChainHook, key expr.MetaKey,
	segments []dataplane.Segment, device func(dataplane.Segment) string,
) {
	table := &nftables.Table{Family: family, Name: requestTable}
	conn.AddTable(table) // so that there is one to delete
	conn.DelTable(table)
	var chain *nftables.Chain
	for _, s := range segments {
		if !s.DHCP {
			continue
		}
		if chain == nil {
			table = conn.AddTable(&nftables.Table{Family: family, Name: requestTable})
			chain = conn.AddChain(&nftables.Chain{
				Table: table, Name: "requests", Type: nftables.ChainTypeFilter,
				Hooknum: hook, Priority: nftables.ChainPriorityRef(beforeBridged),
			})
		}
		conn.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: requestRule(key, device(s))})
	}
}

// requestRule is, in nft(8)'s words: oifname DEVICE meta protocol ip meta
// l4proto udp udp dport 67 drop.
func requestRule(key expr.MetaKey, device string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: append([]byte(device), make([]byte, unix.IFNAMSIZ-len(device))...)},
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, unix.ETH_P_IP)},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 9, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, portDHCPServer)},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}
