package node

import (
	"time"

	"frond/internal/bfd"
	"frond/internal/dataplane"
)

// holdDown is how long a neighbour has no BGP session after BFD lost it,
// unless BFD finds it again sooner, which takes it a second or two on a path
// that is whole. A session that came back before BFD would run unwatched.
const holdDown = 30 * time.Second

// cable is what BFD says of one leg, and what was concluded from it.
//
// A path that BFD saw up and then lost carries nothing: its routes go and its
// BGP session is taken away, for that would linger until the hold timer. After
// holdDown the session is allowed again although BFD is still down, because
// the peer may merely have stopped to speak BFD. Over a dead path BGP cannot
// establish; if it does establish, it proves the path, and BFD counts as
// unanswered until it is up again (RFC 5882 §4.1 lets a session begin without BFD).
type cable struct {
	state  bfd.State
	failed time.Time // when a path that was up was found lost; zero: it is not
	tried  bool      // holdDown has passed since
}

// observe takes a new state.
func (c *cable) observe(s bfd.State, now time.Time) {
	c.state = s
	switch {
	case !s.EverUp, s.State == "up", s.State == "admin-down", s.State == "unanswered":
		c.failed, c.tried = time.Time{}, false
	case c.failed.IsZero():
		c.failed = now
	}
}

// isFailed tells whether the leg must carry nothing now.
func (c *cable) isFailed(now time.Time) bool {
	return !c.failed.IsZero() && now.Before(c.failed.Add(holdDown))
}

// retry is when isFailed will have changed by itself; zero if that is over.
func (c *cable) retry() time.Time {
	if c.failed.IsZero() || c.tried {
		return time.Time{}
	}
	return c.failed.Add(holdDown)
}

// cableChanged takes what BFD says of a leg.
func (l *loop) cableChanged(s bfd.State, now time.Time) {
	l.unsettled.port(s.Port)
	leg := dataplane.NextHop{Port: s.Port, Via: s.Peer}
	c, ok := l.cable[leg]
	if !ok {
		c = new(cable)
		l.cable[leg] = c
	}
	wasFailed := !c.failed.IsZero()
	c.observe(s, now)
	switch isFailed := !c.failed.IsZero(); {
	case isFailed && !wasFailed:
		l.log.Warn("BFD lost the neighbour", "port", s.Port, "address", s.Peer, "state", s.State, "diagnostic", s.Diagnostic)
	case wasFailed && !isFailed:
		l.log.Info("BFD no longer misses the neighbour", "port", s.Port, "address", s.Peer, "state", s.State)
	}
}

// cableFailed tells whether BFD has just lost a leg.
func (l *loop) cableFailed(leg dataplane.NextHop, now time.Time) bool {
	c, ok := l.cable[leg]
	if !ok {
		return false
	}
	failed := c.isFailed(now)
	c.tried = !c.failed.IsZero() && !failed
	return failed
}

// sessions are the BFD sessions to have: one per neighbour, also while it is
// down, for it can never be seen up again otherwise.
func (l *loop) sessions() []bfd.Session {
	sessions := []bfd.Session{}
	if !l.plan.BFD.Enabled {
		return sessions
	}
	for _, leg := range l.legs {
		sessions = append(sessions, bfd.Session{
			Port:       leg.Port,
			Peer:       leg.Via,
			Interval:   l.plan.BFD.Interval,
			Multiplier: l.plan.BFD.Multiplier,
		})
	}
	return sessions
}

// forgetCables drops what BFD said of legs that have no session any more.
func (l *loop) forgetCables() {
	for leg := range l.cable {
		p, ok := l.ports[leg.Port]
		if !ok || p.neighbor != leg.Via || !l.plan.BFD.Enabled {
			delete(l.cable, leg)
		}
	}
}
