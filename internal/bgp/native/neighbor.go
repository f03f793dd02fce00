package native

import (
	"context"
	"net/netip"
	"time"

	seam "frond/internal/bgp"
)

// neighbor is the speaker's side of one configured peer: its routes, what
// it is owed, and what status says of it. Only the speaker's goroutine
// touches it.
type neighbor struct {
	addr   netip.Addr
	peer   seam.Peer
	index  int // in peerSets; reused after the neighbor is gone
	remove context.CancelCauseFunc
	done   chan struct{} // closed when the machine has ended

	machine  *machine
	session  *session // nil while there is none
	epoch    uint32   // counts sessions; paths of an older one are stale
	internal bool     // of the session there is or was last
	routerID netip.Addr
	ended    string // why the last session ended; empty while there is one

	forget   time.Time           // when stale routes go at the latest; zero: there are none
	awaiting [seam.Families]bool // End-of-RIB is due for these
	queue    queue               // destinations to tell
	idle     bool                // its writer waits for work
	owesEnd  []seam.Family       // End-of-RIB is to be sent once queue is empty

	owesRefresh bool // it is to be asked for everything again
	refused     refused
	status      seam.PeerStatus // but for what is refused, see report
}

// queue lists destinations that a neighbor is to be told of, in the order
// in which they changed.
type queue struct {
	unicast []*entry[netip.Prefix]
	evpn    []*entry[string]
}

func (q *queue) empty() bool { return len(q.unicast) == 0 && len(q.evpn) == 0 }

// ready tells whether a batch may be composed for it now. End-of-RIB waits
// until every path is settled: it tells that there is no more to come.
func (n *neighbor) ready(settled bool) bool {
	return n.session != nil && n.idle && (!n.queue.empty() || n.owesRefresh || settled && len(n.owesEnd) > 0)
}

// wants tells whether a destination with this export is for the neighbor
// (RFC 4271 §9.2, RFC 1997): nothing goes back to where it came from, nor
// to an AS that is in its path already.
func (n *neighbor) wants(e export, f seam.Family) bool {
	if e.attrs == nil || e.from == n || !n.session.has(f) {
		return false
	}
	if e.attrs.passes(n.session.asn) || e.attrs.hasCommunity(communityNoAdvertise) {
		return false
	}
	if n.internal {
		return e.from == nil || !e.from.internal
	}
	return !e.attrs.hasCommunity(communityNoExport) && !e.attrs.hasCommunity(communityNoExportSubconfed)
}

// exceeds tells whether the neighbor sends more prefixes than it may.
func (n *neighbor) exceeds() bool {
	limit := n.peer.MaxPrefixes
	if limit == 0 {
		limit = defaultMaxPrefixes
	}
	for _, count := range n.status.Received {
		if count > limit {
			return true
		}
	}
	return false
}

// defaultMaxPrefixes bounds each family of each peer: 350 MiB of memory at most
// for host routes of one path.
const defaultMaxPrefixes = 1 << 19

// awaits tells whether an End-of-RIB of any family is still due.
func (n *neighbor) awaits() bool {
	for _, due := range n.awaiting {
		if due {
			return true
		}
	}
	return false
}
