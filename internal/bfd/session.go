package bfd

import "time"

// slowInterval is the least transmit interval while not up (RFC 5880 §6.8.3).
const slowInterval = time.Second

// minGap bounds what a peer can provoke: answers at once, but never two
// packets closer than this.
const minGap = time.Millisecond

// retryInterval is when to send again after an error of the system.
const retryInterval = 100 * time.Millisecond

// A detection time that is noticed this late was not watched meanwhile: the
// process did not run. What arrived since is given starvedGrace to be read.
const (
	starvedLate  = 5 * time.Millisecond
	starvedGrace = 10 * time.Millisecond
)

// session is the state machine of RFC 5880 §6.8: no I/O, no clock of its own.
// Whoever owns it feeds it packets, and calls expire and transmit when
// deadline has come.
type session struct {
	Session
	discriminator uint32

	state      sessionState
	diagnostic diagnostic
	since      time.Time
	answered   bool // the peer sent a valid packet at some time
	everUp     bool
	flaps      uint64

	remote remote

	// Timers as our packets tell them, and as they are in force: during a
	// Poll Sequence these differ (RFC 5880 §6.8.3).
	desiredTx, requiredRx time.Duration
	forceTx, forceRx      time.Duration
	polling               bool // we want to see a Final
	final                 bool // we owe a Final

	pace     time.Duration // interval that sendAt was computed from
	prompt   bool          // sendAt is for a change or an answer, not the periodic packet
	sentAt   time.Time
	sendAt   time.Time // zero: nothing to send
	detectAt time.Time // zero: nothing heard, so nothing to expire
	graced   bool

	jitter func(n int64) int64 // random in [0, n)
}

// remote is what the peer's last packet said.
type remote struct {
	discriminator uint32
	state         sessionState
	diagnostic    diagnostic
	independent   bool
	multiplier    uint8
	desiredTx     time.Duration
	requiredRx    time.Duration
}

// silent is what is assumed of a peer that is not heard (RFC 5880 §6.8.1).
var silent = remote{state: down, requiredRx: time.Microsecond}

// newSession returns a session that is down and sends its first packet at once.
func newSession(ask Session, discriminator uint32, jitter func(int64) int64, now time.Time) *session {
	s := &session{
		Session:       ask,
		discriminator: discriminator,
		state:         down,
		since:         now,
		remote:        silent,
		jitter:        jitter,
	}
	s.retime(now)
	s.sendPromptly(now)
	return s
}

// configure changes the timers of a running session without disturbing it.
func (s *session) configure(ask Session, now time.Time) {
	if s.Session == ask {
		return
	}
	s.Session = ask
	s.retime(now)
	s.sendPromptly(now)
}

// receive takes a packet that belongs to this session (RFC 5880 §6.8.6).
func (s *session) receive(p packet, now time.Time) {
	news := !s.answered || p.mine != s.remote.discriminator
	s.answered = true
	if s.remote.state == adminDown && p.state != adminDown {
		s.everUp = false // what was up then has ended in order
	}
	s.remote = remote{
		discriminator: p.mine,
		state:         p.state,
		diagnostic:    p.diagnostic,
		independent:   p.independent,
		multiplier:    p.multiplier,
		desiredTx:     p.desiredTx,
		requiredRx:    p.requiredRx,
	}
	if s.polling && p.final {
		s.polling = false
		s.forceTx, s.forceRx = s.desiredTx, s.requiredRx
	}
	s.follow(p.state, now)
	if p.poll {
		s.final = true
		s.sendPromptly(now)
	}
	if news {
		s.sendPromptly(now)
	}
	s.detectAt, s.graced = now.Add(s.detectionTime()), false
	s.reschedule(now)
}

// follow moves the state after what the peer says of its own (RFC 5880 §6.2).
func (s *session) follow(peer sessionState, now time.Time) {
	switch {
	case peer == adminDown && s.state != down:
		s.become(down, neighborSignaledDown, now)
	case s.state == down && peer == down:
		s.become(initializing, s.diagnostic, now)
	case s.state == down && peer == initializing,
		s.state == initializing && (peer == initializing || peer == up):
		s.become(up, noDiagnostic, now)
	case s.state == up && peer == down:
		s.become(down, neighborSignaledDown, now)
	}
}

func (s *session) become(state sessionState, why diagnostic, now time.Time) {
	if s.state == up {
		s.flaps++
	}
	s.everUp = s.everUp || state == up
	s.state, s.diagnostic, s.since = state, why, now
	s.retime(now)
	s.sendPromptly(now)
}

// expire notices a detection time that has passed (RFC 5880 §6.8.4).
func (s *session) expire(now time.Time) {
	if s.detectAt.IsZero() || now.Before(s.detectAt) {
		return
	}
	if !s.graced && now.Sub(s.detectAt) > starvedLate {
		s.detectAt, s.graced = now.Add(starvedGrace), true
		return
	}
	s.detectAt, s.graced = time.Time{}, false
	wasAdminDown := s.remote.state == adminDown
	s.remote = silent
	if wasAdminDown {
		s.remote.state = adminDown // its last word, and still no failure
	}
	s.final = false
	if s.state != down {
		s.become(down, detectionTimeExpired, now)
	}
	s.reschedule(now)
}

// retime takes new timers into use: all at once while not up, otherwise by a
// Poll Sequence, in which we already send as fast and still wait as long as
// either the old or the new timers want (RFC 5880 §6.8.3).
func (s *session) retime(now time.Time) {
	tx, rx := s.Interval, s.Interval
	if s.state != up {
		s.desiredTx, s.requiredRx = max(tx, slowInterval), rx
		s.forceTx, s.forceRx = s.desiredTx, s.requiredRx
		s.polling = false
		s.reschedule(now)
		return
	}
	if tx != s.desiredTx || rx != s.requiredRx {
		s.polling = true
	}
	s.desiredTx, s.requiredRx = tx, rx
	s.forceTx, s.forceRx = min(s.forceTx, tx), max(s.forceRx, rx)
	s.reschedule(now)
}

// detectionTime is how long the peer may be silent (RFC 5880 §6.8.4).
func (s *session) detectionTime() time.Duration {
	return time.Duration(s.remote.multiplier) * max(s.forceRx, s.remote.desiredTx)
}

// interval is the time between periodic packets before jitter, 0 for none:
// the peer does not want any (RFC 5880 §6.8.7).
func (s *session) interval() time.Duration {
	if s.remote.requiredRx == 0 {
		return 0
	}
	return max(s.forceTx, s.remote.requiredRx)
}

// jittered shortens an interval to 75–100 %, or 75–90 % where losing one
// packet is already failure (RFC 5880 §6.8.7).
func (s *session) jittered(interval time.Duration) time.Duration {
	spread := interval / 4
	if s.Multiplier == 1 {
		spread = interval * 15 / 100
	}
	return interval*3/4 + time.Duration(s.jitter(int64(spread)+1))
}

// sendPromptly brings the next packet forward: its contents changed, or it is
// an answer (RFC 5880 §6.8.7).
func (s *session) sendPromptly(now time.Time) {
	s.prompt = true
	s.sendAt = now
	if earliest := s.sentAt.Add(minGap); earliest.After(now) {
		s.sendAt = earliest
	}
}

// reschedule honours a changed interval at once, counted from the last packet.
func (s *session) reschedule(now time.Time) {
	interval := s.interval()
	if interval == s.pace || s.prompt {
		return
	}
	s.schedule(s.sentAt)
	if !s.sendAt.IsZero() && s.sendAt.Before(now) {
		s.sendAt = now
	}
}

func (s *session) schedule(from time.Time) {
	s.pace = s.interval()
	s.sendAt = time.Time{}
	if s.pace > 0 {
		s.sendAt = from.Add(s.jittered(s.pace))
	}
}

// transmit returns the packet that is due, if one is.
func (s *session) transmit(now time.Time) (packet, bool) {
	if s.sendAt.IsZero() || now.Before(s.sendAt) {
		return packet{}, false
	}
	p := s.packet()
	if s.final {
		// A packet never carries both bits (RFC 5880 §6.5).
		p.final, p.poll = true, false
		s.final = false
	}
	s.sentAt, s.prompt = now, false
	s.schedule(now)
	return p, true
}

// unsent takes back a packet that could not be sent: the next try is soon,
// because a cable that is not ready yet may be so in a moment.
func (s *session) unsent(now time.Time) {
	s.sendAt = now.Add(retryInterval)
}

func (s *session) packet() packet {
	return packet{
		state:       s.state,
		diagnostic:  s.diagnostic,
		poll:        s.polling,
		independent: true,
		multiplier:  uint8(s.Multiplier),
		mine:        s.discriminator,
		yours:       s.remote.discriminator,
		desiredTx:   s.desiredTx,
		requiredRx:  s.requiredRx,
	}
}

// farewell is the packet that ends the session without harm: the peer must
// not take our silence for a failure (RFC 5880 §6.8.16).
func (s *session) farewell() packet {
	p := s.packet()
	p.state, p.diagnostic, p.poll = adminDown, administrativelyDown, false
	return p
}

// deadline is when expire or transmit has something to do; zero is never.
func (s *session) deadline() time.Time {
	if s.sendAt.IsZero() || (!s.detectAt.IsZero() && s.detectAt.Before(s.sendAt)) {
		return s.detectAt
	}
	return s.sendAt
}

// status is the session as others see it.
func (s *session) status() State {
	st := State{
		Port:              s.Port,
		Peer:              s.Peer,
		State:             s.state.String(),
		Diagnostic:        s.diagnostic.String(),
		Since:             s.since,
		EverUp:            s.everUp,
		Flaps:             s.flaps,
		RemoteIndependent: s.remote.independent,
	}
	switch {
	case !s.answered:
		st.State = "unanswered"
	case s.state == down && s.remote.state == adminDown:
		st.State = "admin-down"
	case s.diagnostic == neighborSignaledDown && s.remote.diagnostic == detectionTimeExpired:
		st.Diagnostic += ": it does not hear us"
	}
	return st
}
