package native

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	seam "frond/internal/bgp"
)

// refuses asks the filter for a unicast route of a peer, and notes what it says.
func (s *Speaker) refuses(n *neighbor, prefix netip.Prefix, a *attributes) bool {
	if s.desired.Filter == nil {
		return false
	}
	teller := n.teller(a)
	why := s.desired.Filter.Unicast(prefix, teller)
	return s.note(n, refusedKey{prefix: prefix}, seam.Refused{Prefix: prefix, Origin: teller.Origin(), Why: why})
}

// refusesEVPN does the same for an EVPN route.
func (s *Speaker) refusesEVPN(n *neighbor, r evpnRoute, a *attributes) bool {
	if s.desired.Filter == nil {
		return false
	}
	teller, route := n.teller(a), evpnAsTold(r.wire, a)
	why := s.desired.Filter.EVPN(route, teller)
	return s.note(n, refusedKey{evpn: r.key}, seam.Refused{EVPN: route, Origin: teller.Origin(), Why: why})
}

func (s *Speaker) note(n *neighbor, key refusedKey, route seam.Refused) bool {
	refused := n.refused.note(key, route)
	if refused && n.refused.count == 1 {
		s.log.Warn("a route is refused; further ones of this peer are only counted", "peer", n.addr, "name", n.status.Hostname,
			"prefix", route.Prefix, "evpn", fmt.Sprintf("%x", route.EVPN.NLRI), "origin", route.Origin, "reason", string(route.Why))
	}
	return refused
}

func (n *neighbor) teller(a *attributes) seam.Teller {
	return seam.Teller{ASN: n.status.ASN, Internal: n.internal, Path: a.asPath, Sets: a.pathLength < len(a.asPath)}
}

// judgeAnew asks a new filter for all that was taken in, and has peers of
// whom something was refused before tell everything again (RFC 2918): what is
// refused is not kept.
func (s *Speaker) judgeAnew() {
	for _, n := range s.neighbors {
		again := n.refused.any
		n.refused.forget()
		s.unicast.drop(n, func(prefix netip.Prefix, p path) bool {
			gone := s.refuses(n, prefix, p.attrs)
			if gone {
				n.status.Received[unicastFamily(prefix)]--
			}
			return gone
		})
		s.evpn.drop(n, func(key string, p path) bool {
			gone := s.refusesEVPN(n, evpnRoute{key: key, wire: p.wire}, p.attrs)
			if gone {
				n.status.Received[seam.EVPN]--
			}
			return gone
		})
		switch {
		case !again || n.session == nil:
		case n.session.refreshes:
			n.owesRefresh = true
		default:
			s.log.Warn("the peer cannot tell its routes again (RFC 2918): what was refused before stays away until its next session", "peer", n.addr)
		}
		s.pending.peer(n)
	}
}

// refused is what the filter refuses of a peer.
type refused struct {
	count    uint64
	any      bool // in this session, or in the routes that are kept of the one before
	standing map[refusedKey]seam.Refused
	listed   []seam.Refused // standing, for status; nil: to be made again
}

// refusedKey tells routes of a peer apart.
type refusedKey struct {
	prefix netip.Prefix
	evpn   string // see evpnKey
}

// note takes note of what the filter says of a route, and tells whether it is refused.
func (r *refused) note(key refusedKey, route seam.Refused) bool {
	if route.Why == "" {
		r.remove(key)
		return false
	}
	r.count++
	r.any = true
	if _, ok := r.standing[key]; !ok && len(r.standing) == seam.MaxRefused {
		return true
	}
	if r.standing == nil {
		r.standing = make(map[refusedKey]seam.Refused)
	}
	r.standing[key], r.listed = route, nil
	return true
}

// withdraw takes note of what the peer no longer tells.
func (r *refused) withdraw(routes nlri) {
	if len(r.standing) == 0 {
		return
	}
	for _, prefix := range routes.prefixes {
		r.remove(refusedKey{prefix: prefix})
	}
	for _, route := range routes.evpn {
		r.remove(refusedKey{evpn: route.key})
	}
}

func (r *refused) remove(key refusedKey) {
	if len(r.standing) == 0 {
		return
	}
	if _, ok := r.standing[key]; ok {
		delete(r.standing, key)
		r.listed = nil
	}
}

// forget begins anew, but for the count.
func (r *refused) forget() { *r = refused{count: r.count} }

// report is what status says of the peer.
func (n *neighbor) report() seam.PeerStatus {
	r := &n.refused
	if r.listed == nil && len(r.standing) > 0 {
		r.listed = make([]seam.Refused, 0, len(r.standing))
		for _, route := range r.standing {
			r.listed = append(r.listed, route)
		}
	}
	status := n.status
	status.Refused = seam.Refusals{Count: r.count, Standing: r.listed}
	return status
}

// evpnAsTold is a route as those outside of this package see it.
func evpnAsTold(nlri string, a *attributes) seam.EVPNRoute {
	return seam.EVPNRoute{
		NLRI:                nlri,
		NextHop:             a.nextHop,
		ExtendedCommunities: a.extendedCommunities(),
		PMSI:                a.pmsi,
	}
}

// appendRefreshes asks for everything of all families again (RFC 2918 §3).
func appendRefreshes(b []byte, agreed []seam.Family) []byte {
	for _, f := range agreed {
		start := len(b)
		b = beginMessage(b, typeRouteRefresh)
		b = binary.BigEndian.AppendUint16(b, families[f].Afi())
		b = append(b, 0, families[f].Safi())
		b = endMessage(b, start)
	}
	return b
}
