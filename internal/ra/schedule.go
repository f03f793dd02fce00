package ra

import (
	"math/rand/v2"
	"time"
)

// Times of discovery.
const (
	// Interval is the longest time between unsolicited advertisements; the
	// shortest is three quarters of it (RFC 4861 §6.2.1).
	Interval = 10 * time.Second
	// Lifetime is how long a neighbour that says nothing is remembered.
	Lifetime = 3 * Interval

	// A port starts with a few advertisements in quick succession, as
	// MAX_INITIAL_RTR_ADVERTISEMENTS of RFC 4861 §10 asks; they solicit, too.
	initialCount    = 3
	initialInterval = 500 * time.Millisecond

	// Answers are bounded: a few at once, then one each answerInterval.
	// RFC 4861's 3 s spare the hosts of a large link; a cable has two ends.
	answerBurst    = 4
	answerInterval = 100 * time.Millisecond

	// While an address is tentative (RFC 4862 §5.4) or a port comes up,
	// sending fails. It is tried again soon for longer than duplicate
	// address detection takes, and then once each Interval.
	retryInterval = 25 * time.Millisecond
	retryCount    = 200
)

// schedule decides when a port advertises and solicits by itself. It does no
// I/O and knows no clock.
type schedule struct {
	initial  int       // of the first advertisements, how many were sent
	next     time.Time // the next unsolicited advertisement
	owed     bool      // somebody waits for an answer
	credited time.Time // up to when answers are used up; see answerAt
	failed   int       // attempts in a row
}

// due tells whether to advertise now, and whether to solicit with it.
func (s *schedule) due(now time.Time) (advertise, solicit bool) {
	if now.Before(s.at()) {
		return false, false
	}
	return true, s.initial < initialCount
}

// at is when due has something to do.
func (s *schedule) at() time.Time {
	if at := s.answerAt(); s.owed && at.Before(s.next) {
		return at
	}
	return s.next
}

// answerAt is the earliest time for an answer: each advertisement uses up one
// answerInterval, of which answerBurst may be taken in advance.
func (s *schedule) answerAt() time.Time {
	if s.failed > 0 {
		return s.next
	}
	return s.credited.Add(-(answerBurst - 1) * answerInterval)
}

// owe asks for an advertisement as soon as one is allowed.
func (s *schedule) owe() { s.owed = true }

// sent notes an advertisement that left.
func (s *schedule) sent(now time.Time) {
	s.failed = 0
	s.owed = false
	if s.credited.Before(now) {
		s.credited = now
	}
	s.credited = s.credited.Add(answerInterval)
	if now.Before(s.next) {
		return // an answer, which does not stand for one of the first few
	}
	if s.initial < initialCount {
		s.initial++
	}
	s.next = now.Add(initialInterval)
	if s.initial == initialCount {
		s.next = now.Add(Interval - rand.N(Interval/4))
	}
}

// fail notes an advertisement that could not leave. It tells whether the
// quick attempts are now used up.
func (s *schedule) fail(now time.Time) (gaveUp bool) {
	s.failed++
	s.next = now.Add(retryInterval)
	if s.failed >= retryCount {
		s.next = now.Add(Interval)
	}
	return s.failed == retryCount
}
