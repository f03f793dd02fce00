package evpn

import (
	"net/netip"

	"frond/internal/dataplane"
)

// The gateway's MAC and addresses are on every node at once. They are told to
// nobody, and whoever claims them, here or elsewhere, is not heard: that is
// neither a guest nor a move.

// change takes in a segment's new shape.
func (t *Table) change(s *segment, config dataplane.Segment) {
	before := s.config.Gateway
	s.config = config
	if before == config.Gateway {
		return
	}
	t.news.routes = true // of hosts too
	if m, ok := s.macs[config.Gateway.MAC]; ok && m.local != nil {
		t.leave(m)
	}
	for ip, a := range s.addresses {
		if a.local != nil && config.Gateway.Holds(ip) {
			t.release(a.local, ip)
		}
	}
	for _, r := range t.routes {
		if r.route.attributes().VNI == config.VNI {
			t.detach(r)
			t.attach(r)
		}
	}
}

// hostRoute returns the host prefix that an originated route's address is
// announced as to those who are not on the segment.
func (t *Table) hostRoute(key originKey) (netip.Prefix, bool) {
	s, ok := t.segments[key.vni]
	if !ok || key.mac.IsZero() || !key.address.IsValid() {
		return netip.Prefix{}, false
	}
	gateway := s.config.Gateway
	return key.address, gateway.HostRoutes && gateway.Serves(key.address.Addr())
}
