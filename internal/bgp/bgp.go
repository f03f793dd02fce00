// Package bgp is the seam between the fabric and whatever speaks BGP-4 on a
// node: peers, routes and events as netip types, and the Speaker interface
// that every engine implements.
package bgp

import (
	"context"
	"net/netip"
	"time"

	"frond/internal/secret"
)

// Speaker is a BGP engine (RFC 4271). Set hands over the whole desired state
// and may be called at any time, also before Run; calling it again with an
// equal value changes nothing. Run returns when ctx ends; what it does to the
// sessions then depends on the last Desired (see Leave). Events must be
// drained; a slow reader costs time, never memory: what it has not taken yet
// is coalesced.
type Speaker interface {
	Run(ctx context.Context) error
	Set(Desired) error
	Events() <-chan Event
	// Applied tells that the unicast paths of the last PathsChanged that had
	// any are in force. Only then are they passed on to peers, so that no packet
	// comes before its route, and only then does the next one with unicast paths
	// come. It may be called from any goroutine.
	Applied()
}

// Desired is the whole of what a speaker should do.
type Desired struct {
	ASN      uint32
	RouterID netip.Addr // IPv4 (RFC 6286)
	Hostname string     // sent in the FQDN capability
	Keys     Keys       // of all sessions
	Peers    []Peer
	Routes   []Route // originated here
	Restart  GracefulRestart
	Filter   Filter // of what peers tell; nil: all is taken in
	// Shutdown marks everything sent with GRACEFUL_SHUTDOWN (RFC 8326), so
	// that peers move traffic away while the routes still work.
	Shutdown bool
	// Leave makes the end of Run final: peers are told to forget this node
	// at once instead of keeping its routes for a restart.
	Leave bool
}

// Keys are TCP-MD5 keys (RFC 2385). A change of them ends all sessions, unless
// both have a key in common: then these go on under the one that they began with.
type Keys struct {
	Current secret.Text // empty: sessions are not signed
	// Previous is used with peers that do not have Current yet; empty: none.
	Previous secret.Text
}

// Peer is one session over one cable. Addr with its zone is its identity.
type Peer struct {
	Addr            netip.Addr // link-local with zone: fe80::1%eth0
	Hold, Keepalive time.Duration
	// AllowInternal accepts a peer of our own AS; otherwise it is refused.
	AllowInternal bool
	// MaxPrefixes bounds what is accepted from this peer in one family; 0
	// means the engine's own bound.
	MaxPrefixes int
}

// GracefulRestart is RFC 4724 from this node's side.
type GracefulRestart struct {
	Time time.Duration // how long peers keep our routes while we are away; whole seconds, at most 4095 s
	// Restarting says that the kernel still forwards with routes of the
	// run before: best paths are held back until every peer in Expect has
	// sent its End-of-RIB or Deferral has passed. Expect may shrink until
	// then: who is gone need not be waited for.
	Restarting bool
	Expect     []netip.Addr
	// Watched says that BFD watches every cable to a node of our kind,
	// independently of agents: then a peer that falls silent while BFD finds
	// nothing is an agent that is away, and its routes are kept like those of
	// one that restarts.
	Watched  bool
	Deferral time.Duration
}

// Family is an address family that frond speaks.
type Family uint8

// The families.
const (
	IPv4 Family = iota // 1/1, over IPv6 next hops (RFC 8950)
	IPv6               // 2/1
	EVPN               // 25/70 (RFC 7432)
	Families
)

func (f Family) String() string {
	return [...]string{"ipv4", "ipv6", "evpn"}[f]
}

// Route is an originated route: a unicast prefix, or an EVPN route with its
// own attributes.
type Route struct {
	Prefix netip.Prefix // unicast
	// Prepend is how many times more the AS path of a unicast route names this
	// node's AS than it must, so that other ways are preferred.
	Prepend uint8
	// Sequence orders the nodes that originate a unicast prefix one after the
	// other: only the way to the one with the highest is taken, whatever else
	// speaks for the others, as with MACs that move (RFC 7432 §15). It travels
	// in the same extended community (§7.7). 0: none, which gives way to any.
	Sequence uint32
	EVPN     *EVPNRoute // set instead of Prefix; not to be changed once it was handed over
}

// EVPNRoute is one EVPN NLRI in wire form (RFC 7432 §7: type, length, value)
// with the attributes that travel with it.
type EVPNRoute struct {
	NLRI                string     // route type, length and value as on the wire
	NextHop             netip.Addr // the VTEP
	ExtendedCommunities []uint64   // RFC 4360, in network order
	PMSI                string     // PMSI tunnel attribute value (RFC 6514); empty: none
}

// State is a session's state (RFC 4271 §8.2.2), told apart only as far as
// operators do.
type State string

// The states of a session.
const (
	Idle        State = "idle"    // not trying: waiting after an error
	Connect     State = "connect" // trying
	OpenSent    State = "open"    // TCP is up, parameters are being agreed
	Established State = "established"
)

// KeyFault is how a peer's signatures differ from what they must be: the kernel
// drops its segments.
type KeyFault string

// What can be wrong with a peer's key; empty is nothing that is known.
const (
	KeyDiffers    KeyFault = "differs"    // it signs with another key
	KeyMissing    KeyFault = "missing"    // it does not sign, and has to
	KeyUnexpected KeyFault = "unexpected" // it signs, and there is no key here
)

// PeerStatus is a session as it is now.
type PeerStatus struct {
	Addr     netip.Addr
	State    State
	Since    time.Time
	Reason   string   // why it is not established, in words
	KeyFault KeyFault // that is why
	ASN      uint32   // what the peer said; kept after the session ended
	RouterID netip.Addr
	Hostname string
	Software string // software version capability
	Families []Family
	Hold     time.Duration
	// Restarting: the session is gone, its routes are kept (RFC 4724 §4.2).
	Restarting bool
	Flaps      uint64 // times it left Established
	Received   [Families]int
	Sent       [Families]int
	Messages   Messages
	Refused    Refusals
}

// Messages counts what a session carried since the peer was configured.
type Messages struct {
	UpdatesIn, UpdatesOut uint64
	Malformed             uint64 // updates treated as withdrawals (RFC 7606)
}

// Event is something that the speaker tells: PeerChanged, PathsChanged or Converged.
type Event interface{ event() }

// PeerChanged tells a session's new state, or with Gone that the peer is no
// longer configured.
type PeerChanged struct {
	Peer PeerStatus
	Gone bool
}

// PathsChanged tells prefixes whose best paths changed. Each entry is the
// whole truth for its prefix, so applying one twice does no harm. One with
// unicast paths is to be answered by Speaker.Applied.
type PathsChanged struct {
	Unicast []Paths
	EVPN    []EVPNPath
}

// Converged is sent once: every expected peer has sent its End-of-RIB or the
// deferral has passed. From then on what is not desired may be removed.
type Converged struct{}

func (PeerChanged) event()  {}
func (PathsChanged) event() {}
func (Converged) event()    {}

// Paths are all equally good ways to a prefix; none means unreachable.
type Paths struct {
	Prefix netip.Prefix
	Local  bool // originated here: no next hops
	Paths  []Path
}

// Path is one way to a prefix.
type Path struct {
	Peer        netip.Addr // the session's address, which is the next hop
	ASPath      []uint32
	Communities []uint32
	Stale       bool // kept through the peer's restart
}

// EVPNPath is the best path of one EVPN route.
type EVPNPath struct {
	Key   string    // tells routes apart; opaque
	Route EVPNRoute // zero if Gone
	Peer  netip.Addr
	Gone  bool
}
