package advertise

import (
	"net/netip"
	"testing"
	"time"
)

// run advances a schedule up to a time and returns when all were told and how
// many answers were sent.
func (s *schedule) run(now *time.Time, until time.Time) (all []time.Time, answers int) {
	for !s.at().After(until) {
		if now.Before(s.at()) {
			*now = s.at()
		}
		told, some := s.due(*now)
		answers += len(some)
		if told {
			all = append(all, *now)
			s.sent(*now)
		}
	}
	*now = until
	return all, answers
}

func TestUnsolicited(t *testing.T) {
	start := time.Unix(1_000_000_000, 0)
	now, s := start, schedule{}
	all, _ := s.run(&now, start.Add(24*time.Hour))
	if len(all) < 24*6 || len(all) > 24*19 || !all[0].Equal(start) {
		t.Fatalf("%d within a day, the first at %v", len(all), all[0])
	}
	for i := 1; i < len(all); i++ {
		gap := all[i].Sub(all[i-1])
		if i < initialCount && gap != initialInterval || i >= initialCount && (gap < minInterval || gap > maxInterval) {
			t.Errorf("%v before number %d", gap, i)
		}
	}
}

func guest(n int) target {
	ip := netip.MustParseAddr("fe80::").As16()
	ip[14], ip[15] = byte(n>>8), byte(n)
	return target{[6]byte{2, 0, 0, 0, byte(n >> 8), byte(n)}, netip.AddrFrom16(ip)}
}

func TestAnswers(t *testing.T) {
	start := time.Unix(1_000_000_000, 0)
	for _, test := range []struct {
		name         string
		ask          []target
		after        time.Duration // the last one to all
		all, answers int           // within 4 s
	}{
		{"nobody", nil, time.Minute, 0, 0},
		{"one", []target{guest(1)}, time.Millisecond, 0, 1},
		{"one twice", []target{guest(1), guest(1)}, time.Minute, 0, 1},
		{"two", []target{guest(1), guest(2)}, time.Minute, 0, 2},
		{"without an address", []target{{}}, time.Minute, 1, 0},
		{"without an address, soon", []target{{}}, time.Millisecond, 1, 0},
		{"without an address, twice", []target{{}, {}}, time.Minute, 1, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := schedule{told: initialCount, last: start.Add(-test.after), next: start.Add(time.Hour)}
			for _, from := range test.ask {
				s.solicited(from, start)
			}
			if len(test.ask) > 0 && test.all == 0 && s.at().Sub(start) >= answerDelay {
				t.Errorf("answers after %v", s.at().Sub(start))
			}
			now := start
			all, answers := s.run(&now, start.Add(4*time.Second))
			if len(all) != test.all || answers != test.answers {
				t.Errorf("told all %d times, and %d", len(all), answers)
			}
			for _, at := range all {
				if at.Sub(s.last) < 0 || at.Before(start.Add(minDelay-test.after)) {
					t.Errorf("told all after %v", at.Sub(start)+test.after)
				}
			}
		})
	}
}

// However many ask, what is sent is bounded.
func TestFloodOfSolicitations(t *testing.T) {
	start := time.Unix(1_000_000_000, 0)
	now, s := start, schedule{}
	s.sent(now)
	all, answers := 0, 0
	for i := range 60_000 {
		s.solicited(guest(i), now)
		if len(s.answers) > maxAnswers {
			t.Fatalf("%d wait", len(s.answers))
		}
		a, n := s.run(&now, now.Add(time.Millisecond))
		all, answers = all+len(a), answers+n
	}
	if all > 20 || answers > 60*maxAnswers*8 || all == 0 || answers == 0 {
		t.Errorf("within a minute all were told %d times, single ones %d times", all, answers)
	}
}
