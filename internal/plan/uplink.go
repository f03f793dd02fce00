package plan

import (
	"net/netip"
	"slices"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/fabric"
)

// Uplink is a node's way out of the fabric.
type Uplink struct {
	fabric.Uplink
	// Prepend is how much longer the node makes the default routes that it
	// announces, so that exits of a higher preference are nearer.
	Prepend uint8
	// Masquerade is the source NAT on the port; zero where there is none.
	Masquerade dataplane.Masquerade
	// Inside are the prefixes that are the fabric's alone.
	Inside []netip.Prefix
}

// Defaults are the default routes of both families, IPv4 first.
var Defaults = [...]netip.Prefix{
	netip.PrefixFrom(netip.IPv4Unspecified(), 0),
	netip.PrefixFrom(netip.IPv6Unspecified(), 0),
}

// Two exits of neighbouring ranks differ by prependPerRank in the length of
// their AS paths: more than two ways to equally good exits do where every node
// is a few cables from each exit. The longest path is that of maxRank, which
// leaves it room within one segment of 255 (RFC 4271 §4.3).
const (
	prependPerRank = 8
	maxRank        = 28
)

// uplinkOf is the node's uplink; nil if it has none.
func uplinkOf(f *fabric.Fabric, n fabric.Node) *Uplink {
	if n.Uplink == nil {
		return nil
	}
	u := &Uplink{
		Uplink:  *n.Uplink,
		Prepend: prependPerRank * uint8(min(rank(f.Nodes, n.Uplink.Preference), maxRank)),
		Inside:  inside(f),
	}
	if n.Uplink.Masquerade {
		u.Masquerade = dataplane.Masquerade{Port: n.Uplink.Port, Sources: u.Inside}
	}
	return u
}

// rank counts the preferences of exits that are higher than this one.
func rank(nodes []fabric.Node, preference int) int {
	higher := make(map[int]struct{})
	for _, n := range nodes {
		if n.Uplink != nil && n.Uplink.Preference > preference {
			higher[n.Uplink.Preference] = struct{}{}
		}
	}
	return len(higher)
}

// inside are the prefixes that are the fabric's alone: those of loopbacks and
// of all segments. What nodes advertise besides may be known outside.
func inside(f *fabric.Fabric) []netip.Prefix {
	all := slices.Clone(f.Underlay.Loopbacks)
	for _, s := range f.Segments {
		for _, p := range []netip.Prefix{s.Prefix, s.Prefix6} {
			if p.IsValid() {
				all = append(all, p)
			}
		}
	}
	return prefixes(all)
}

// Announce is the default route of a family as the exit announces it while its
// uplink works for that family.
func (u *Uplink) Announce(prefix netip.Prefix) bgp.Route {
	return bgp.Route{Prefix: prefix, Prepend: u.Prepend}
}

// Route is the exit's own way out for a family, by a router behind its uplink.
// From where the node itself speaks is left to the kernel: it is the port's address.
func (u *Uplink) Route(prefix netip.Prefix, router netip.Addr) dataplane.RouteUpdate {
	return dataplane.RouteUpdate{Prefix: prefix, NextHops: []dataplane.NextHop{u.Leg(router)}}
}

// Leg is the way to a router behind the uplink.
func (u *Uplink) Leg(router netip.Addr) dataplane.NextHop {
	return dataplane.NextHop{Port: u.Port, Via: router.WithZone("")}
}

// Desired is what is frond's to configure of the port: leased is what DHCP
// has given, and unsettled tells that it has yet to say something.
func (u *Uplink) Desired(leased netip.Prefix, unsettled bool) dataplane.Uplink {
	d := dataplane.Uplink{Port: u.Port, Unsettled: unsettled}
	for _, a := range []netip.Prefix{u.Address, leased, u.Address6} {
		if a.IsValid() {
			d.Addresses = append(d.Addresses, a)
		}
	}
	return d
}
