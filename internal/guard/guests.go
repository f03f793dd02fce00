package guard

import (
	"bytes"
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"frond/internal/dataplane"
	"frond/internal/fabric"
)

// maxHolders and maxPlaces bound what the kernel is told of guests. What is
// beyond is counted.
const (
	maxHolders = 65536
	maxPlaces  = 65536
)

// Guests is what the document lets guests of one node do.
type Guests struct {
	segments []guestSegment
	fabric   []netip.Prefix
	local    netip.Addr
	vteps    []netip.Addr

	strict    bool
	broadcast int
}

// guestSegment is a segment that the node takes part in.
type guestSegment struct {
	name     string
	prefixes []netip.Prefix
	gateways []netip.Addr
	reserved []dataplane.GuestAddress // by MAC
}

// GuestsFor is what guests of a node may do.
func GuestsFor(f *fabric.Fabric, self fabric.Node) *Guests {
	g := &Guests{
		fabric: slices.SortedFunc(slices.Values(f.Underlay.Loopbacks), netip.Prefix.Compare), local: self.Loopback,
		strict: f.Guard.Strict, broadcast: f.Guard.Broadcast,
	}
	for _, n := range f.Nodes {
		if n.Name != self.Name {
			g.vteps = append(g.vteps, n.Loopback)
		}
	}
	slices.SortFunc(g.vteps, netip.Addr.Compare)
	for _, s := range f.Segments {
		if !slices.Contains(s.Nodes, self.Name) {
			continue
		}
		own := guestSegment{name: s.Name}
		for _, p := range []netip.Prefix{s.Prefix, s.Prefix6} {
			if p.IsValid() {
				own.prefixes = append(own.prefixes, p)
			}
		}
		if s.Gateway != nil {
			for _, a := range []netip.Addr{s.Gateway.Address, s.Gateway.Address6} {
				if a.IsValid() {
					own.gateways = append(own.gateways, a)
				}
			}
		}
		own.reserved = reservedIn(s)
		g.segments = append(g.segments, own)
	}
	return g
}

// Station is a guest as it is known: here, if it has a port, or elsewhere.
type Station struct {
	MAC  dataplane.MAC
	IPs  []netip.Addr
	Port string // empty: at another node
	// Settled tells that it has been behind its port for a while. What turns up
	// here and there, as in a loop, has no place that others could be kept from.
	Settled bool
	// Silent tells that one that is here was not heard for so long that the
	// bridge forgot it: its addresses are free for others.
	Silent bool
	// Held tells that its port is known by the word of who has plugged it in
	// there: it has settled as soon as it is there, and stays when it is silent.
	Held bool
	// Given are addresses that are its own by such a word, silent or not.
	Given []netip.Addr
}

// Here is what is known of a node.
type Here struct {
	Segments []dataplane.Segment
	Links    map[string]dataplane.Link
	Ports    []string             // of the fabric
	Stations map[string][]Station // by segment
	// Leases are what guests were given, by segment, and nil while nothing is
	// known of them. Only Strict asks for them.
	Leases map[string][]dataplane.GuestAddress
}

// Rules is what the kernel is to keep guests from, and how many addresses and
// MACs of guests it is not told of because there are too many.
func (g *Guests) Rules(h Here) (rules dataplane.Guard, untold int) {
	strict := g.strict && h.Leases != nil
	rules = dataplane.Guard{Strict: strict, Broadcast: g.broadcast, Fabric: g.fabric, Local: g.local, VTEPs: g.vteps, Ports: slices.Sorted(slices.Values(h.Ports))}
	devices, bound := make(map[string]bool), make(map[string]bool)
	for _, s := range h.Segments {
		if bridge, ok := h.Links[s.Bridge]; ok {
			rules.Bridges = append(rules.Bridges, guarded(s.Bridge, bridge))
		}
		devices[s.VXLAN], bound[s.Bridge] = true, strict && g.bound(s.Name)
		if a := s.Gateway.LinkLocal; a.IsValid() {
			rules.Gateways = append(rules.Gateways, a.Addr())
		}
	}
	for name, link := range h.Links {
		strictly, ofSegment := bound[link.Master]
		if ofSegment && !devices[name] {
			rules.GuestPorts = append(rules.GuestPorts, guarded(name, link))
			if strictly {
				rules.BoundPorts = append(rules.BoundPorts, name)
			}
		}
	}
	slices.SortFunc(rules.Bridges, byName)
	slices.SortFunc(rules.GuestPorts, byName)
	slices.Sort(rules.BoundPorts)
	for _, s := range g.segments {
		rules.Gateways = append(rules.Gateways, s.gateways...)
		for _, station := range h.Stations[s.name] {
			s.bind(&rules, station, strict)
		}
		if strict {
			s.grant(&rules, h.Stations[s.name], h.Leases[s.name])
		}
	}
	slices.SortFunc(rules.Gateways, netip.Addr.Compare)
	slices.SortFunc(rules.Holders, func(a, b dataplane.GuestAddress) int {
		return cmp.Or(a.IP.Compare(b.IP), bytes.Compare(a.MAC[:], b.MAC[:]))
	})
	rules.Holders = slices.Compact(rules.Holders)
	slices.SortFunc(rules.Places, func(a, b dataplane.GuestPlace) int {
		return cmp.Or(bytes.Compare(a.MAC[:], b.MAC[:]), strings.Compare(a.Port, b.Port))
	})
	untold = max(0, len(rules.Holders)-maxHolders) + max(0, len(rules.Places)-maxPlaces)
	rules.Holders = rules.Holders[:min(len(rules.Holders), maxHolders)]
	rules.Places = rules.Places[:min(len(rules.Places), maxPlaces)]
	return rules, untold
}

func guarded(name string, l dataplane.Link) dataplane.GuardedDevice {
	return dataplane.GuardedDevice{Name: name, Index: l.Index}
}

func byName(a, b dataplane.GuardedDevice) int { return strings.Compare(a.Name, b.Name) }

// bind notes what belongs to a station. Only addresses of the segment's own
// prefixes are one guest's: those of others may be somebody else's elsewhere.
func (s guestSegment) bind(rules *dataplane.Guard, station Station, strict bool) {
	if station.Held || station.Settled && !station.Silent {
		rules.Places = append(rules.Places, dataplane.GuestPlace{Port: station.Port, MAC: station.MAC})
	}
	own := station.Given
	if !strict && !station.Silent {
		own = slices.Concat(own, station.IPs)
	}
	for _, ip := range own {
		if s.guards(ip) {
			rules.Holders = append(rules.Holders, dataplane.GuestAddress{MAC: station.MAC, IP: ip})
		}
	}
}

func (s guestSegment) guards(ip netip.Addr) bool {
	return slices.ContainsFunc(s.prefixes, func(p netip.Prefix) bool { return p.Contains(ip) }) && !slices.Contains(s.gateways, ip)
}

// MayClaim tells whether a guest of a segment that says to have an address may
// be believed. holder is the station that has it, if any does; leases, asked by
// Strict alone, are those of the segment, nil while nothing is known of them.
func (g *Guests) MayClaim(segment string, a dataplane.LocalAddress, holder *Station, leases []dataplane.GuestAddress) bool {
	i := slices.IndexFunc(g.segments, func(s guestSegment) bool { return s.name == segment })
	if i < 0 {
		return true
	}
	s := g.segments[i]
	if g.strict && len(s.prefixes) > 0 && !isLinkLocal6(a.IP) && !s.mayHave(dataplane.GuestAddress{MAC: a.MAC, IP: a.IP}, leases) {
		return false
	}
	switch {
	case slices.Contains(s.gateways, a.IP), slices.ContainsFunc(g.fabric, func(p netip.Prefix) bool { return p.Contains(a.IP) }):
		return false
	case holder == nil || holder.MAC == a.MAC || holder.Silent || !s.guards(a.IP):
		return true
	}
	return holder.Port != "" && holder.Port == a.Port // who is behind one port settles that there
}
