package kernel

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"frond/internal/dataplane"
)

// guardTable is the name of the guard's two tables: of family bridge for what
// comes in by guests' ports, of family inet for what comes to the node or
// through it. All that is in them is frond's.
const guardTable = "frond-guard"

// table is a table of the guard as it should be.
type guardFamily struct {
	family nftables.TableFamily
	sets   []guardSet
	chains []guardChain
	drops  []string // rules whose packets are counted
	meters []string // sets of limits, one for each port
}

// guardSet is a set whose elements change while the rules stay.
type guardSet struct {
	name     string
	types    []nftables.SetDatatype // more than one: concatenated
	interval bool
	elements func(dataplane.Guard) [][]byte // their keys; of intervals, see prefixKeys
}

type guardChain struct {
	name  string
	hook  *nftables.ChainHook // nil: reached from other chains
	prio  int32
	rules [][]expr.Any
}

// Offsets of fields in the header that the base of a payload names.
const (
	linkDestination, linkSource   = 0, 6
	arpSenderMAC, arpSenderIP     = 8, 14
	ip4Fragment, ip4From, ip4To   = 6, 12, 16
	ip6From, ip6To                = 8, 24
	portFrom, portTo              = 0, 2
	icmpType, neighborTargetField = 0, 8
)

// Registers: reg takes 16 octets, and within it, reg8 begins at the ninth;
// regNext comes after it, and reg24 behind the 8 octets of a MAC there.
const (
	reg     = unix.NFT_REG_1
	regNext = unix.NFT_REG_2
	reg8    = unix.NFT_REG32_00 + 2
	reg24   = unix.NFT_REG32_00 + 6
)

// The kinds of the devices that a packet came in by and leaves by
// (NFT_META_IIFKIND and NFT_META_OIFKIND, include/uapi/linux/netfilter/nf_tables.h).
const (
	metaIIFKind expr.MetaKey = 26
	metaOIFKind expr.MetaKey = 27
)

// Messages of ICMPv6 (RFC 4861).
const (
	routerAdvert = 134
	redirect     = 137
)

func seq(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func equal(to ...byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: to}}
}

func differs(to ...byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: to}}
}

func in(set string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg, SetName: set}}
}

func notIn(set string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg, SetName: set, Invert: true}}
}

func load(to uint32, base expr.PayloadBase, offset, length uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: to, Base: base, Offset: offset, Len: length}}
}

// link loads a MAC of the frame.
func link(offset uint32) []expr.Any {
	return load(reg, expr.PayloadBaseLLHeader, offset, 6)
}
func network(offset, length uint32) []expr.Any {
	return load(reg, expr.PayloadBaseNetworkHeader, offset, length)
}
func transport(offset, length uint32) []expr.Any {
	return load(reg, expr.PayloadBaseTransportHeader, offset, length)
}

func masked(mask ...byte) []expr.Any {
	return []expr.Any{&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))}}
}

func meta(key expr.MetaKey) []expr.Any { return []expr.Any{&expr.Meta{Key: key, Register: reg}} }

func portIn(set string) []expr.Any { return seq(meta(expr.MetaKeyIIFNAME), in(set)) }

// kindIn compares the kind of the device, which costs less than to look its
// name up.
func kindIn(kind string) []expr.Any    { return seq(meta(metaIIFKind), equal(nameKey(kind)...)) }
func kindInNot(kind string) []expr.Any { return seq(meta(metaIIFKind), differs(nameKey(kind)...)) }

// protocol is of the frame, which bridges know; family of the packet, which
// the family inet does.
func protocol(etherType uint16) []expr.Any {
	return seq(meta(expr.MetaKeyPROTOCOL), equal(binary.BigEndian.AppendUint16(nil, etherType)...))
}
func ipFamily(nfproto byte) []expr.Any { return seq(meta(expr.MetaKeyNFPROTO), equal(nfproto)) }
func layer4(proto byte) []expr.Any     { return seq(meta(expr.MetaKeyL4PROTO), equal(proto)) }
func layer4Differs(proto byte) []expr.Any {
	return seq(meta(expr.MetaKeyL4PROTO), differs(proto))
}

func port(number uint16) []expr.Any { return equal(binary.BigEndian.AppendUint16(nil, number)...) }
func portDiffers(number uint16) []expr.Any {
	return differs(binary.BigEndian.AppendUint16(nil, number)...)
}

func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}
func goTo(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}
func back() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}} }

// pass ends the guard's look at a packet.
func pass() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

// drop has the packet counted and dropped.
func drop(rule string) []expr.Any { return goTo(dropSet(rule)) }

// dropChains count packets for the port that they came in by, and drop them,
// those too that find no room to be counted.
func dropChains(rules []string) []guardChain {
	var chains []guardChain
	for _, rule := range rules {
		count := seq(meta(expr.MetaKeyIIFNAME), []expr.Any{
			&expr.Dynset{SrcRegKey: reg, SetName: dropSet(rule), Operation: uint32(unix.NFT_DYNSET_OP_ADD), Exprs: []expr.Any{&expr.Counter{}}},
		})
		chains = append(chains, guardChain{name: dropSet(rule), rules: [][]expr.Any{count, {&expr.Verdict{Kind: expr.VerdictDrop}}}})
	}
	return chains
}

// dropSet names both the chain that drops by a rule and the set of what it counts.
func dropSet(rule string) string { return "drop-" + rule }

// fragmentHeader tells that there is one of IPv6.
func fragmentHeader() []expr.Any {
	return seq([]expr.Any{&expr.Exthdr{DestRegister: reg, Type: unix.IPPROTO_FRAGMENT, Offset: 0, Len: 1,
		Flags: unix.NFT_EXTHDR_F_PRESENT, Op: expr.ExthdrOpIpv6}}, equal(1))
}

// guardBridge is what guests' ports are kept from. What other nodes send was
// judged there. A packet in a guest's own name that nothing else is to be asked
// of needs a single look-up: each costs several cache misses, as packets of 64 KiB
// come between.
func guardBridge(strict bool, broadcast int) guardFamily {
	holder4 := seq(link(linkSource), load(reg8, expr.PayloadBaseNetworkHeader, ip4From, 4), in("holders4"))
	holder6 := seq(link(linkSource), load(reg8, expr.PayloadBaseNetworkHeader, ip6From, 16), in("holders6"))
	target6 := seq(link(linkSource), load(reg8, expr.PayloadBaseTransportHeader, neighborTargetField, 16), in("holders6"))
	arpHolder := seq(network(arpSenderMAC, 6), load(reg8, expr.PayloadBaseNetworkHeader, arpSenderIP, 4), in("holders4"))
	place := seq(meta(expr.MetaKeyIIFNAME), load(regNext, expr.PayloadBaseLLHeader, linkSource, 6), in("places"))
	const dhcpServer, dhcp6Server = 67, 547
	own := func(from, size uint32, set string) []expr.Any {
		return seq(meta(expr.MetaKeyIIFNAME), load(regNext, expr.PayloadBaseLLHeader, linkSource, 6),
			load(reg24, expr.PayloadBaseNetworkHeader, from, size), in(set), pass())
	}
	// Where there is no port, as in all but the first fragment, these do not pass.
	own4 := seq(protocol(unix.ETH_P_IP), transport(portFrom, 2), portDiffers(dhcpServer), own(ip4From, 4, "own4"))
	own6 := seq(protocol(unix.ETH_P_IPV6), layer4Differs(unix.IPPROTO_ICMPV6), transport(portFrom, 2), portDiffers(dhcp6Server), own(ip6From, 16, "own6"))
	icmp := func(kind byte) []expr.Any {
		return seq(layer4(unix.IPPROTO_ICMPV6), transport(icmpType, 1), equal(kind))
	}
	udpFrom := func(number uint16) []expr.Any {
		return seq(layer4(unix.IPPROTO_UDP), transport(portFrom, 2), port(number))
	}
	f := guardFamily{
		family: nftables.TableFamilyBridge,
		sets: []guardSet{
			{name: "guests", types: []nftables.SetDatatype{nftables.TypeIFName}, elements: func(g dataplane.Guard) [][]byte { return nameKeys(g.GuestPorts) }},
			{name: "places", types: []nftables.SetDatatype{nftables.TypeIFName, nftables.TypeEtherAddr}, elements: placeKeys},
			{name: "placed", types: []nftables.SetDatatype{nftables.TypeEtherAddr}, elements: placedKeys},
			{name: "gateways4", types: []nftables.SetDatatype{nftables.TypeIPAddr}, elements: func(g dataplane.Guard) [][]byte { return addressKeys(g.Gateways, 4) }},
			{name: "gateways6", types: []nftables.SetDatatype{nftables.TypeIP6Addr}, elements: func(g dataplane.Guard) [][]byte { return addressKeys(g.Gateways, 16) }},
			{name: "holders4", types: []nftables.SetDatatype{nftables.TypeEtherAddr, nftables.TypeIPAddr}, elements: func(g dataplane.Guard) [][]byte { return holderKeys(g, 4) }},
			{name: "holders6", types: []nftables.SetDatatype{nftables.TypeEtherAddr, nftables.TypeIP6Addr}, elements: func(g dataplane.Guard) [][]byte { return holderKeys(g, 16) }},
			{name: "own4", types: []nftables.SetDatatype{nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIPAddr}, elements: func(g dataplane.Guard) [][]byte { return ownKeys(g, 4) }},
			{name: "own6", types: []nftables.SetDatatype{nftables.TypeIFName, nftables.TypeEtherAddr, nftables.TypeIP6Addr}, elements: func(g dataplane.Guard) [][]byte { return ownKeys(g, 16) }},
			{name: "held4", types: []nftables.SetDatatype{nftables.TypeIPAddr}, elements: func(g dataplane.Guard) [][]byte { return heldKeys(g, 4) }},
			{name: "held6", types: []nftables.SetDatatype{nftables.TypeIP6Addr}, elements: func(g dataplane.Guard) [][]byte { return heldKeys(g, 16) }},
			{name: "fabric4", types: []nftables.SetDatatype{nftables.TypeIPAddr}, interval: true, elements: func(g dataplane.Guard) [][]byte { return prefixKeys(g.Fabric, 4) }},
			{name: "fabric6", types: []nftables.SetDatatype{nftables.TypeIP6Addr}, interval: true, elements: func(g dataplane.Guard) [][]byte { return prefixKeys(g.Fabric, 16) }},
		},
		drops: []string{dataplane.DropBPDU, dataplane.DropMAC, dataplane.DropGateway, dataplane.DropAddress, dataplane.DropLoopback, dataplane.DropSource, dataplane.DropBroadcast, dataplane.DropDHCP, dataplane.DropRA},
		chains: []guardChain{
			{name: "sender-arp", rules: [][]expr.Any{
				seq(network(arpSenderIP, 4), in("gateways4"), drop(dataplane.DropGateway)),
				seq(arpHolder, back()),
				seq(network(arpSenderIP, 4), in("held4"), drop(dataplane.DropAddress)),
				seq(network(arpSenderIP, 4), in("fabric4"), drop(dataplane.DropLoopback)),
			}},
			{name: "sender-ip4", rules: [][]expr.Any{
				seq(udpFrom(dhcpServer), drop(dataplane.DropDHCP)),
				seq(holder4, back()),
				seq(network(ip4From, 4), in("gateways4"), drop(dataplane.DropGateway)),
				seq(network(ip4From, 4), in("held4"), drop(dataplane.DropAddress)),
				seq(network(ip4From, 4), in("fabric4"), drop(dataplane.DropLoopback)),
			}},
			{name: "source6", rules: [][]expr.Any{
				seq(holder6, back()),
				seq(network(ip6From, 16), in("gateways6"), drop(dataplane.DropGateway)),
				seq(network(ip6From, 16), in("held6"), drop(dataplane.DropAddress)),
				seq(network(ip6From, 16), in("fabric6"), drop(dataplane.DropLoopback)),
			}},
			{name: "advert", rules: [][]expr.Any{
				seq(transport(neighborTargetField, 16), in("gateways6"), drop(dataplane.DropGateway)),
				seq(target6, goTo("source6")),
				seq(transport(neighborTargetField, 16), in("held6"), drop(dataplane.DropAddress)),
				goTo("source6"),
			}},
			{name: "sender-ip6", rules: [][]expr.Any{
				seq(icmp(routerAdvert), drop(dataplane.DropRA)),
				seq(icmp(redirect), drop(dataplane.DropRA)),
				seq(udpFrom(dhcp6Server), drop(dataplane.DropDHCP)),
				seq(icmp(neighborAdvert), goTo("advert")),
				goTo("source6"),
			}},
			{name: "source", rules: [][]expr.Any{
				seq(protocol(unix.ETH_P_IP), goTo("sender-ip4")),
				seq(protocol(unix.ETH_P_IPV6), goTo("sender-ip6")),
				seq(protocol(unix.ETH_P_ARP), goTo("sender-arp")),
			}},
			{name: "guest", rules: [][]expr.Any{
				seq(link(linkDestination), masked(0xff, 0xff, 0xff, 0xff, 0xff, 0xf0), equal(0x01, 0x80, 0xc2, 0, 0, 0), drop(dataplane.DropBPDU)),
				seq(place, goTo("source")),
				seq(link(linkSource), in("placed"), drop(dataplane.DropMAC)),
				goTo("source"),
			}},
			{name: "prerouting", hook: nftables.ChainHookPrerouting, prio: -200, rules: [][]expr.Any{
				seq(kindIn("vxlan"), pass()),
				own4,
				own6,
				seq(portIn("guests"), jump("guest")),
			}},
		},
	}
	f.chains = slices.Concat(dropChains(f.drops), f.chains)
	if strict {
		f.bindSources()
	}
	if broadcast > 0 {
		f.limitFlood(broadcast)
	}
	return f
}

// guardNode is what packets to the node and through it are kept from. What
// comes from a guest is told by the segment's bridge, so that a guest's first
// packet is judged too. Where there is no bridge, what goes through is let alone.
func guardNode(local netip.Addr, bridges bool) guardFamily {
	const bgp, vxlan = 179, 4789
	from4 := seq(ipFamily(unix.NFPROTO_IPV4), network(ip4From, 4))
	from6 := seq(ipFamily(unix.NFPROTO_IPV6), network(ip6From, 16))
	to := func(proto byte) []expr.Any { return seq(layer4(proto), transport(portTo, 2)) }
	loopbacks := [][]expr.Any{
		seq(from4, in("fabric4"), drop(dataplane.DropLoopback)),
		seq(from6, in("fabric6"), drop(dataplane.DropLoopback)),
	}
	toBGP := func(nfproto byte) []expr.Any {
		return seq(ipFamily(nfproto), to(unix.IPPROTO_TCP), port(bgp), portIn("ports"))
	}
	input := [][]expr.Any{
		seq(portIn("bridges"), goTo("local")),
		seq(toBGP(unix.NFPROTO_IPV4), drop(dataplane.DropBGP)),
		seq(toBGP(unix.NFPROTO_IPV6), network(ip6From, 2), masked(0xff, 0xc0), differs(0xfe, 0x80), drop(dataplane.DropBGP)),
	}
	if local.IsValid() {
		tunnelled := seq(ipFamily(unix.NFPROTO_IPV4), to(unix.IPPROTO_UDP), port(vxlan), network(ip4To, 4), equal(local.AsSlice()...))
		input = slices.Insert(input, 0, seq(tunnelled, kindInNot("bridge"), network(ip4From, 4), in("vteps"), pass())) // most of what comes
		input = append(input, seq(tunnelled, network(ip4From, 4), notIn("vteps"), drop(dataplane.DropVXLAN)))
	}
	f := guardFamily{
		family: nftables.TableFamilyINet,
		sets: []guardSet{
			{name: "bridges", types: []nftables.SetDatatype{nftables.TypeIFName}, elements: func(g dataplane.Guard) [][]byte { return nameKeys(g.Bridges) }},
			{name: "ports", types: []nftables.SetDatatype{nftables.TypeIFName}, elements: func(g dataplane.Guard) [][]byte { return nameKeys(g.Ports) }},
			{name: "vteps", types: []nftables.SetDatatype{nftables.TypeIPAddr}, elements: func(g dataplane.Guard) [][]byte { return addressKeys(g.VTEPs, 4) }},
			{name: "fabric4", types: []nftables.SetDatatype{nftables.TypeIPAddr}, interval: true, elements: func(g dataplane.Guard) [][]byte { return prefixKeys(g.Fabric, 4) }},
			{name: "fabric6", types: []nftables.SetDatatype{nftables.TypeIP6Addr}, interval: true, elements: func(g dataplane.Guard) [][]byte { return prefixKeys(g.Fabric, 16) }},
			{name: "services-tcp", types: []nftables.SetDatatype{nftables.TypeInetService}, elements: services(bgp, 2379, 2380, 7179)},         // BGP, the store, the agent's API
			{name: "services-udp", types: []nftables.SetDatatype{nftables.TypeInetService}, elements: services(3784, 3785, 4784, vxlan, 6784)}, // BFD (RFC 5881, 5883, 7130), VXLAN
		},
		drops: []string{dataplane.DropLoopback, dataplane.DropService, dataplane.DropFragments, dataplane.DropVXLAN, dataplane.DropBGP},
		chains: []guardChain{
			{name: "services", rules: [][]expr.Any{
				seq(ipFamily(unix.NFPROTO_IPV4), network(ip4Fragment, 2), masked(0x1f, 0xff), differs(0, 0), drop(dataplane.DropFragments)),
				seq(ipFamily(unix.NFPROTO_IPV6), fragmentHeader(), drop(dataplane.DropFragments)),
				seq(to(unix.IPPROTO_TCP), in("services-tcp"), drop(dataplane.DropService)),
				seq(to(unix.IPPROTO_UDP), in("services-udp"), drop(dataplane.DropService)),
			}},
			{name: "local", rules: append(loopbacks[:2:2], goTo("services"))},
			{name: "through", rules: append(loopbacks[:2:2],
				seq(ipFamily(unix.NFPROTO_IPV4), network(ip4To, 4), in("fabric4"), goTo("services")),
				seq(ipFamily(unix.NFPROTO_IPV6), network(ip6To, 16), in("fabric6"), goTo("services")),
			)},
			{name: "input", hook: nftables.ChainHookInput, prio: -10, rules: input},
		},
	}
	f.chains = slices.Concat(dropChains(f.drops), f.chains)
	if bridges {
		f.chains = append(f.chains, guardChain{name: "forward", hook: nftables.ChainHookForward, prio: -10, rules: [][]expr.Any{
			seq(kindInNot("bridge"), pass()),
			// To guests; and where bridge-nf-call-iptables is on, what is only bridged
			// comes here too.
			seq(meta(metaOIFKind), equal(nameKey("bridge")...), pass()),
			seq(portIn("bridges"), goTo("through")),
		}})
	}
	return f
}

func services(ports ...uint16) func(dataplane.Guard) [][]byte {
	return func(dataplane.Guard) [][]byte {
		var keys [][]byte
		for _, p := range ports {
			keys = append(keys, binaryutil.BigEndian.PutUint16(p))
		}
		return keys
	}
}
