package native

import (
	"encoding/binary"
	"net/netip"
	"slices"

	seam "frond/internal/bgp"
)

// originated is what this node originates.
type originated struct {
	unicast    map[unicastKey]*attributes
	routes     map[netip.Prefix]struct{}
	evpn       map[string]*evpnOrigin          // by key
	handed     []*seam.EVPNRoute               // the same, in the order in which they were handed over
	sources    map[*seam.EVPNRoute]*evpnOrigin // the same
	generation uint64                          // counts the sets that were handed over
	shared     map[attributesKey]*attributes
}

// evpnOrigin is an originated EVPN route.
type evpnOrigin struct {
	route      *seam.EVPNRoute // as it was handed over last
	attrs      *attributes
	generation uint64 // of the last set that held it, as far as that was looked at
	at         int    // where in that
}

// originate makes the node's own routes exactly those.
func (s *Speaker) originate(routes []seam.Route) {
	s.originateUnicast(routes)
	s.originateEVPN(routes)
}

func (s *Speaker) originateUnicast(routes []seam.Route) {
	unicast := make(map[netip.Prefix]struct{})
	for _, r := range routes {
		if r.EVPN == nil {
			prefix := r.Prefix.Masked()
			unicast[prefix] = struct{}{}
			s.unicast.originate(prefix, s.local.attributes(s.desired.ASN, r), "")
		}
	}
	for prefix := range s.local.routes {
		if _, ok := unicast[prefix]; !ok {
			s.unicast.originate(prefix, nil, "")
		}
	}
	s.local.routes = unicast
}

// unicastKey tells the attributes of this node's unicast routes apart.
type unicastKey struct {
	asn      uint32
	prepend  uint8
	sequence uint32
}

// attributes returns those of a unicast route of this node. Its AS path begins
// as if it had been through this AS as many times already as is to be
// prepended (RFC 4271 §5.1.2).
func (o *originated) attributes(asn uint32, r seam.Route) *attributes {
	key := unicastKey{asn, r.Prepend, r.Sequence}
	if r.Prepend == 0 {
		key.asn = 0 // encode puts in our AS, whichever it is
	}
	if a, ok := o.unicast[key]; ok {
		return a
	}
	a := &attributes{localPref: defaultLocalPref, pathLength: int(r.Prepend), sequence: r.Sequence}
	for range r.Prepend {
		a.asPath = append(a.asPath, asn)
		a.segments = prepend(asn, a.segments)
	}
	if r.Sequence != 0 {
		a.extended = encodeExtended([]uint64{mobility<<48 | uint64(r.Sequence)})
	}
	if o.unicast == nil || len(o.unicast) == maxShared {
		o.unicast = make(map[unicastKey]*attributes)
	}
	o.unicast[key] = a
	return a
}

// mobility is type and sub-type of the extended community that a sequence
// number is told in (RFC 7432 §7.7): two octets, flags, one that is reserved,
// and the number.
const mobility = 0x0600

// sequenceOf reads the sequence number from extended communities.
func sequenceOf(communities []byte) uint32 {
	for ; len(communities) >= 8; communities = communities[8:] {
		if binary.BigEndian.Uint16(communities) == mobility {
			return binary.BigEndian.Uint32(communities[4:])
		}
	}
	return 0
}

// originateEVPN is called for every MAC that comes or goes, with all that
// there are: a route that was handed over before is known by its address, and
// those before the first that is another one need not be looked at.
func (s *Speaker) originateEVPN(routes []seam.Route) {
	l := &s.local
	if l.evpn == nil {
		l.evpn, l.sources = make(map[string]*evpnOrigin), make(map[*seam.EVPNRoute]*evpnOrigin)
	}
	handed := make([]*seam.EVPNRoute, 0, len(routes))
	same := 0
	for _, r := range routes {
		if r.EVPN == nil {
			continue
		}
		if at := len(handed); same == at && at < len(l.handed) && l.handed[at] == r.EVPN {
			same++
		}
		handed = append(handed, r.EVPN)
	}
	l.handed = handed
	l.generation++
	if same+s.hold(same, len(handed)) != len(l.evpn) {
		s.hold(0, same)
		s.dropOthers()
	}
	if len(handed) != len(l.evpn) {
		l.handed = nil // one was there twice: places tell nothing
	}
}

// dropOthers takes back the routes that are of an earlier generation.
func (s *Speaker) dropOthers() {
	l := &s.local
	for key, origin := range l.evpn {
		if origin.generation != l.generation {
			delete(l.evpn, key)
			delete(l.sources, origin.route)
			s.evpn.originate(key, nil, "")
		}
	}
}

// hold marks some of the routes that were handed over as those of the present
// generation, and returns how many there are that were not held before these.
func (s *Speaker) hold(from, to int) (more int) {
	l := &s.local
	for i, r := range l.handed[from:to] {
		origin, known := l.sources[r]
		if !known {
			origin = s.originateRoute(r)
		}
		if origin.generation == l.generation {
			continue
		}
		origin.generation = l.generation
		if origin.at >= from {
			origin.at = from + i
			more++
		}
	}
	return more
}

// originateRoute takes in a route that may be new, or an old one anew.
func (s *Speaker) originateRoute(route *seam.EVPNRoute) *evpnOrigin {
	l := &s.local
	key := evpnKey(route.NLRI)
	origin, known := l.evpn[key]
	if !known {
		origin = &evpnOrigin{at: len(l.handed)}
		l.evpn[key] = origin
	}
	if !known || !sameEVPN(*origin.route, *route) {
		origin.attrs = l.share(evpnAttributes(route))
		s.evpn.originate(key, origin.attrs, route.NLRI)
	}
	delete(l.sources, origin.route)
	origin.route = route
	l.sources[route] = origin
	return origin
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
