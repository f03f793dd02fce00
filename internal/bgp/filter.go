package bgp

import "net/netip"

// Filter decides which routes of peers are taken in. What it says of a route
// never changes: when other routes are to be taken in, Desired has another
// Filter, and all that was taken in is judged anew. Filters are told apart by
// ==, so one is a pointer. It is called from the speaker's goroutine once per
// route, and must be quick.
type Filter interface {
	Unicast(netip.Prefix, Teller) Refusal
	EVPN(EVPNRoute, Teller) Refusal
}

// Refusal says in few words why a route is refused; empty: it is not. There
// are few of them, for they are counted by their text.
type Refusal string

// Teller is who told a route, and what it said of the way.
type Teller struct {
	ASN      uint32   // of the peer itself
	Internal bool     // the peer is of our own AS
	Path     []uint32 // as told: the peer's AS first, unless it is internal; the origin's last
	Sets     bool     // the path has sets in it: its order is lost (RFC 6472)
}

// Origin is the AS that the route comes from.
func (t Teller) Origin() uint32 {
	if len(t.Path) == 0 {
		return t.ASN
	}
	return t.Path[len(t.Path)-1]
}

// Refused is a route of a peer that the Filter refuses.
type Refused struct {
	Prefix netip.Prefix // of a unicast route
	EVPN   EVPNRoute    // instead of Prefix
	Origin uint32
	Why    Refusal
}

// Refusals are what the Filter refuses of one peer.
type Refusals struct {
	Count uint64 // announcements that were refused since the peer was configured
	// Standing are the routes that are refused now. There may be more when
	// it holds MaxRefused.
	Standing []Refused
}

// MaxRefused bounds what is remembered of the routes that one peer is refused.
const MaxRefused = 256
