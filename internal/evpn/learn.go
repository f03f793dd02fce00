package evpn

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"frond/internal/bgp"
)

// maxRoutesPerStation bounds the routes of one MAC and those of one address,
// so that a peer cannot make each of its updates as dear as all of them. A
// guest has a few addresses, and a few VTEPs claim it while it moves.
const maxRoutesPerStation = 1024

// remote is a route of another node.
type remote struct {
	route    Route
	peer     netip.Addr // the session that it came by
	vtep     *vtep
	claim    claim // of a MACIP route
	since    time.Time
	attached bool // counted in its segment
}

// ip is the address of a MACIP route; zero: none.
func (r *remote) ip() netip.Addr {
	m, _ := r.route.(MACIP)
	return m.IP
}

// Learn takes in what the speaker tells: the best path of each route, or
// that there is none any more. Malformed routes count as withdrawn; types of no
// use are ignored.
func (t *Table) Learn(paths []bgp.EVPNPath) {
	for _, p := range paths {
		t.learn(p)
	}
	t.settle()
}

func (t *Table) learn(p bgp.EVPNPath) {
	before := t.routes[p.Key]
	route := t.accept(p)
	if before != nil && route != nil && before.route == route {
		before.peer = p.Peer
		return
	}
	if before != nil {
		t.detach(before)
		t.forgetVTEP(before)
		delete(t.routes, p.Key)
	}
	if route == nil {
		return
	}
	r := &remote{route: route, peer: p.Peer, since: t.config.Now()}
	if m, ok := route.(MACIP); ok {
		r.claim = claim{sticky: m.Sticky, sequence: m.Sequence, vtep: m.VTEP, mac: m.MAC}
	}
	r.vtep = t.vtep(route.attributes().VTEP)
	r.vtep.routes[r] = struct{}{}
	t.routes[p.Key] = r
	t.attach(r)
}

// accept decodes a path; nil is one that does not count.
func (t *Table) accept(p bgp.EVPNPath) Route {
	delete(t.malformed.standing, p.Key)
	if p.Gone {
		return nil
	}
	route, err := Decode(p.Route)
	if err != nil {
		if !errors.Is(err, errUnused) {
			t.malformed.note(p, err, t.config.Now())
		}
		return nil
	}
	return route
}

// attach counts a route in its segment, if the node takes part in that. Prefix
// routes never count: unicast BGP tells the same, with every way there.
func (t *Table) attach(r *remote) {
	s, ok := t.segments[r.route.attributes().VNI]
	if !ok || t.isOwn(r) {
		return
	}
	switch route := r.route.(type) {
	case Multicast:
		s.floods[r] = struct{}{}
		t.touchFlood(s)
	case MACIP:
		if route.MAC == s.config.BridgeMAC() {
			return
		}
		m := t.station(s, route.MAC)
		if len(m.remotes) >= maxRoutesPerStation {
			t.crowded++
			return
		}
		m.remotes = append(m.remotes, r)
		t.touchMAC(m)
		if s.hears(route.IP) {
			a := t.address(s, route.IP)
			if len(a.remotes) < maxRoutesPerStation {
				a.remotes = append(a.remotes, r)
			}
			t.touchAddress(a)
		}
	case Prefix:
		return
	}
	r.attached = true
}

func (t *Table) detach(r *remote) {
	s, ok := t.segments[r.route.attributes().VNI]
	if !ok || !r.attached {
		return
	}
	r.attached = false
	switch route := r.route.(type) {
	case Multicast:
		delete(s.floods, r)
		t.touchFlood(s)
	case MACIP:
		m := s.macs[route.MAC]
		m.remotes = without(m.remotes, r)
		t.touchMAC(m)
		if a, ok := s.addresses[route.IP]; ok {
			a.remotes = without(a.remotes, r)
			t.touchAddress(a)
		}
	}
}

func without(routes []*remote, r *remote) []*remote {
	if i := slices.Index(routes, r); i >= 0 {
		return slices.Delete(routes, i, i+1)
	}
	return routes
}

// vtep is another node's tunnel endpoint.
type vtep struct {
	addr      netip.Addr
	reachable bool
	routes    map[*remote]struct{} // that lead there
}

func (t *Table) vtep(addr netip.Addr) *vtep {
	v, ok := t.vteps[addr]
	if !ok {
		v = &vtep{addr: addr, reachable: t.reachable == nil || t.reachable(addr), routes: make(map[*remote]struct{})}
		t.vteps[addr] = v
	}
	return v
}

func (t *Table) forgetVTEP(r *remote) {
	delete(r.vtep.routes, r)
	if len(r.vtep.routes) == 0 {
		delete(t.vteps, r.vtep.addr)
	}
}

// SetReachable has every VTEP asked for whether there is a way to it, now and
// when a new one appears; nil means that there always is. It is to be called
// again whenever answers may have changed. What is behind a VTEP that cannot
// be reached does not count: its entries go, long before its routes time out.
func (t *Table) SetReachable(reachable func(netip.Addr) bool) {
	t.reachable = reachable
	for addr, v := range t.vteps {
		now := reachable == nil || reachable(addr)
		if now == v.reachable {
			continue
		}
		v.reachable = now
		for r := range v.routes {
			t.touchRoute(r)
		}
	}
	t.settle()
}

func (t *Table) touchRoute(r *remote) {
	s, ok := t.segments[r.route.attributes().VNI]
	if !ok || !r.attached {
		return
	}
	switch route := r.route.(type) {
	case Multicast:
		t.touchFlood(s)
	case MACIP:
		t.touchMAC(s.macs[route.MAC])
		if a, ok := s.addresses[route.IP]; ok {
			t.touchAddress(a)
		}
	}
}
