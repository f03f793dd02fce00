package evpn

import (
	"net/netip"

	"frond/internal/dataplane"
)

// The MAC and the addresses of a gateway that is on every node at once are told
// to nobody, and whoever claims them, here or elsewhere, is not heard: that is
// neither a guest nor a move.
//
// An elected one is told by the node that has it, under the MAC of that node's
// bridge, with the number of its term as sequence number: whoever got it last
// is where it is, though one that stands still may go on telling it. Every
// node tells the MAC of its bridge from the beginning, so that frames to it
// find their way from the first one on.
//
// A node that has a gateway, of either kind, also tells the prefixes that it
// leads to, as type 5 with the MAC of the bridge as router's MAC: what comes
// to that MAC in the segment is routed (RFC 9136 §4.4.1).

// SetHeld sets which elected gateways this node has, by VNI, each with the
// number of its term, which grows from holder to holder and is never 0.
func (t *Table) SetHeld(terms map[uint32]uint32) {
	for vni, s := range t.segments {
		if s.held != terms[vni] {
			s.held = terms[vni]
			t.tellGateway(s)
		}
	}
	t.settle()
}

// tellGateway brings what is told of the gateway into line.
func (t *Table) tellGateway(s *segment) {
	for _, p := range s.routed() {
		key := originKey{vni: s.config.VNI, address: p}
		if s.config.Gateway.Elected && s.held == 0 {
			t.retract(key)
		} else {
			t.originate(key, Prefix{Attributes: t.attributes(s), Prefix: p, RouterMAC: s.config.BridgeMAC()})
		}
	}
	if !s.config.Gateway.Elected {
		return
	}
	vni, mac := s.config.VNI, s.config.BridgeMAC()
	t.originate(originKey{vni: vni, mac: mac}, MACIP{Attributes: t.attributes(s), MAC: mac})
	for _, p := range s.config.Gateway.Addresses() {
		ip := p.Addr()
		if s.held == 0 {
			t.retract(addressKey(vni, mac, ip))
		} else {
			t.originate(addressKey(vni, mac, ip), MACIP{Attributes: t.attributes(s), MAC: mac, IP: ip, Sequence: s.held})
		}
		if a, ok := s.addresses[ip]; ok {
			t.touchAddress(a)
		}
	}
}

// untellGateway takes back what is told of the gateway.
func (t *Table) untellGateway(s *segment) {
	for _, p := range s.routed() {
		t.retract(originKey{vni: s.config.VNI, address: p})
	}
	if !s.config.Gateway.Elected {
		return
	}
	vni, mac := s.config.VNI, s.config.BridgeMAC()
	t.retract(originKey{vni: vni, mac: mac})
	for _, p := range s.config.Gateway.Addresses() {
		t.retract(addressKey(vni, mac, p.Addr()))
	}
}

// routed are the prefixes that the segment's gateway leads to.
func (s *segment) routed() []netip.Prefix {
	var prefixes []netip.Prefix
	for _, p := range []netip.Prefix{s.config.Gateway.Address, s.config.Gateway.Address6} {
		if p.IsValid() {
			prefixes = append(prefixes, p.Masked())
		}
	}
	return prefixes
}

// holds tells whether this node has the segment's elected gateway, and the
// address is that one's: nobody else is to be asked for it.
func (s *segment) holds(ip netip.Addr) bool { return s.held != 0 && s.config.Gateway.Holds(ip) }

// hears tells whether an address counts that another node tells: all but those
// of a gateway that is on every node.
func (s *segment) hears(ip netip.Addr) bool {
	return ip.IsValid() && (s.config.Gateway.Elected || !s.config.Gateway.Holds(ip))
}

// change takes in a segment's new shape.
func (t *Table) change(s *segment, config dataplane.Segment) {
	if s.config.Gateway == config.Gateway && s.config.BridgeMAC() == config.BridgeMAC() {
		s.config = config
		return
	}
	t.untellGateway(s)
	s.config = config
	t.tellGateway(s)
	t.news.Routes = true // of hosts too
	delete(s.placed, config.BridgeMAC())
	if m, ok := s.macs[config.BridgeMAC()]; ok && m.local != nil {
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
	if key.mac.IsZero() || !key.address.IsValid() {
		return netip.Prefix{}, false
	}
	s, ok := t.segments[key.vni]
	if !ok {
		return netip.Prefix{}, false
	}
	gateway := s.config.Gateway
	return key.address, gateway.HostRoutes && gateway.Serves(key.address.Addr())
}
