package native

import (
	"net"
	"testing"
	"time"
)

// TestRejectedIsNotEstablished has the KEEPALIVE of a connection arrive when
// another has been preferred: it must not become the session, and when nothing
// else is left, the peer is dialled again.
func TestRejectedIsNotEstablished(t *testing.T) {
	m := &machine{
		report:     func(message) {},
		candidates: map[*candidate]struct{}{},
		redial:     time.NewTimer(time.Hour),
	}
	defer m.redial.Stop()
	loser, winner := newCandidate(&net.TCPConn{}, true), newCandidate(&net.TCPConn{}, true)
	m.candidates[loser], m.candidates[winner] = struct{}{}, struct{}{}
	m.resolve(loser)
	m.resolve(winner)
	if !loser.rejected || winner.rejected {
		t.Fatalf("rejected: the older one %t, the newer one %t; want the older alone", loser.rejected, winner.rejected)
	}
	m.advance(t.Context(), progress{candidate: winner, err: errRejected})
	m.advance(t.Context(), progress{candidate: loser, confirmed: true})
	if m.session != nil {
		t.Error("a rejected connection became the session")
	}
	if m.backoff == 0 {
		t.Error("no other attempt is due")
	}
}

// TestIdleRefuses has a peer that sent too many prefixes connect again at once.
func TestIdleRefuses(t *testing.T) {
	m := &machine{
		report:     func(message) {},
		restarting: func() bool { return false },
		ban:        banTime,
		candidates: map[*candidate]struct{}{},
		redial:     time.NewTimer(time.Hour),
	}
	defer m.redial.Stop()
	conn := told(t, false).session.conn
	m.session = newSession(newCandidate(conn, false))
	m.finish(sessionEnd{session: m.session, err: &notification{code: errCease, subcode: ceaseMaxPrefixes}})
	m.accept(t.Context(), conn)
	if len(m.candidates) != 0 {
		t.Error("accepted")
	}
}
