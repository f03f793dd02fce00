package advertise

import (
	"net/netip"
	"slices"
	"time"

	"frond/internal/dataplane"
)

// action is an advertisement to be sent: by one port, or by all without a name.
type action struct {
	segment Segment
	former  []netip.Prefix
	port    string
	last    bool // the router is none any more
}

// maxFormer bounds the prefixes that are told to be a segment's no more.
const maxFormer = 4

// schedule says when to advertise. It has no clock and no effects.
type schedule struct {
	turns    map[uint32]*turn // by VNI
	answered map[dataplane.LocalPort]time.Time
	between  func(least, most time.Duration) time.Duration // random
}

// turn is when a segment is advertised on next.
type turn struct {
	segment Segment
	former  []netip.Prefix // that it had before
	sent    int
	at      time.Time
}

// set takes the segments as they are now. Who is new or changed is told of at
// once, and who is no more for the last time.
func (s *schedule) set(segments []Segment, now time.Time) []action {
	var actions []action
	wanted := make(map[uint32]bool, len(segments))
	for _, segment := range segments {
		wanted[segment.VNI] = true
		t, known := s.turns[segment.VNI]
		if known && t.segment.equal(segment) {
			continue
		}
		if known && t.segment.Router != segment.Router {
			actions = append(actions, action{segment: t.segment, last: true})
		}
		next := &turn{segment: segment, at: now}
		if known {
			next.former = without(append(t.former, t.segment.Prefix), segment.Prefix)
		}
		s.turns[segment.VNI] = next
	}
	for vni, t := range s.turns {
		if !wanted[vni] {
			actions = append(actions, action{segment: t.segment, last: true})
			delete(s.turns, vni)
		}
	}
	return append(actions, s.due(now)...)
}

// without are the last of some prefixes, but for one.
func without(all []netip.Prefix, p netip.Prefix) []netip.Prefix {
	all = slices.DeleteFunc(slices.Clone(all), func(other netip.Prefix) bool { return other == p })
	return all[max(0, len(all)-maxFormer):]
}

// due returns what is to be sent now.
func (s *schedule) due(now time.Time) []action {
	var actions []action
	for _, t := range s.turns {
		if now.Before(t.at) {
			continue
		}
		actions = append(actions, action{segment: t.segment, former: t.former})
		pause := s.between(shortestPause, longestPause)
		if t.sent++; t.sent < initial {
			pause = min(pause, initialPause)
		}
		if t.segment.Everywhere {
			pause = everywherePause
		}
		t.at = now.Add(pause)
	}
	return actions
}

// next is when something is due; zero: never.
func (s *schedule) next() time.Time {
	var next time.Time
	for _, t := range s.turns {
		if next.IsZero() || t.at.Before(next) {
			next = t.at
		}
	}
	return next
}

// asked takes a frame by which a guest asks, and answers on its port, not too
// often.
func (s *schedule) asked(f dataplane.GuestFrame, now time.Time) []action {
	t, known := s.turns[f.Port.VNI]
	if !known || !isSolicitation(f.Data) || now.Sub(s.answered[f.Port]) < answerPause {
		return nil
	}
	if len(s.answered) >= mostPorts {
		clear(s.answered)
	}
	s.answered[f.Port] = now
	return []action{{segment: t.segment, former: t.former, port: f.Port.Port}}
}
