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

// fakeFilter is what a kernel filters of guests' requests.
type fakeFilter struct {
	mu      sync.Mutex
	has     []Segment
	looks   int
	refused error
}

func (f *fakeFilter) SetRequests(segments []Segment) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	if f.refused != nil {
		return false, f.refused
	}
	changed := !slices.Equal(f.has, segments)
	f.has = segments
	return changed, nil
}

func TestRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeFilter{has: []Segment{{Name: "of the run before"}}}
		changes := make(chan struct{}, 1)
		r := NewRequests(f, changes, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = r.Run(ctx)
		}()
		defer func() { cancel(); <-done }()
		looks := func(when string, want int) {
			t.Helper()
			synctest.Wait()
			if f.mu.Lock(); f.looks != want {
				t.Errorf("%s: the kernel is looked at %d times, want %d", when, f.looks, want)
			}
			f.looks = 0
			f.mu.Unlock()
		}
		holds := func(when string, want ...Segment) {
			t.Helper()
			synctest.Wait()
			if f.mu.Lock(); !slices.Equal(f.has, want) {
				t.Errorf("%s: the kernel filters for %+v, want %+v", when, f.has, want)
			}
			f.mu.Unlock()
		}
		changes <- struct{}{}
		looks("before anything is desired", 0)
		r.Set(nil)
		looks("when nobody asks", 1)
		holds("when nobody asks")
		changes <- struct{}{}
		time.Sleep(time.Second)
		looks("when nobody asks and others change rules", 0)

		blue := Segment{Name: "blue", DHCP: true}
		r.Set([]Segment{blue})
		looks("when guests ask", 1)
		holds("when guests ask", blue)
		for range 10 { // somebody changes rules all the time
			select {
			case changes <- struct{}{}:
			default:
			}
			time.Sleep(requestPause / 10)
		}
		looks("while others change rules without end", 2)
		f.mu.Lock()
		f.has, f.refused = nil, errors.New("no nf_tables")
		f.mu.Unlock()
		time.Sleep(requestInterval)
		if text, _ := r.Problem(); text != "no nf_tables" {
			t.Errorf("the problem is %q", text)
		}
		f.mu.Lock()
		f.refused = nil
		f.mu.Unlock()
		time.Sleep(retryLast)
		holds("when the kernel takes rules again", blue)
		if text, _ := r.Problem(); text != "" {
			t.Errorf("the problem is still %q", text)
		}
		if err := r.Withdraw(ctx); err != nil {
			t.Error(err)
		}
		holds("withdrawn")
		r.Set([]Segment{{Name: "green", DHCP: true}})
		holds("asked for after that")
	})
}
