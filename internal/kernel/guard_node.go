package kernel

import (
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"frond/internal/dataplane"
)

// guardNode is what others than guests are kept from, who send to the node.
func guardNode(local netip.Addr) guardFamily {
	to := func(nfproto, proto byte, number uint16) []expr.Any {
		return seq(ipFamily(nfproto), layer4(proto), transport(portTo, 2), port(number))
	}
	input := [][]expr.Any{
		seq(to(unix.NFPROTO_IPV4, unix.IPPROTO_TCP, portBGP), portIn("ports"), drop(dataplane.DropBGP)),
		seq(to(unix.NFPROTO_IPV6, unix.IPPROTO_TCP, portBGP), portIn("ports"), network(ip6From, 2), masked(0xff, 0xc0), differs(0xfe, 0x80), drop(dataplane.DropBGP)),
	}
	if local.IsValid() {
		tunnelled := seq(to(unix.NFPROTO_IPV4, unix.IPPROTO_UDP, portVXLAN), network(ip4To, 4), equal(local.AsSlice()...))
		input = slices.Concat([][]expr.Any{
			seq(tunnelled, network(ip4From, 4), in("vteps"), pass()), // most of what comes
			seq(tunnelled, drop(dataplane.DropVXLAN)),
		}, input)
	}
	f := guardFamily{
		family: nftables.TableFamilyINet,
		sets: []guardSet{
			{name: "ports", types: []nftables.SetDatatype{nftables.TypeIFName}, elements: func(g dataplane.Guard) [][]byte { return nameKeys(g.Ports) }},
			{name: "vteps", types: []nftables.SetDatatype{nftables.TypeIPAddr}, elements: func(g dataplane.Guard) [][]byte { return addressKeys(g.VTEPs, 4) }},
		},
		drops: []string{dataplane.DropVXLAN, dataplane.DropBGP},
	}
	f.chains = append(dropChains(f.drops), guardChain{name: "input", hook: nftables.ChainHookInput, prio: -10, rules: input})
	return f
}
