package bfd

import (
	"net/netip"
	"testing"
	"time"
)

var (
	epoch = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	peerA = netip.MustParseAddr("fe80::a")
	peerB = netip.MustParseAddr("fe80::b")
)

const ms = time.Millisecond

func ask(peer netip.Addr) Session {
	return Session{Port: "p0", Peer: peer, Interval: 100 * ms, Multiplier: 3}
}

// latest always draws the longest interval, earliest the shortest.
func latest(n int64) int64 { return n - 1 }
func earliest(int64) int64 { return 0 }

func newTestSession() *session { return newSession(ask(peerA), 7, latest, epoch) }

// heard is a packet of a well-behaved peer.
func heard(state sessionState) packet {
	return packet{
		state: state, multiplier: 3, mine: 9, yours: 7, independent: true,
		desiredTx: 100 * ms, requiredRx: 100 * ms,
	}
}

// in brings a session into a state by the packets that lead there.
func in(t *testing.T, state sessionState) *session {
	t.Helper()
	s := newTestSession()
	switch state {
	case initializing:
		s.receive(heard(down), epoch)
	case up:
		s.receive(heard(initializing), epoch)
	}
	if s.state != state {
		t.Fatalf("state %s, want %s", s.state, state)
	}
	return s
}

// The state machine of RFC 5880 §6.2 and §6.8.6, whole.
func TestSessionFollowsPeer(t *testing.T) {
	tests := []struct {
		state, peer, want sessionState
		diagnostic        diagnostic
		told              string
	}{
		{down, adminDown, down, noDiagnostic, "admin-down"},
		{down, down, initializing, noDiagnostic, "init"},
		{down, initializing, up, noDiagnostic, "up"},
		{down, up, down, noDiagnostic, "down"},
		{initializing, adminDown, down, neighborSignaledDown, "admin-down"},
		{initializing, down, initializing, noDiagnostic, "init"},
		{initializing, initializing, up, noDiagnostic, "up"},
		{initializing, up, up, noDiagnostic, "up"},
		{up, adminDown, down, neighborSignaledDown, "admin-down"},
		{up, down, down, neighborSignaledDown, "down"},
		{up, initializing, up, noDiagnostic, "up"},
		{up, up, up, noDiagnostic, "up"},
	}
	for _, test := range tests {
		t.Run(test.state.String()+" hears "+test.peer.String(), func(t *testing.T) {
			s := in(t, test.state)
			s.transmit(epoch)
			s.receive(heard(test.peer), epoch.Add(10*ms))
			if s.state != test.want || s.diagnostic != test.diagnostic || s.status().State != test.told {
				t.Errorf("state %s, diagnostic %q, told %q; want %s, %q, %q",
					s.state, s.diagnostic, s.status().State, test.want, test.diagnostic, test.told)
			}
			if changed := test.want != test.state; changed != s.prompt && test.state != down {
				t.Errorf("change %t but prompt packet %t", changed, s.prompt)
			}
		})
	}
}

func TestSessionExpires(t *testing.T) {
	tests := []struct {
		state      sessionState
		want       string
		diagnostic string
		flaps      uint64
	}{
		{initializing, "down", "control detection time expired", 0},
		{up, "down", "control detection time expired", 1},
	}
	for _, test := range tests {
		t.Run(test.state.String(), func(t *testing.T) {
			s := in(t, test.state)
			due := epoch.Add(300 * ms)
			if s.expire(due.Add(-1)); s.state != test.state {
				t.Fatal("expired too early")
			}
			s.expire(due)
			got := s.status()
			if got.State != test.want || got.Diagnostic != test.diagnostic || got.Flaps != test.flaps {
				t.Errorf("got %+v, want %s %q, %d flaps", got, test.want, test.diagnostic, test.flaps)
			}
			p, sent := s.transmit(due.Add(minGap))
			if !sent || p.state != down || p.yours != 0 {
				t.Errorf("packet %+v sent %t; want down at once, without the forgotten discriminator", p, sent)
			}
		})
	}
}

func TestSessionNeverAnsweredStaysUnanswered(t *testing.T) {
	s := newTestSession()
	sent := 0
	for now := epoch; now.Before(epoch.Add(time.Minute)); now = now.Add(10 * ms) {
		s.expire(now)
		if _, ok := s.transmit(now); ok {
			sent++
		}
	}
	if st := s.status(); st.State != "unanswered" || st.EverUp {
		t.Errorf("got %+v", st)
	}
	if sent != 60 {
		t.Errorf("sent %d packets in a minute, want one a second while not up", sent)
	}
}

func TestSessionKeepsAdminDownOfSilentPeer(t *testing.T) {
	s := in(t, up)
	s.receive(heard(adminDown), epoch.Add(ms))
	s.expire(epoch.Add(301 * ms))
	if st := s.status(); st.State != "admin-down" || !st.EverUp {
		t.Errorf("got %+v, want admin-down: no failure", st)
	}
	s.receive(heard(down), epoch.Add(time.Second))
	if st := s.status(); st.State != "init" || st.EverUp {
		t.Errorf("got %+v, want the session to start again, which is no failure", st)
	}
}

func TestSessionTellsRestartedPeer(t *testing.T) {
	s := in(t, up)
	s.transmit(epoch)
	restarted := heard(down)
	restarted.mine, restarted.yours = 99, 0
	s.receive(restarted, epoch.Add(50*ms))
	if st := s.status(); st.State != "down" || !st.EverUp || st.Flaps != 1 {
		t.Fatalf("got %+v, want down at once", st)
	}
	if p, sent := s.transmit(epoch.Add(50 * ms)); !sent || p.yours != 99 || p.state != down {
		t.Errorf("packet %+v sent %t, want an answer to the new discriminator at once", p, sent)
	}
}

func TestSessionSaysWhenPeerIsDeaf(t *testing.T) {
	s := in(t, up)
	p := heard(down)
	p.diagnostic = detectionTimeExpired
	s.receive(p, epoch.Add(ms))
	if got, want := s.status().Diagnostic, "neighbor signaled session down: it does not hear us"; got != want {
		t.Errorf("diagnostic %q, want %q", got, want)
	}
}

// A process that did not run finds packets in its sockets, not proof of silence.
func TestSessionGivesStarvedProcessTime(t *testing.T) {
	s := in(t, up)
	woken := epoch.Add(2 * time.Second)
	s.expire(woken)
	if s.state != up {
		t.Fatal("down before what waits in the socket was read")
	}
	s.receive(heard(up), woken.Add(ms))
	if s.expire(woken.Add(starvedGrace)); s.state != up {
		t.Fatal("down although the peer was heard")
	}

	s.expire(woken.Add(4 * time.Second))
	s.expire(woken.Add(4*time.Second + starvedGrace))
	if s.state != down {
		t.Fatal("the time given has no end")
	}
}

func TestSessionTimers(t *testing.T) {
	tests := map[string]struct {
		multiplier            uint8
		desiredTx, requiredRx time.Duration // the peer's
		detection, interval   time.Duration
	}{
		"same on both sides": {3, 100 * ms, 100 * ms, 300 * ms, 100 * ms},
		"slower peer":        {5, 300 * ms, 300 * ms, 1500 * ms, 300 * ms},
		"faster peer":        {3, 10 * ms, 10 * ms, 300 * ms, 100 * ms},
		"asymmetric":         {3, 10 * ms, 400 * ms, 300 * ms, 400 * ms},
		"wants none":         {3, 100 * ms, 0, 300 * ms, 0},
		"sends as it likes":  {1, 0, 100 * ms, 100 * ms, 100 * ms},
		"absurd": {
			255, 0xffffffff * time.Microsecond, 0xffffffff * time.Microsecond,
			255 * 0xffffffff * time.Microsecond, 0xffffffff * time.Microsecond,
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			s := in(t, up)
			p := heard(up)
			p.multiplier, p.desiredTx, p.requiredRx, p.final = test.multiplier, test.desiredTx, test.requiredRx, true
			s.receive(p, epoch)
			s.transmit(epoch)
			if got := s.detectAt.Sub(epoch); got != test.detection {
				t.Errorf("detection time %s, want %s", got, test.detection)
			}
			next := s.sendAt.Sub(epoch)
			if s.sendAt.IsZero() {
				next = 0
			}
			if next != test.interval {
				t.Errorf("next packet after %s, want %s", next, test.interval)
			}
		})
	}
}

func TestSessionJitter(t *testing.T) {
	tests := []struct {
		multiplier  int
		jitter      func(int64) int64
		wantPercent int
	}{
		{3, earliest, 75},
		{3, latest, 100},
		{1, earliest, 75},
		{1, latest, 90},
	}
	for _, test := range tests {
		s := newTestSession()
		s.Multiplier, s.jitter = test.multiplier, test.jitter
		if got := s.jittered(100 * ms); got != time.Duration(test.wantPercent)*ms {
			t.Errorf("multiplier %d: %s, want %d %% of 100 ms", test.multiplier, got, test.wantPercent)
		}
	}
}

// RFC 5880 §6.8.3: going up brings shorter timers into force, by a Poll Sequence.
func TestSessionPollsWhenUp(t *testing.T) {
	s := newTestSession()
	p, _ := s.transmit(epoch)
	if p.poll || p.desiredTx != slowInterval || p.requiredRx != 100*ms {
		t.Fatalf("first packet %+v, want one second and no poll", p)
	}
	s.receive(heard(initializing), epoch.Add(10*ms))
	for i := range 3 {
		p, sent := s.transmit(epoch.Add(10*ms + time.Duration(i)*100*ms))
		if !sent || !p.poll || p.desiredTx != 100*ms {
			t.Fatalf("packet %d: %+v sent %t, want a poll at the new rate until it is answered", i, p, sent)
		}
	}
	final := heard(up)
	final.final = true
	s.receive(final, epoch.Add(300*ms))
	if p, _ := s.transmit(epoch.Add(310 * ms)); p.poll {
		t.Errorf("packet %+v polls after the final", p)
	}
}

func TestSessionAnswersPoll(t *testing.T) {
	s := in(t, up)
	s.transmit(epoch) // polls itself
	poll := heard(up)
	poll.poll = true
	s.receive(poll, epoch.Add(20*ms))
	p, sent := s.transmit(epoch.Add(20 * ms))
	if !sent || !p.final || p.poll {
		t.Fatalf("packet %+v sent %t, want final, not poll, at once", p, sent)
	}
	if p, _ := s.transmit(epoch.Add(120 * ms)); p.final || !p.poll {
		t.Errorf("packet %+v, want our own poll to go on", p)
	}
}

func TestSessionReconfigured(t *testing.T) {
	established := func(t *testing.T) *session {
		s := in(t, up)
		final := heard(up)
		final.final = true
		s.receive(final, epoch)
		s.transmit(epoch)
		return s
	}
	slower, faster := ask(peerA), ask(peerA)
	slower.Interval, faster.Interval = 500*ms, 20*ms

	t.Run("slower sends as before until the peer knows", func(t *testing.T) {
		s := established(t)
		s.configure(slower, epoch.Add(ms))
		p, sent := s.transmit(epoch.Add(ms))
		if !sent || !p.poll || p.desiredTx != 500*ms || s.interval() != 100*ms || s.forceRx != 500*ms {
			t.Errorf("packet %+v, interval %s, receive %s", p, s.interval(), s.forceRx)
		}
	})
	t.Run("faster expects no more until the peer knows", func(t *testing.T) {
		s := established(t)
		s.configure(faster, epoch.Add(ms))
		if s.forceTx != 20*ms || s.forceRx != 100*ms || !s.polling {
			t.Errorf("transmit %s, receive %s, polling %t", s.forceTx, s.forceRx, s.polling)
		}
		final := heard(up)
		final.final = true
		s.receive(final, epoch.Add(2*ms))
		if s.forceRx != 20*ms || s.polling {
			t.Errorf("after the final: receive %s, polling %t", s.forceRx, s.polling)
		}
	})
	t.Run("same is nothing", func(t *testing.T) {
		s := established(t)
		before := *s
		s.configure(ask(peerA), epoch.Add(ms))
		if s.prompt || s.sendAt != before.sendAt || s.polling {
			t.Error("sends although nothing changed")
		}
	})
}

// A peer decides how much we hear, not how much we say.
func TestSessionBoundsAnswers(t *testing.T) {
	s := in(t, up)
	sent := 0
	for i := range 10_000 {
		now := epoch.Add(time.Duration(i) * 100 * time.Microsecond)
		p := heard([]sessionState{down, up, initializing, adminDown}[i%4])
		p.poll, p.mine = true, uint32(i+1)
		s.receive(p, now)
		if _, ok := s.transmit(now); ok {
			sent++
		}
	}
	if sent > 1000 {
		t.Errorf("%d packets in a second", sent)
	}
}

// Two sessions with a lossy cable between them, in virtual time.
func TestSessionsMeet(t *testing.T) {
	a := newSession(ask(peerB), 1, latest, epoch)
	b := newSession(ask(peerA), 2, earliest, epoch.Add(500*ms))
	mute := false
	now := epoch
	step := func(d time.Duration) {
		for end := now.Add(d); now.Before(end); now = now.Add(ms) {
			for _, side := range []struct{ from, to *session }{{a, b}, {b, a}} {
				side.from.expire(now)
				if now.Before(epoch.Add(500*ms)) && side.from == b {
					continue // not born yet
				}
				if p, sent := side.from.transmit(now); sent && !mute && !now.Before(epoch.Add(500*ms)) {
					side.to.receive(p, now)
				}
			}
		}
	}
	step(510 * ms)
	if a.state != up || b.state != up {
		t.Fatalf("%s, %s: not up 10 ms after both were there", a.state, b.state)
	}
	step(10 * time.Second)
	if a.flaps+b.flaps != 0 || a.polling || b.polling {
		t.Fatalf("flaps %d, %d; polling %t, %t", a.flaps, b.flaps, a.polling, b.polling)
	}
	mute = true
	step(310 * ms)
	if a.state != down || b.state != down {
		t.Fatalf("%s, %s: not down after the detection time", a.state, b.state)
	}
	mute = false
	step(1100 * ms)
	if a.state != up || b.state != up {
		t.Fatalf("%s, %s: not up again", a.state, b.state)
	}
}
