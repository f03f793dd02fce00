package advertise

import (
	"math/rand/v2"
	"slices"
	"time"
)

// Times of advertisements (RFC 4861 §6.2.1 and §10).
const (
	maxInterval = 600 * time.Second
	minInterval = 198 * time.Second // 0.33 of it

	initialInterval = 16 * time.Second // MAX_INITIAL_RTR_ADVERT_INTERVAL
	initialCount    = 3                // MAX_INITIAL_RTR_ADVERTISEMENTS
	minDelay        = 3 * time.Second  // MIN_DELAY_BETWEEN_RAS
	answerDelay     = 500 * time.Millisecond

	// maxAnswers may wait to be sent to one guest each; whoever asks then is
	// answered with all. Because each waits a while, this bounds their rate too.
	maxAnswers = 16

	// maxInformed is how often a second questions about information are
	// answered.
	maxInformed = 50

	// retryInterval is after how long sending is tried again.
	retryInterval = time.Second
)

// answer is an advertisement for one guest.
type answer struct {
	target
	at time.Time
}

// schedule decides when to advertise on a link. It does no I/O and knows no
// clock.
type schedule struct {
	told    int       // of the first advertisements, how many were sent
	next    time.Time // the next one that nobody has asked for
	last    time.Time // when all were told
	answers []answer  // in the order of their time

	second   time.Time // that informed counts
	informed int
}

// solicited notes that somebody asks. Answers wait for a random time
// (§6.2.6); those to all also for the one before.
func (s *schedule) solicited(from target, now time.Time) {
	at := now.Add(rand.N(answerDelay))
	if slices.ContainsFunc(s.answers, func(a answer) bool { return a.target == from }) {
		return
	}
	if from.ip.IsValid() && len(s.answers) < maxAnswers {
		s.answers = append(s.answers, answer{from, at})
		slices.SortStableFunc(s.answers, func(a, b answer) int { return a.at.Compare(b.at) })
		return
	}
	s.all(at)
}

// all has all told at a time, or as soon after it as is allowed.
func (s *schedule) all(at time.Time) {
	if soonest := s.last.Add(minDelay); at.Before(soonest) {
		at = soonest
	}
	if at.Before(s.next) {
		s.next = at
	}
}

// at is when something is to be sent.
func (s *schedule) at() time.Time {
	if len(s.answers) > 0 && s.answers[0].at.Before(s.next) {
		return s.answers[0].at
	}
	return s.next
}

// due tells whether all are to be told now, and otherwise whom else.
func (s *schedule) due(now time.Time) (all bool, some []target) {
	if !now.Before(s.next) {
		return true, nil
	}
	for len(s.answers) > 0 && !now.Before(s.answers[0].at) {
		some = append(some, s.answers[0].target)
		s.answers = s.answers[1:]
	}
	return false, some
}

// sent notes that all were told, which answers everybody.
func (s *schedule) sent(now time.Time) {
	s.answers, s.last = nil, now
	s.told = min(s.told+1, initialCount)
	wait := minInterval + rand.N(maxInterval-minInterval)
	if s.told < initialCount {
		wait = min(wait, initialInterval)
	}
	s.next = now.Add(wait)
}

// informs tells whether one more question about information is answered.
func (s *schedule) informs(now time.Time) bool {
	if now.Sub(s.second) >= time.Second {
		s.second, s.informed = now, 0
	}
	s.informed++
	return s.informed <= maxInformed
}

// failed notes that nobody could be told.
func (s *schedule) failed(now time.Time) { s.next = now.Add(retryInterval) }
