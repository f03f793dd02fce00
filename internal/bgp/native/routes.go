package native

import (
	"net/netip"
	"slices"

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
	for _, prefix := range u.unreach.prefixes {
		if s.unicast.withdraw(prefix, n) {
			n.status.Received[unicastFamily(prefix)]--
		}
	}
	for _, route := range u.unreach.evpn {
		if s.evpn.withdraw(evpnKey(route), n) {
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
// a loop: it replaces, as a withdrawal, what the peer said before.
func (s *Speaker) takeReach(n *neighbor, u *update) {
	loops := u.attributes.passes(s.desired.ASN)
	p := path{peer: n, attrs: u.attributes, epoch: n.epoch}
	for _, prefix := range u.reach.prefixes {
		f := unicastFamily(prefix)
		if loops || !routable(prefix) {
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
		key := evpnKey(route)
		if loops {
			if s.evpn.withdraw(key, n) {
				n.status.Received[seam.EVPN]--
			}
			continue
		}
		p.wire = route
		if s.evpn.announce(key, p) {
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

// originated remembers the attributes of what this node originates, so that
// an unchanged route is not told again.
type originated struct {
	unicast *attributes
	routes  map[netip.Prefix]struct{}
	evpn    map[string]evpnOrigin // by key
	shared  map[attributesKey]*attributes
}

type evpnOrigin struct {
	route seam.EVPNRoute
	attrs *attributes
}

// originate makes the node's own routes exactly those.
func (s *Speaker) originate(routes []seam.Route) {
	if s.local.unicast == nil {
		s.local.unicast = &attributes{localPref: defaultLocalPref}
	}
	unicast := make(map[netip.Prefix]struct{})
	evpn := make(map[string]evpnOrigin)
	for _, r := range routes {
		if r.EVPN == nil {
			unicast[r.Prefix.Masked()] = struct{}{}
			continue
		}
		key := evpnKey(r.EVPN.NLRI)
		origin, ok := s.local.evpn[key]
		if !ok || !sameEVPN(origin.route, *r.EVPN) {
			origin = evpnOrigin{*r.EVPN, s.local.share(evpnAttributes(r.EVPN))}
		}
		evpn[key] = origin
	}
	for prefix := range unicast {
		s.unicast.originate(prefix, s.local.unicast, "")
	}
	for prefix := range s.local.routes {
		if _, ok := unicast[prefix]; !ok {
			s.unicast.originate(prefix, nil, "")
		}
	}
	for key, origin := range evpn {
		s.evpn.originate(key, origin.attrs, origin.route.NLRI)
	}
	for key := range s.local.evpn {
		if _, ok := evpn[key]; !ok {
			s.evpn.originate(key, nil, "")
		}
	}
	s.local.routes, s.local.evpn = unicast, evpn
}

func sameEVPN(a, b seam.EVPNRoute) bool {
	return a.NLRI == b.NLRI && a.NextHop == b.NextHop && a.PMSI == b.PMSI && slices.Equal(a.ExtendedCommunities, b.ExtendedCommunities)
}

// attributesKey is what tells the attributes of this node's EVPN routes apart.
type attributesKey struct {
	nextHop        netip.Addr
	extended, pmsi string
}

// maxShared bounds the attributes that are remembered to be shared.
const maxShared = 4096

// share returns equal attributes that there are already, so that routes that
// have them go into messages together.
func (o *originated) share(a *attributes) *attributes {
	key := attributesKey{a.nextHop, a.extended, a.pmsi}
	if same, ok := o.shared[key]; ok {
		return same
	}
	if o.shared == nil || len(o.shared) == maxShared {
		o.shared = make(map[attributesKey]*attributes)
	}
	o.shared[key] = a
	return a
}

func evpnAttributes(r *seam.EVPNRoute) *attributes {
	a := &attributes{localPref: defaultLocalPref, nextHop: r.NextHop, pmsi: r.PMSI}
	a.extended = encodeExtended(r.ExtendedCommunities)
	return a
}

// unicastChanged takes note of a destination whose paths changed. That it is
// gone, peers hear at once; a way to it only when that is in force here, or
// their packets would come before it (see Applied).
func (s *Speaker) unicastChanged(e *entry[netip.Prefix]) {
	s.pending.prefix(e.key)
	if e.export().attrs == nil {
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
	s.pending.route(e.key)
	if e.tell(e.export()) {
		for _, n := range s.neighbors {
			if n.session != nil && !e.queue.has(n.index) {
				e.queue.add(n.index)
				n.queue.evpn = append(n.queue.evpn, e)
			}
		}
	}
}

// dropPaths forgets a neighbor's paths: all of them, or the stale ones of
// one family.
func (s *Speaker) dropPaths(n *neighbor, stale *seam.Family) {
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
		n.confirmed()
	}
}
