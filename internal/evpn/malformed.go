package evpn

import (
	"fmt"
	"net/netip"
	"time"

	"frond/internal/bgp"
)

// Malformed is a route that cannot be read. It counts as withdrawn (RFC 7606 §2).
type Malformed struct {
	Peer  netip.Addr // the session that it came by
	Type  int        // of the route
	Err   error
	Since time.Time
}

// malformed is what peers have told that cannot be read.
type malformed struct {
	standing map[string]Malformed  // by the speaker's key: told, and not taken back
	counts   map[netip.Addr]uint64 // since the start, by session
	kinds    map[malformedKind]struct{}
	fresh    []Malformed // of a kind that there was none of
}

type malformedKind struct {
	peer netip.Addr
	kind int
}

func newMalformed() malformed {
	return malformed{
		standing: make(map[string]Malformed),
		counts:   make(map[netip.Addr]uint64),
		kinds:    make(map[malformedKind]struct{}),
	}
}

func (l *malformed) note(p bgp.EVPNPath, err error, now time.Time) {
	m := Malformed{Peer: p.Peer, Err: err, Since: now}
	if p.Route.NLRI != "" {
		m.Type = int(p.Route.NLRI[0])
	}
	l.standing[p.Key] = m
	l.counts[m.Peer]++
	kind := malformedKind{m.Peer, m.Type}
	if _, known := l.kinds[kind]; !known {
		l.kinds[kind] = struct{}{}
		l.fresh = append(l.fresh, m)
	}
}

// problems are one for each peer, with the latest of what stands.
func (l *malformed) problems() []Problem {
	counts := make(map[netip.Addr]uint64)
	last := make(map[netip.Addr]Malformed)
	for _, m := range l.standing {
		counts[m.Peer]++
		if !m.Since.Before(last[m.Peer].Since) {
			last[m.Peer] = m
		}
	}
	all := make([]Problem, 0, len(last))
	for peer, m := range last {
		all = append(all, Problem{
			Text:  fmt.Sprintf("%s from %s malformed, and taken as withdrawn; the last: %v", count(counts[peer], "EVPN route"), peer, m.Err),
			Since: m.Since,
		})
	}
	return all
}

// MalformedFrom is how many malformed routes a session has brought.
func (t *Table) MalformedFrom(peer netip.Addr) uint64 { return t.malformed.counts[peer] }

// FirstMalformed returns what has come since it was last called, the first of
// each type from each session: enough to log.
func (t *Table) FirstMalformed() []Malformed {
	fresh := t.malformed.fresh
	t.malformed.fresh = nil
	return fresh
}

// ForgetPeer ends the counting for a session that is no longer configured.
func (t *Table) ForgetPeer(peer netip.Addr) {
	delete(t.malformed.counts, peer)
	for kind := range t.malformed.kinds {
		if kind.peer == peer {
			delete(t.malformed.kinds, kind)
		}
	}
}
