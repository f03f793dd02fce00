package lab

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"frond/internal/fabric"
)

// address6 is a guest's IPv6 address, with the number that its IPv4 address
// has in the segment's prefix; zero where the segment has no IPv6 prefix.
func address6(s fabric.Segment, g Guest) netip.Prefix {
	if !s.Prefix6.IsValid() {
		return netip.Prefix{}
	}
	raw, four, first := s.Prefix6.Addr().As16(), g.Address.Addr().As4(), s.Prefix.Addr().As4()
	raw[14] += four[2] - first[2]
	raw[15] += four[3] - first[3]
	return netip.PrefixFrom(netip.AddrFrom16(raw), s.Prefix6.Bits())
}

// routeGuest gives a guest what it needs beyond its IPv4 address: the IPv6 one
// and the segment's gateway. It runs in the guest.
func routeGuest(eth0 netlink.Link, s fabric.Segment, g Guest) error {
	if own := address6(s, g); own.IsValid() {
		if err := addAddress(eth0, own); err != nil {
			return err
		}
	}
	if s.Gateway == nil {
		return nil
	}
	for _, gateway := range []netip.Addr{s.Gateway.Address, s.Gateway.Address6} {
		if !gateway.IsValid() {
			continue
		}
		if err := netlink.RouteReplace(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: gateway.AsSlice()}); err != nil {
			return fmt.Errorf("route by the gateway %s: %w", gateway, err)
		}
	}
	return nil
}

// segment finds a segment of the document.
func (l *Lab) segment(name string) (fabric.Segment, error) {
	f, err := l.Fabric()
	if err != nil {
		return fabric.Segment{}, err
	}
	i := slices.IndexFunc(f.Segments, func(s fabric.Segment) bool { return s.Name == name })
	if i < 0 {
		return fabric.Segment{}, inputf("the document has no segment %q", name)
	}
	return f.Segments[i], nil
}
