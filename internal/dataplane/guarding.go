package dataplane

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// GuardTarget is what the kernel does for the guard.
type GuardTarget interface {
	// SetGuard tells whether anything had to be changed.
	SetGuard(Guard) (bool, error)
	GuardDrops() ([]GuardDrop, error)
}

const (
	// guardInterval is how often the guard is compared with the kernel though
	// nobody has told of a change.
	guardInterval = 30 * time.Second
	// guardPause lies between two comparisons, as many times as one takes and
	// not less than this.
	guardPause = 5 * time.Millisecond
	guardShare = 4
)

// Guarding keeps the kernel's guard as desired.
type Guarding struct {
	target  GuardTarget
	changes <-chan struct{} // somebody has changed rules
	log     *slog.Logger
	wake    chan struct{} // capacity 1

	work      sync.Mutex // held while the kernel is looked at or changed; guards what follows
	withdrawn bool

	mu      sync.Mutex // guards what follows
	desired *Guard
	problem string
	since   time.Time
}

// NewGuarding returns a keeper of the guard that does nothing before Run.
// changes tells that somebody has changed rules.
func NewGuarding(target GuardTarget, changes <-chan struct{}, log *slog.Logger) *Guarding {
	return &Guarding{target: target, changes: changes, log: log, wake: make(chan struct{}, 1)}
}

// Set replaces what is desired.
func (g *Guarding) Set(d Guard) {
	g.mu.Lock()
	same := g.desired != nil && g.desired.Equal(d)
	g.desired = &d
	g.mu.Unlock()
	if same {
		return
	}
	select {
	case g.wake <- struct{}{}:
	default: // awake already
	}
}

// Problem says why the guard is not as desired, and since when; empty: it is.
func (g *Guarding) Problem() (string, time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.problem, g.since
}

// Drops returns what the guard has dropped since its rules were made.
func (g *Guarding) Drops() ([]GuardDrop, error) { return g.target.GuardDrops() }

// Run keeps the guard as desired until ctx ends, and leaves it in place.
// Before the first Set it touches nothing.
func (g *Guarding) Run(ctx context.Context) error {
	changes := g.changes
	timer, pause := time.NewTimer(guardInterval), time.NewTimer(0)
	defer timer.Stop()
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-pause.C:
		}
		timer.Reset(guardInterval)
		select {
		case <-ctx.Done():
			return nil
		case <-g.wake:
		case _, ok := <-changes:
			if !ok {
				changes = nil // the timer is left
			}
		case <-timer.C:
		}
		begin := time.Now()
		g.reconcile()
		pause.Reset(max(guardPause, guardShare*time.Since(begin)))
	}
}

func (g *Guarding) reconcile() {
	g.work.Lock()
	defer g.work.Unlock()
	g.mu.Lock()
	desired := g.desired
	g.mu.Unlock()
	if desired == nil || g.withdrawn {
		return
	}
	changed, err := g.target.SetGuard(*desired)
	if changed {
		g.log.Debug("the guard is set", "guests", len(desired.Holders), "ports", len(desired.GuestPorts), "error", err)
	}
	g.note(err)
}

func (g *Guarding) note(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case err == nil:
		g.problem, g.since = "", time.Time{}
		return
	case g.problem == "":
		g.since = time.Now()
		g.log.Warn("the guard is not as it should be", "error", err)
	}
	g.problem = err.Error()
}

// Withdraw removes the guard. Nothing is set any more afterwards.
func (g *Guarding) Withdraw(context.Context) error {
	g.work.Lock()
	defer g.work.Unlock()
	g.withdrawn = true
	_, err := g.target.SetGuard(Guard{})
	return err
}
