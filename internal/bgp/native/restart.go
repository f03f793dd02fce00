package native

import (
	"time"

	seam "frond/internal/bgp"
)

// staleTime bounds how long a peer that is back may take to confirm its
// routes by an End-of-RIB (the Selection_Deferral of RFC 4724 §4.1 is less).
const staleTime = 3 * time.Minute

// begin takes note of the restart that the first desired state tells of.
func (s *Speaker) begin(d seam.Desired) {
	s.restarting.Store(d.Restart.Restarting)
	if d.Restart.Restarting {
		s.deferral = time.Now().Add(d.Restart.Deferral)
	}
	s.schedule()
}

// checkConverged ends the restart when nothing more is to be waited for:
// every expected peer has sent its End-of-RIB for every family or restarts
// itself and waits for us (RFC 4724 §4.1), or the deferral has passed.
func (s *Speaker) checkConverged() {
	if s.converged {
		return
	}
	if s.restarting.Load() && time.Now().Before(s.deferral) {
		for _, addr := range s.desired.Restart.Expect {
			n, ok := s.neighbors[addr]
			if !ok || n.session == nil || n.awaits() && !n.session.restarting {
				return
			}
		}
	}
	s.converged = true
	if s.restarting.Swap(false) {
		s.log.Info("restart complete", "peers", len(s.neighbors))
	}
	s.pending.converged = true
	s.schedule()
}

// endOfRIB is a peer's word that it has told everything of a family: what
// it has not confirmed by now is gone (RFC 4724 §4.2).
func (s *Speaker) endOfRIB(n *neighbor, f seam.Family) {
	n.awaiting[f] = false
	if !n.forget.IsZero() {
		s.dropPaths(n, &f)
		if !n.awaits() {
			n.confirmed()
			s.schedule()
		}
	}
	s.pending.peer(n)
	s.checkConverged()
}

// keepForRestart keeps a lost session's routes as stale if the peer asked
// for that (RFC 4724 §4.2); families that it did not name go.
func (s *Speaker) keepForRestart(n *neighbor, a *agreement) bool {
	kept := false
	for f := range families {
		if a.restarts[f] && a.restart > 0 {
			kept = true
			continue
		}
		family := seam.Family(f)
		s.dropPaths(n, &family)
	}
	if !kept {
		return false
	}
	n.forget = time.Now().Add(a.restart)
	n.status.Restarting = true
	s.markStale(n)
	s.schedule()
	return true
}

// resumeAfterRestart is called when a peer whose routes we kept is back:
// families that it no longer speaks or whose forwarding state it lost go at
// once (RFC 4724 §4.2).
func (s *Speaker) resumeAfterRestart(n *neighbor) {
	if n.forget.IsZero() {
		return
	}
	for f := range families {
		family := seam.Family(f)
		if !n.session.has(family) || !n.session.preserved[f] {
			s.dropPaths(n, &family)
		}
	}
	if n.awaits() {
		n.forget = time.Now().Add(staleTime)
	} else {
		n.confirmed()
	}
	s.schedule()
}

// dropStale forgets what a neighbor said in sessions before this one.
func (s *Speaker) dropStale(n *neighbor) {
	if n.forget.IsZero() {
		return
	}
	for f := range families {
		family := seam.Family(f)
		s.dropPaths(n, &family)
	}
	n.confirmed()
}

// confirmed ends the neighbor's restart: no route of it is stale.
func (n *neighbor) confirmed() {
	n.forget = time.Time{}
	n.status.Restarting = false
}

// markStale tells consumers that a neighbor's paths are kept on trust.
func (s *Speaker) markStale(n *neighbor) {
	for key, e := range s.unicast.entries {
		for _, p := range e.paths {
			if p.peer == n {
				s.pending.prefix(key)
			}
		}
	}
}

// expire does what was due at s.deadline.
func (s *Speaker) expire() {
	now := time.Now()
	for _, n := range s.neighbors {
		if n.forget.IsZero() || now.Before(n.forget) {
			continue
		}
		s.log.Warn("peer did not confirm its routes in time, they are forgotten", "peer", n.addr, "name", n.status.Hostname)
		s.dropStale(n) // all of them, while there is no session
		s.pending.peer(n)
	}
	s.checkConverged()
	s.schedule()
}

// schedule sets s.deadline to the next moment at which something is due.
func (s *Speaker) schedule() {
	var next time.Time
	consider := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if !s.converged {
		consider(s.deferral)
	}
	for _, n := range s.neighbors {
		consider(n.forget)
	}
	if next.IsZero() {
		s.deadline.Stop()
		return
	}
	s.deadline.Reset(max(time.Until(next), 0))
}
