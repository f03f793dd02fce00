package ra

import (
	"testing"
	"time"
)

func TestFirstAdvertisements(t *testing.T) {
	var s schedule
	now := start0
	for i := range initialCount {
		if advertise, solicit := s.due(now); !advertise || !solicit {
			t.Fatalf("round %d: advertise %v, solicit %v", i, advertise, solicit)
		}
		s.sent(now)
		if i < initialCount-1 {
			now = now.Add(initialInterval)
		}
	}
	for range 100 {
		wait := s.at().Sub(now)
		if wait <= Interval*3/4-1 || wait > Interval {
			t.Fatalf("next after %v", wait)
		}
		now = s.at()
		if advertise, solicit := s.due(now); !advertise || solicit {
			t.Fatalf("advertise %v, solicit %v", advertise, solicit)
		}
		s.sent(now)
	}
}

func TestAnswersAreImmediateAndBounded(t *testing.T) {
	s := schedule{initial: initialCount, next: after(time.Hour)}
	sent := 0
	// Somebody asks each millisecond for a second.
	for ms := range 1000 {
		now := after(time.Duration(ms) * time.Millisecond)
		s.owe()
		if advertise, solicit := s.due(now); advertise {
			if solicit {
				t.Fatal("an answer solicits nothing")
			}
			s.sent(now)
			sent++
		}
		if ms == 0 && sent != 1 {
			t.Fatal("the first answer must not wait")
		}
	}
	if most := answerBurst + int(time.Second/answerInterval); sent < answerBurst || sent > most {
		t.Errorf("%d answers in a second, want at most %d", sent, most)
	}
	if !s.next.Equal(after(time.Hour)) {
		t.Error("answers moved the next unsolicited advertisement")
	}
}

func TestFailureIsRetriedSoonButNotForever(t *testing.T) {
	var s schedule
	now := start0
	for i := 1; i <= retryCount; i++ {
		s.owe()
		if gaveUp := s.fail(now); gaveUp != (i == retryCount) {
			t.Fatalf("attempt %d: gave up %v", i, gaveUp)
		}
		if wait := s.at().Sub(now); i < retryCount && wait != retryInterval {
			t.Fatalf("attempt %d: next after %v", i, wait)
		}
		now = s.at()
	}
	if s.fail(now) || s.at().Sub(now) != Interval {
		t.Errorf("after giving up, next after %v, want %v", s.at().Sub(now), Interval)
	}
	s.sent(s.at())
	if s.failed != 0 || s.initial != 1 {
		t.Errorf("after success: %+v", s)
	}
}
