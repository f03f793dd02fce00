package dataplane

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeGuard is a kernel's guard, which may refuse to be changed.
type fakeGuard struct {
	mu      sync.Mutex
	has     Guard
	damaged bool        // by somebody else, where an update does not look
	asked   []time.Time // to be made as desired
	refused error
}

func (f *fakeGuard) SetGuard(g Guard) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, time.Now())
	if f.refused != nil {
		return false, f.refused
	}
	changed := f.damaged || !f.has.Equal(g)
	f.has, f.damaged = g, false
	return changed, nil
}

func (f *fakeGuard) UpdateGuard(from, to Guard) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refused != nil || !f.has.Equal(from) {
		return errors.New("it is not so")
	}
	f.has = to
	return nil
}

func (f *fakeGuard) GuardDrops() ([]GuardDrop, error) { return nil, nil }

// since returns how long after a moment the kernel was asked, and forgets it.
func (f *fakeGuard) since(begin time.Time) (all []time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, at := range f.asked {
		all = append(all, at.Sub(begin))
	}
	f.asked = nil
	return all
}

func (f *fakeGuard) refuse(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refused = err
}

// guards runs a keeper of the guard until the test ends.
func guards(t *testing.T, f *fakeGuard) (*Guarding, chan<- struct{}) {
	t.Helper()
	changes := make(chan struct{}, 1)
	g := NewGuarding(f, changes, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return g, changes
}

// What the kernel has refused is asked for again soon, then ever more seldom,
// and soon again once it was taken.
func TestRefusedGuardIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeGuard{refused: errors.New("no room")}
		g, _ := guards(t, f)
		begin := time.Now()
		wanted := Guard{Bridges: []GuardedDevice{{Name: "br-blue", Index: 1}}}
		g.Set(wanted)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		seconds := func(all ...int) (d []time.Duration) {
			for _, s := range all {
				d = append(d, time.Duration(s)*time.Second)
			}
			return d
		}
		if got, want := f.since(begin), seconds(0, 1, 3, 7, 15, 31, 61, 91); !slices.Equal(got, want) {
			t.Errorf("asked after %v, want %v", got, want)
		}
		if text, since := g.Problem(); text != "no room" || !since.Equal(begin) {
			t.Errorf("the problem is %q since %s", text, since)
		}
		f.refuse(nil)
		time.Sleep(guardInterval)
		synctest.Wait()
		f.mu.Lock()
		taken := f.has.Equal(wanted)
		f.mu.Unlock()
		if text, _ := g.Problem(); text != "" || !taken {
			t.Errorf("taken %t, the problem is %q", taken, text)
		}
		f.since(begin)
		f.refuse(errors.New("no room"))
		begin = time.Now()
		g.Set(Guard{Bridges: []GuardedDevice{{Name: "br-red", Index: 1}}})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got, want := f.since(begin), seconds(0, 1, 3); !slices.Equal(got, want) {
			t.Errorf("refused once more, asked after %v, want %v", got, want)
		}
	})
}

// Changes of what is desired do not put off a look that somebody else's change
// of the rules has made due.
func TestChangedGuardIsLookedAt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeGuard{}
		g, changes := guards(t, f)
		g.Set(Guard{Bridges: []GuardedDevice{{Name: "br-blue", Index: 1}}})
		synctest.Wait()
		f.mu.Lock()
		f.damaged = true
		f.mu.Unlock()
		changes <- struct{}{}
		g.Set(Guard{Bridges: []GuardedDevice{{Name: "br-blue", Index: 1}, {Name: "br-red", Index: 1}}})
		time.Sleep(time.Second)
		synctest.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.damaged || len(f.has.Bridges) != 2 {
			t.Errorf("damaged %t, there is %+v", f.damaged, f.has)
		}
	})
}
