package gateway

import (
	"errors"
	"slices"
	"testing"
	"time"
)

const ms = time.Millisecond

// proved is a gateway that is held by what was sent then.
type proved struct {
	segment string
	sent    time.Duration
}

// TestInstalled has a kernel be told of holdings. With DefaultTiming a lifetime
// of one second can be given for 400 ms after something was sent.
func TestInstalled(t *testing.T) {
	refused, some := errors.New("refused"), &NotAdded{errors.New("one is refused")}
	blue := func(sent time.Duration) []proved { return []proved{{"blue", sent}} }
	both := func(b, r time.Duration) []proved { return []proved{{"blue", b}, {"red", r}} }
	type step struct {
		at     time.Duration
		held   []proved
		due    bool
		answer error // if it is due
		may    []string
		wake   time.Duration // 0: whatever
	}
	var none []proved
	for _, test := range []struct {
		name  string
		steps []step
	}{
		{"is told that there is nothing, once", []step{
			{at: 0, held: none, due: true},
			{at: 100 * ms, held: none},
		}},
		{"is told of what comes and goes", []step{
			{at: 0, held: none, due: true},
			{at: 1 * ms, held: blue(0), due: true, may: []string{"blue"}},
			{at: 2 * ms, held: both(0, 0), due: true, may: []string{"blue", "red"}},
			{at: 3 * ms, held: both(0, 0)[1:], due: true, may: []string{"red"}},
			{at: 4 * ms, held: blue(0), due: true, may: []string{"blue"}},
			{at: 5 * ms, held: none, due: true},
		}},
		{"is told of what goes when nothing can be given a lifetime", []step{
			{at: 0, held: both(0, 0), due: true, may: []string{"blue", "red"}},
			{at: 900 * ms, held: blue(0), due: true, may: []string{"blue"}},
			{at: 901 * ms, held: blue(0), may: []string{"blue"}},
			{at: 950 * ms, held: blue(900 * ms), due: true, may: []string{"blue"}},
		}},
		{"is given longer lifetimes", []step{
			{at: 10 * ms, held: blue(0), due: true, may: []string{"blue"}, wake: 350 * ms},
			{at: 100 * ms, held: blue(0), may: []string{"blue"}, wake: 350 * ms},
			{at: 260 * ms, held: blue(250 * ms), due: true, may: []string{"blue"}, wake: 600 * ms},
		}},
		{"is given the same once more at the last moment", []step{
			{at: 0, held: blue(0), due: true, may: []string{"blue"}},
			{at: 349 * ms, held: blue(0), may: []string{"blue"}, wake: 350 * ms},
			{at: 350 * ms, held: blue(0), due: true, may: []string{"blue"}},
			{at: 351 * ms, held: blue(0), may: []string{"blue"}},
			{at: 401 * ms, held: blue(0), may: []string{"blue"}},
		}},
		{"one that fades does not hold up the others", []step{
			{at: 0, held: both(0, 0), due: true, may: []string{"blue", "red"}},
			{at: 500 * ms, held: both(0, 450*ms), due: true, may: []string{"blue", "red"}, wake: 800 * ms},
			{at: 501 * ms, held: both(0, 450*ms), may: []string{"blue", "red"}},
			{at: 700 * ms, held: both(0, 650*ms), due: true, may: []string{"blue", "red"}, wake: 1000 * ms},
		}},
		{"what it refuses to remove is not gone", []step{
			{at: 0, held: both(0, 0), due: true, may: []string{"blue", "red"}},
			{at: 1 * ms, held: blue(0), due: true, answer: refused, may: []string{"blue", "red"}, wake: 51 * ms},
			{at: 50 * ms, held: blue(0), may: []string{"blue", "red"}, wake: 51 * ms},
			{at: 51 * ms, held: blue(0), due: true, answer: refused, may: []string{"blue", "red"}},
			{at: 101 * ms, held: blue(0), due: true, may: []string{"blue"}},
			{at: 102 * ms, held: blue(0), may: []string{"blue"}},
		}},
		{"what it refuses to add may be there", []step{
			{at: 0, held: none, due: true},
			{at: 1 * ms, held: blue(0), due: true, answer: refused, may: []string{"blue"}},
			{at: 51 * ms, held: none, due: true, answer: refused, may: []string{"blue"}},
			{at: 101 * ms, held: none, due: true},
		}},
		{"where it did not add all, the others are gone", []step{
			{at: 0, held: blue(0), due: true, may: []string{"blue"}},
			{at: 1 * ms, held: both(0, 0)[1:], due: true, answer: some, may: []string{"red"}},
			{at: 50 * ms, held: both(0, 0)[1:], may: []string{"red"}},
			{at: 51 * ms, held: both(0, 0)[1:], due: true, may: []string{"red"}},
			{at: 52 * ms, held: both(0, 0)[1:], may: []string{"red"}},
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var k Installed
			for _, s := range test.steps {
				var list []Holding
				for _, p := range s.held {
					lifetime, before := DefaultTiming.Lifetime(p.sent, s.at)
					list = append(list, Holding{Segment: p.segment, Lifetime: lifetime, Before: before})
				}
				due := k.Due(list, s.at)
				if due != s.due {
					t.Fatalf("after %s it is due: %t", s.at, due)
				}
				if due {
					k.Acknowledge(list, s.answer, s.at)
				}
				for _, segment := range []string{"blue", "red", "green"} {
					want := slices.Contains(s.may, segment)
					if k.May(segment) != want || k.Gone(segment) == want {
						t.Errorf("after %s %s may be there: %t, is gone: %t", s.at, segment, k.May(segment), k.Gone(segment))
					}
				}
				if k.Empty() != (len(s.may) == 0) || due && !errors.Is(k.Failed(), s.answer) {
					t.Errorf("after %s it is empty: %t, failed: %v", s.at, k.Empty(), k.Failed())
				}
				if at := k.Wake(s.at); s.wake != 0 && at != s.wake {
					t.Errorf("after %s it is looked at again at %s, want %s", s.at, at, s.wake)
				}
			}
		})
	}
	t.Run("nothing is gone of which nothing is known", func(t *testing.T) {
		var k Installed
		k.Expect("blue")
		k.Acknowledge(nil, refused, 0)
		if k.Known() || k.Gone("blue") || k.Gone("red") || !k.May("blue") {
			t.Errorf("%+v", k)
		}
		k.Acknowledge(nil, nil, pause)
		if !k.Known() || !k.Gone("blue") || !k.Gone("red") {
			t.Errorf("%+v", k)
		}
	})
}
