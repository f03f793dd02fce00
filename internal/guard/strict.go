package guard

import (
	"net/netip"
	"slices"

	"frond/internal/dataplane"
	"frond/internal/fabric"
)

// Strict tells that guests speak only from addresses that they were given.
func (g *Guests) Strict() bool { return g.strict }

// bound tells that guests of a segment speak only from addresses that they were
// given. Where it has no prefix, none is given: whatever is spoken there, by
// guests among themselves, is not the fabric's.
func (g *Guests) bound(segment string) bool {
	return slices.ContainsFunc(g.segments, func(s guestSegment) bool { return s.name == segment && len(s.prefixes) > 0 })
}

func isLinkLocal6(ip netip.Addr) bool { return ip.Is6() && ip.IsLinkLocalUnicast() }

// reservedIn are the addresses that a segment's document reserves for MACs. Who
// is known by another identifier has his with his lease.
func reservedIn(s fabric.Segment) []dataplane.GuestAddress {
	var all []fabric.Reservation
	if s.DHCP != nil {
		all = s.DHCP.Reservations
	}
	if s.DHCP6 != nil {
		all = slices.Concat(all, s.DHCP6.Reservations)
	}
	var reserved []dataplane.GuestAddress
	for _, r := range all {
		if mac, err := dataplane.ParseMAC(r.MAC); err == nil {
			reserved = append(reserved, dataplane.GuestAddress{MAC: mac, IP: r.Address})
		}
	}
	return reserved
}

// grant notes the addresses that guests may have, whether they have spoken or not.
func (s guestSegment) grant(rules *dataplane.Guard, stations []Station, leases []dataplane.GuestAddress) {
	for _, a := range slices.Concat(s.reserved, leases) {
		if s.guards(a.IP) {
			rules.Holders = append(rules.Holders, a)
		}
	}
	for _, station := range stations {
		if ip, ok := s.selfMade(station.MAC); ok {
			rules.Holders = append(rules.Holders, dataplane.GuestAddress{MAC: station.MAC, IP: ip})
		}
	}
}

// mayHave tells whether an address is a guest's by lease, reservation, or its own
// making. While nothing is known of leases, any may be.
func (s guestSegment) mayHave(a dataplane.GuestAddress, leases []dataplane.GuestAddress) bool {
	if leases == nil || slices.Contains(s.reserved, a) || slices.Contains(leases, a) {
		return true
	}
	ip, ok := s.selfMade(a.MAC)
	return ok && ip == a.IP
}

// selfMade is the IPv6 address that a guest makes of its MAC where it is told
// a /64 (RFC 4862 §5.5.3 and RFC 4291 appendix A). Others that it might make,
// of random numbers, cannot be told from somebody else's.
func (s guestSegment) selfMade(mac dataplane.MAC) (netip.Addr, bool) {
	for _, p := range s.prefixes {
		if p.Addr().Is6() && p.Bits() == 64 {
			a := p.Addr().As16()
			copy(a[8:], []byte{mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]})
			return netip.AddrFrom16(a), true
		}
	}
	return netip.Addr{}, false
}
