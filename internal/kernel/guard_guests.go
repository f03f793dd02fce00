package kernel

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"frond/internal/dataplane"
)

// guardGuests is what guests are kept from, at the ingress of their ports and,
// where they speak to nodes, of their bridges: unlike at hooks of bridges and of
// IP, nothing comes by ports but what their guests send, and nothing by bridges
// that is only bridged. What other nodes' guests send was judged there. A packet in
// a guest's own name that nothing else is to be asked of needs a single look-up, by
// a short key: each costs several cache misses, as packets of 64 KiB come between.
func guardGuests(strict bool, broadcast int) guardFamily {
	holder4 := seq(link(linkSource), load(reg8, expr.PayloadBaseNetworkHeader, ip4From, 4), in("holders4"))
	holder6 := seq(link(linkSource), load(reg8, expr.PayloadBaseNetworkHeader, ip6From, 16), in("holders6"))
	target6 := seq(link(linkSource), load(reg8, expr.PayloadBaseTransportHeader, neighborTargetField, 16), in("holders6"))
	arpHolder := seq(network(arpSenderMAC, 6), load(reg8, expr.PayloadBaseNetworkHeader, arpSenderIP, 4), in("holders4"))
	place := seq(meta(expr.MetaKeyIIFNAME), load(regNext, expr.PayloadBaseLLHeader, linkSource, 6), in("places"))
	const dhcpServer, dhcp6Server = 67, 547
	own := func(from, size uint32, set string) []expr.Any {
		return seq(meta(expr.MetaKeyIIF), load(reg4, expr.PayloadBaseLLHeader, linkSource, 6),
			load(reg12, expr.PayloadBaseNetworkHeader, from, size), in(set), pass())
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
		family: nftables.TableFamilyNetdev,
		sets: []guardSet{
			{name: "places", types: []nftables.SetDatatype{nftables.TypeIFName, nftables.TypeEtherAddr}, elements: placeKeys},
			{name: "placed", restricts: true, types: []nftables.SetDatatype{nftables.TypeEtherAddr}, elements: placedKeys},
			{name: "gateways4", restricts: true, types: []nftables.SetDatatype{nftables.TypeIPAddr}, elements: func(g dataplane.Guard) [][]byte { return addressKeys(g.Gateways, 4) }},
			{name: "gateways6", restricts: true, types: []nftables.SetDatatype{nftables.TypeIP6Addr}, elements: func(g dataplane.Guard) [][]byte { return addressKeys(g.Gateways, 16) }},
			{name: "holders4", types: []nftables.SetDatatype{nftables.TypeEtherAddr, nftables.TypeIPAddr}, elements: func(g dataplane.Guard) [][]byte { return holderKeys(g, 4) }},
			{name: "holders6", types: []nftables.SetDatatype{nftables.TypeEtherAddr, nftables.TypeIP6Addr}, elements: func(g dataplane.Guard) [][]byte { return holderKeys(g, 16) }},
			{name: "own4", types: []nftables.SetDatatype{nftables.TypeIFIndex, nftables.TypeEtherAddr, nftables.TypeIPAddr}, elements: func(g dataplane.Guard) [][]byte { return ownKeys(g, 4) }},
			{name: "own6", types: []nftables.SetDatatype{nftables.TypeIFIndex, nftables.TypeEtherAddr, nftables.TypeIP6Addr}, elements: func(g dataplane.Guard) [][]byte { return ownKeys(g, 16) }},
			{name: "held4", restricts: true, types: []nftables.SetDatatype{nftables.TypeIPAddr}, elements: func(g dataplane.Guard) [][]byte { return heldKeys(g, 4) }},
			{name: "held6", restricts: true, types: []nftables.SetDatatype{nftables.TypeIP6Addr}, elements: func(g dataplane.Guard) [][]byte { return heldKeys(g, 16) }},
			{name: "fabric4", restricts: true, types: []nftables.SetDatatype{nftables.TypeIPAddr}, interval: true, elements: func(g dataplane.Guard) [][]byte { return prefixKeys(g.Fabric, 4) }},
			{name: "fabric6", restricts: true, types: []nftables.SetDatatype{nftables.TypeIP6Addr}, interval: true, elements: func(g dataplane.Guard) [][]byte { return prefixKeys(g.Fabric, 16) }},
			{name: "services-tcp", restricts: true, types: []nftables.SetDatatype{nftables.TypeInetService}, elements: services(portBGP, 2379, 2380, 7179)},         // BGP, the store, the agent's API
			{name: "services-udp", restricts: true, types: []nftables.SetDatatype{nftables.TypeInetService}, elements: services(3784, 3785, 4784, portVXLAN, 6784)}, // BFD (RFC 5881, 5883, 7130), VXLAN
		},
		drops: []string{
			dataplane.DropBPDU, dataplane.DropMAC, dataplane.DropGateway, dataplane.DropAddress, dataplane.DropLoopback, dataplane.DropSource,
			dataplane.DropBroadcast, dataplane.DropDHCP, dataplane.DropRA, dataplane.DropService, dataplane.DropFragments,
		},
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
			{name: "services", rules: [][]expr.Any{
				seq(protocol(unix.ETH_P_IP), network(ip4Fragment, 2), masked(0x1f, 0xff), differs(0, 0), drop(dataplane.DropFragments)),
				seq(protocol(unix.ETH_P_IPV6), fragmentHeader(), drop(dataplane.DropFragments)),
				seq(layer4(unix.IPPROTO_TCP), transport(portTo, 2), in("services-tcp"), drop(dataplane.DropService)),
				seq(layer4(unix.IPPROTO_UDP), transport(portTo, 2), in("services-udp"), drop(dataplane.DropService)),
			}},
			{name: "node4", rules: [][]expr.Any{
				seq(network(ip4From, 4), in("fabric4"), drop(dataplane.DropLoopback)),
				goTo("services"),
			}},
			{name: "node6", rules: [][]expr.Any{
				seq(network(ip6From, 16), in("fabric6"), drop(dataplane.DropLoopback)),
				goTo("services"),
			}},
			// What goes on to guests or beyond the fabric may come from a node that
			// routes into the segment (RFC 9136).
			{name: "routed4", rules: [][]expr.Any{
				seq(network(ip4To, 4), in("fabric4"), goTo("node4")),
				seq(passesThrough(), back()),
				goTo("node4"),
			}},
			{name: "routed6", rules: [][]expr.Any{
				seq(network(ip6To, 16), in("fabric6"), goTo("node6")),
				seq(linkLocal6(network(ip6To, 2)), goTo("node6")),
				seq(passesThrough(), back()),
				goTo("node6"),
			}},
		},
	}
	atPort := [][]expr.Any{own4, own6, goTo("guest")}
	atBridge := [][]expr.Any{
		seq(protocol(unix.ETH_P_IP), goTo("routed4")),
		seq(protocol(unix.ETH_P_IPV6), goTo("routed6")),
	}
	f.chains = slices.Concat(dropChains(f.drops), f.chains)
	if strict {
		f.bindSources()
	}
	if broadcast > 0 {
		atPort = slices.Insert(atPort, 0, f.limitFlood(broadcast))
	}
	f.onDevices = func(g dataplane.Guard) []guardChain {
		var chains []guardChain
		for _, d := range g.GuestPorts {
			chains = append(chains, ingress(d, atPort))
		}
		for _, d := range g.Bridges {
			chains = append(chains, ingress(d, atBridge))
		}
		return chains
	}
	return f
}

// ingress is the chain of what a device receives. Its name tells the device from
// one that takes its name later.
func ingress(d dataplane.GuardedDevice, rules [][]expr.Any) guardChain {
	return guardChain{name: fmt.Sprintf("%s-%d", d.Name, d.Index), hook: nftables.ChainHookIngress, prio: -200, device: d.Name, rules: rules}
}

// passesThrough tells that a packet is neither to an address of the node nor to
// many.
func passesThrough() []expr.Any {
	return seq([]expr.Any{&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true}},
		equal(binary.NativeEndian.AppendUint32(nil, unix.RTN_UNICAST)...))
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
