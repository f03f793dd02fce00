// Package plan says what a node should be: pure functions of the document and
// of what was discovered, no input or output.
package plan

import (
	"net/netip"
	"path"
	"slices"
	"time"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/fabric"
	"frond/internal/secret"
)

// Plan is what the document says of one node.
type Plan struct {
	Fabric           string
	Node             fabric.Node
	Nodes            []fabric.Node // of the whole fabric
	Password         secret.Text   // TCP-MD5 key, empty: none
	PreviousPassword secret.Text   // the key before it, while it is being changed
	BFD              fabric.BFD
	Hold, Keepalive  time.Duration
	// Originate are the prefixes announced from here: loopbacks, advertised
	// and anycast ones, and those of segments with their gateway here,
	// sorted, each once.
	Originate []netip.Prefix
	// Addresses are the host prefixes on lo: loopbacks and anycast ones,
	// sorted, each once.
	Addresses  []netip.Prefix
	Store      *Store        // nil where the fabric runs none
	Spread     fabric.Spread // of the gateways that the hypervisors' cluster decides about
	Uplink     *Uplink       // nil where the node is no exit, or one without
	Guard      Guard
	Hypervisor fabric.Hypervisor

	segments []fabric.Segment        // that the node takes part in
	gateways []fabric.Segment        // of the whole fabric: those that have a gateway
	devices  []string                // of all segments: frond's own, never ports
	loopback map[uint32]netip.Prefix // of the one node of each AS
}

// For makes the plan of the node of that name.
func For(f *fabric.Fabric, node string) (*Plan, error) {
	n, err := f.Find(node)
	if err != nil {
		return nil, err
	}
	p := &Plan{
		Fabric:           f.Name,
		Node:             n,
		Nodes:            f.Nodes,
		Password:         f.Underlay.Password,
		PreviousPassword: f.Underlay.PreviousPassword,
		BFD:              f.Underlay.BFD,
		Hold:             f.Underlay.Hold,
		Keepalive:        f.Underlay.Keepalive,
		Addresses:        prefixes(loopbacks(n), n.Anycast),
		Originate:        prefixes(loopbacks(n), n.Anycast, n.Advertise),
		Hypervisor:       f.Guests.LXD,
	}
	p.loopback = loopbackOfAS(f.Nodes)
	p.Store = storeOf(f, n.Name)
	p.Spread = spreadOf(f)
	p.Uplink = uplinkOf(f, n)
	p.Guard = guardOf(f, n)
	p.segments = segmentsOf(f, n.Name)
	p.gateways = gatewaysOf(f)
	p.Originate = prefixes(p.Originate, served(p.segments))
	for _, s := range f.Segments {
		p.devices = append(p.devices, s.Bridge, vxlanName(s.Name))
	}
	return p, nil
}

// loopbacks are the node's own addresses as host prefixes.
func loopbacks(n fabric.Node) []netip.Prefix {
	var own []netip.Prefix
	for _, a := range []netip.Addr{n.Loopback, n.Loopback6} {
		if a.IsValid() {
			own = append(own, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return own
}

// prefixes are those of all lists, sorted, each once.
func prefixes(lists ...[]netip.Prefix) []netip.Prefix {
	all := slices.Concat(lists...)
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all)
}

// IsPort tells whether the interface of that name may carry a cable of the
// fabric: the document's ports match it, its reserved ones do not, and it is
// neither lo nor a segment's own device.
func (p *Plan) IsPort(name string) bool {
	return matches(p.Node.Ports, name) && !matches(p.Node.ReservedPorts, name) &&
		name != "lo" && !slices.Contains(p.devices, name)
}

// matches tells whether one of the globs matches the name. Globs were
// validated with the document.
func matches(globs []string, name string) bool {
	return slices.ContainsFunc(globs, func(glob string) bool {
		ok, _ := path.Match(glob, name)
		return ok
	})
}

// Desired is the kernel's small state with these ports.
func (p *Plan) Desired(ports []string) dataplane.Desired {
	d := dataplane.Desired{Sysctls: Sysctls(), Addresses: p.Addresses}
	for _, name := range ports {
		d.Ports = append(d.Ports, dataplane.Port{Name: name})
	}
	return d
}

// Route is what the kernel needs for the best paths to a prefix: nothing for
// what is originated here, else one next hop per path and the loopback of the
// prefix's family as source.
func (p *Plan) Route(paths bgp.Paths) dataplane.RouteUpdate {
	route := dataplane.RouteUpdate{Prefix: paths.Prefix, Source: p.source(paths.Prefix)}
	if paths.Local || slices.Contains(p.Addresses, paths.Prefix) {
		return route
	}
	for _, path := range paths.Paths {
		leg := Leg(path.Peer)
		if !slices.Contains(route.NextHops, leg) {
			route.NextHops = append(route.NextHops, leg)
		}
	}
	route.Behind = p.behind(paths.Paths)
	return route
}

// Attached is the route to a prefix whose hosts are at a port themselves.
func (p *Plan) Attached(prefix netip.Prefix, port string) dataplane.RouteUpdate {
	via := netip.IPv6Unspecified()
	if prefix.Addr().Is4() {
		via = netip.IPv4Unspecified()
	}
	return dataplane.RouteUpdate{Prefix: prefix, Source: p.source(prefix), NextHops: []dataplane.NextHop{{Port: port, Via: via}}}
}

// behind is the loopback of the node that all paths come through next to the
// peers; zero if it is not the same one, or none of the document's.
func (p *Plan) behind(paths []bgp.Path) netip.Prefix {
	var common uint32
	for i, path := range paths {
		second := secondAS(path.ASPath)
		if i > 0 && second != common {
			return netip.Prefix{}
		}
		common = second
	}
	return p.loopback[common]
}

// secondAS is the first AS of a path that is not the peer's, 0 if there is none.
func secondAS(path []uint32) uint32 {
	for _, as := range path {
		if as != path[0] {
			return as
		}
	}
	return 0
}

// loopbackOfAS gives the loopback of the node of each AS that only one has.
func loopbackOfAS(nodes []fabric.Node) map[uint32]netip.Prefix {
	loopback := make(map[uint32]netip.Prefix, len(nodes))
	for _, n := range nodes {
		prefix := netip.PrefixFrom(n.Loopback, n.Loopback.BitLen())
		if _, shared := loopback[n.ASN]; shared {
			prefix = netip.Prefix{}
		}
		loopback[n.ASN] = prefix
	}
	return loopback
}

// source is the node's own address of the prefix's family.
func (p *Plan) source(prefix netip.Prefix) netip.Addr {
	if prefix.Addr().Is4() {
		return p.Node.Loopback
	}
	return p.Node.Loopback6
}

// Leg is the way out that a zoned link-local address names.
func Leg(peer netip.Addr) dataplane.NextHop {
	return dataplane.NextHop{Port: peer.Zone(), Via: peer.WithZone("")}
}

// Address is the zoned link-local address behind a leg: a BGP peer's identity.
func Address(leg dataplane.NextHop) netip.Addr { return leg.Via.WithZone(leg.Port) }
