package native

import (
	"cmp"
	"slices"
)

// defaultLocalPref is what a route is worth that carries no LOCAL_PREF.
const defaultLocalPref = 100

// path is one way to a destination, as one peer told it.
type path struct {
	peer  *neighbor
	attrs *attributes
	epoch uint32 // the session it came by; stale if the peer has a newer one
	wire  string // of EVPN: the NLRI as it came, of which the key is a part
}

func (p path) stale() bool { return p.epoch != p.peer.epoch || p.peer.session == nil }

// preference is LOCAL_PREF as we see it: a peer about to leave is the last
// choice (RFC 8326 §4).
func (p path) preference() uint32 {
	if p.attrs.hasCommunity(communityGracefulShutdown) {
		return 0
	}
	return p.attrs.localPref
}

// sequence is how late the node that a unicast route comes from got it; EVPN
// weighs its own sequence numbers itself.
func (p path) sequence() uint32 {
	if p.wire != "" {
		return 0
	}
	return p.attrs.sequence
}

// compareQuality orders paths by who got the prefix last, then by the steps of RFC 4271 §9.1.2.2 that make a
// difference to where packets should go; the better path is the smaller.
// Paths that compare equal are used side by side. MED is left out: it only
// compares routes of one neighbouring AS, which is one node here.
func compareQuality(a, b path) int {
	if d := cmp.Compare(b.sequence(), a.sequence()); d != 0 {
		return d
	}
	if d := cmp.Compare(b.preference(), a.preference()); d != 0 {
		return d
	}
	if d := cmp.Compare(a.attrs.pathLength, b.attrs.pathLength); d != 0 {
		return d
	}
	if d := cmp.Compare(a.attrs.origin, b.attrs.origin); d != 0 {
		return d
	}
	return cmp.Compare(rank(a.peer.internal), rank(b.peer.internal))
}

// rank puts external peers before internal ones.
func rank(internal bool) int {
	if internal {
		return 1
	}
	return 0
}

// comparePaths completes compareQuality to a total order, so that every run
// passes on the same path.
func comparePaths(a, b path) int {
	if d := compareQuality(a, b); d != 0 {
		return d
	}
	if d := a.peer.routerID.Compare(b.peer.routerID); d != 0 {
		return d
	}
	return a.peer.addr.Compare(b.peer.addr)
}

// choose sorts paths, best first, and returns how many are equally good.
func choose(paths []path) int {
	if len(paths) > 1 {
		slices.SortFunc(paths, comparePaths)
	}
	n := 0
	for n < len(paths) && compareQuality(paths[0], paths[n]) == 0 {
		n++
	}
	return n
}
