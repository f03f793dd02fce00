package native

import (
	"net/netip"

	seam "frond/internal/bgp"
)

// received is an UPDATE, or an End-of-RIB, of a session.
type received struct {
	machine *machine
	session *session
	update  *update
}

func (m received) apply(s *Speaker) {
	n, ok := s.current(m.machine, m.session)
	if !ok {
		return
	}
	u := m.update
	if u.endOfRIB {
		s.endOfRIB(n, u.family)
		return
	}
	n.status.Messages.UpdatesIn++
	s.pending.counters(n)
	if u.malformed != nil {
		n.status.Messages.Malformed++
		if n.status.Messages.Malformed == 1 {
			s.log.Warn("malformed routes treated as withdrawn; further ones are only counted", "peer", n.addr, "error", u.malformed)
		}
	}

	n.refused.withdraw(u.unreach)
	for _, prefix := range u.unreach.prefixes {
		if s.unicast.withdraw(prefix, n) {
			n.status.Received[unicastFamily(prefix)]--
		}
	}
	for _, route := range u.unreach.evpn {
		if s.evpn.withdraw(route.key, n) {
			n.status.Received[seam.EVPN]--
		}
	}
	if u.attributes != nil {
		s.takeReach(n, u)
	}
	if n.exceeds() {
		m.session.end(&notification{code: errCease, subcode: ceaseMaxPrefixes, text: "too many prefixes: more than this node accepts from one peer"})
	}
}

// takeReach takes in what an UPDATE announces. A path through our own AS is
// a loop: it replaces, as a withdrawal, what the peer said before, and so does
// what the filter refuses.
func (s *Speaker) takeReach(n *neighbor, u *update) {
	loops := u.attributes.passes(s.desired.ASN)
	p := path{peer: n, attrs: u.attributes, epoch: n.epoch}
	for _, prefix := range u.reach.prefixes {
		f := unicastFamily(prefix)
		if loops || !routable(prefix) || s.refuses(n, prefix, u.attributes) {
			if s.unicast.withdraw(prefix, n) {
				n.status.Received[f]--
			}
			continue
		}
		if s.unicast.announce(prefix, p) {
			n.status.Received[f]++
		}
	}
	for _, route := range u.reach.evpn {
		if loops || s.refusesEVPN(n, route, u.attributes) {
			if s.evpn.withdraw(route.key, n) {
				n.status.Received[seam.EVPN]--
			}
			continue
		}
		p.wire = route.wire
		if s.evpn.announce(route.key, p) {
			n.status.Received[seam.EVPN]++
		}
	}
}

// routable tells whether a prefix may be routed at all: no link-local,
// loopback or multicast destinations (RFC 6890).
func routable(p netip.Prefix) bool {
	a := p.Addr()
	if p.Bits() == 0 {
		return true
	}
	return !a.IsLinkLocalUnicast() && !a.IsLoopback() && !a.IsMulticast()
}

// unicastChanged takes note of a destination whose paths changed. That it is
// gone, or further away, peers hear at once; a better way to it only when that
// is in force here, or their packets would come before it (see Applied).
func (s *Speaker) unicastChanged(e *entry[netip.Prefix]) {
	s.pending.prefix(e.key)
	if x := e.export(); x.attrs == nil || e.told.attrs != nil && x.attrs.pathLength > e.told.attrs.pathLength {
		s.tellUnicast(e)
	}
}

// tellUnicast queues a destination for all peers, if there is news of it.
func (s *Speaker) tellUnicast(e *entry[netip.Prefix]) {
	if e.tell(e.export()) {
		for _, n := range s.neighbors {
			if n.session != nil && !e.queue.has(n.index) {
				e.queue.add(n.index)
				n.queue.unicast = append(n.queue.unicast, e)
			}
		}
	}
}

// evpnChanged queues a destination for all peers. Whether packets arrive
// does not depend on this node, unless it is the one that originates it.
func (s *Speaker) evpnChanged(e *entry[string]) {
	if len(e.paths) > 0 || e.heard {
		e.heard = len(e.paths) > 0
		s.pending.route(e)
	}
	if e.tell(e.export()) {
		for _, n := range s.neighbors {
			if n.session != nil && !e.queue.has(n.index) {
				e.queue.add(n.index)
				n.queue.evpn = append(n.queue.evpn, e)
			}
		}
	}
}

// dropIdentity forgets the way to a neighbor's own loopback, and has peers hear
// that before all else: they then take the neighbor's other routes off this
// node, however many there are (see Behind of dataplane.Route).
func (s *Speaker) dropIdentity(n *neighbor) {
	if !n.routerID.IsValid() {
		return
	}
	loopback := netip.PrefixFrom(n.routerID, n.routerID.BitLen())
	if s.unicast.withdraw(loopback, n) {
		n.status.Received[seam.IPv4]--
		s.feed()
	}
}

// dropPaths forgets a neighbor's paths: all of them, or the stale ones of
// one family.
func (s *Speaker) dropPaths(n *neighbor, stale *seam.Family) {
	if stale == nil {
		s.dropIdentity(n)
	}
	s.unicast.drop(n, func(key netip.Prefix, p path) bool {
		f := unicastFamily(key)
		gone := stale == nil || f == *stale && p.stale()
		if gone {
			n.status.Received[f]--
		}
		return gone
	})
	s.evpn.drop(n, func(_ string, p path) bool {
		gone := stale == nil || *stale == seam.EVPN && p.stale()
		if gone {
			n.status.Received[seam.EVPN]--
		}
		return gone
	})
	if stale == nil {
		n.refused.forget()
		n.confirmed()
	}
}
