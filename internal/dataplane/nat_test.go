package dataplane

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakeRules is a kernel's source NAT.
type fakeRules struct {
	mu        sync.Mutex
	has       Masquerade
	sets      int
	refreshes int
	refused   error
}

func (f *fakeRules) SetMasquerade(m Masquerade) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refused == nil {
		f.has = m
		f.sets++
	}
	return f.refused
}

func (f *fakeRules) HasMasquerade(m Masquerade) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.has.Equal(m), nil
}

func (f *fakeRules) RefreshMasquerade(Masquerade) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refused == nil {
		f.refreshes++
	}
	return f.refused
}

func (f *fakeRules) change(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func TestNAT(t *testing.T) {
	left := Masquerade{Port: "up9"}
	wanted := Masquerade{Port: "up0", Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
	f := &fakeRules{has: left}
	changes := make(chan struct{}, 1)
	n := NewNAT(f, changes, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- n.Run(ctx) }()
	eventually := func(what string, ok func() bool) {
		t.Helper()
		for limit := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			var done bool
			f.change(func() { done = ok() })
			if done {
				return
			}
			if time.Now().After(limit) {
				t.Fatalf("never: %s; there is %+v", what, f.has)
			}
		}
	}
	changes <- struct{}{}
	eventually("taken", func() bool { return len(changes) == 0 })
	f.change(func() {
		if f.sets > 0 {
			t.Error("something is set before anything is desired")
		}
	})
	n.Set(wanted)
	eventually("set", func() bool { return f.has.Equal(wanted) && f.refreshes == 1 })
	n.Set(wanted)
	n.Refresh()
	eventually("refreshed", func() bool { return f.refreshes == 2 && f.sets == 1 })
	f.change(func() { f.has = Masquerade{}; f.refused = errors.New("no such table") })
	changes <- struct{}{}
	eventually("a problem", func() bool { text, _ := n.Problem(); return text == "no such table" })
	f.change(func() { f.refused = nil })
	changes <- struct{}{}
	eventually("mended", func() bool { text, _ := n.Problem(); return text == "" && f.has.Equal(wanted) && f.refreshes == 3 })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !f.has.Equal(wanted) {
		t.Error("the end of the agent takes source NAT away")
	}
	if err := n.Withdraw(t.Context()); err != nil || !f.has.Equal(Masquerade{}) {
		t.Errorf("withdrawn: %+v, %v", f.has, err)
	}
	n.Set(wanted)
	_ = n.reconcile()
	if !f.has.Equal(Masquerade{}) {
		t.Error("it is set again after the withdrawal")
	}
}

// What the kernel has refused is asked for again soon.
func TestRefusedNATIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeRules{refused: errors.New("no room")}
		n := NewNAT(f, nil, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = n.Run(ctx) }()
		wanted := Masquerade{Port: "up0", Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
		n.Set(wanted)
		synctest.Wait()
		f.change(func() { f.refused = nil })
		time.Sleep(2 * retryFirst)
		synctest.Wait()
		f.change(func() {
			if text, _ := n.Problem(); text != "" || !f.has.Equal(wanted) {
				t.Errorf("there is %+v, the problem is %q", f.has, text)
			}
		})
	})
}

// That connections may lack source NAT is not forgotten before the kernel has
// looked for them.
func TestRefusedRefreshIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wanted := Masquerade{Port: "up0", Sources: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}
		f := &fakeRules{has: wanted}
		n := NewNAT(f, nil, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go func() { _ = n.Run(ctx) }()
		n.Set(wanted)
		synctest.Wait()
		f.change(func() { f.refused = errors.New("busy") })
		n.Refresh()
		synctest.Wait()
		if text, _ := n.Problem(); text != "busy" {
			t.Errorf("the problem is %q", text)
		}
		f.change(func() { f.refused = nil })
		time.Sleep(2 * retryFirst)
		synctest.Wait()
		f.change(func() {
			if text, _ := n.Problem(); text != "" || f.refreshes != 1 || f.sets != 0 {
				t.Errorf("refreshed %d times and set %d times, the problem is %q", f.refreshes, f.sets, text)
			}
		})
	})
}
