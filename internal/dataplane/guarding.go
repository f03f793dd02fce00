package dataplane

import (
	"context"
	"log/slog"
	"time"
)

// GuardTarget is what the kernel does for the guard.
type GuardTarget interface {
	// SetGuard tells whether anything had to be changed.
	SetGuard(Guard) (bool, error)
	// UpdateGuard changes from one to the other without a look at what there
	// is. It may fail where the kernel does not hold the first.
	UpdateGuard(from, to Guard) error
	GuardDrops() ([]GuardDrop, error)
}

const (
	// guardInterval is how often the guard is compared with the kernel though
	// nobody has told of a change.
	guardInterval = 30 * time.Second
	// Between two comparisons lie so many times what one takes, so that
	// somebody who changes rules all the time does not keep a processor busy.
	guardShare = 10
	// Likewise between two changes of the rules: where guests move without end,
	// as in a loop, others need the processor.
	guardUpdateShare = 4
)

// Guarding keeps the kernel's guard as desired.
type Guarding struct {
	*keeper[Guard]
	target GuardTarget
}

// NewGuarding returns a keeper of the guard that does nothing before Run.
// changes tells that somebody has changed rules.
func NewGuarding(target GuardTarget, changes <-chan struct{}, log *slog.Logger) *Guarding {
	return &Guarding{keeper: newKeeper[Guard](changes, log), target: target}
}

// Drops returns what the guard has dropped since its rules were made.
func (g *Guarding) Drops() ([]GuardDrop, error) { return g.target.GuardDrops() }

// Run keeps the guard as desired until ctx ends, and leaves it in place.
// Before the first Set it touches nothing.
func (g *Guarding) Run(ctx context.Context) error {
	return g.run(ctx, pace{
		interval:    guardInterval,
		afterLook:   func(took time.Duration) time.Duration { return guardShare * took },
		afterUpdate: func(took time.Duration) time.Duration { return guardUpdateShare * took },
		ignored:     func() bool { return false },
	}, g.update, g.compare)
}

// update brings the kernel to what is desired by what it is known to hold.
func (g *Guarding) update() error {
	g.work.Lock()
	defer g.work.Unlock()
	desired := g.wanted()
	if desired == nil || g.withdrawn {
		return nil
	}
	if g.held != nil && g.target.UpdateGuard(*g.held, *desired) == nil {
		g.held = desired
		return nil
	}
	return g.set(desired)
}

// compare has the kernel looked at, and mended.
func (g *Guarding) compare() error {
	g.work.Lock()
	defer g.work.Unlock()
	desired := g.wanted()
	if desired == nil || g.withdrawn {
		return nil
	}
	return g.set(desired)
}

func (g *Guarding) set(desired *Guard) error {
	return g.keeper.set(desired, g.target.SetGuard,
		"the guard was changed by somebody else, and is as it should be again", "the guard is not as it should be")
}

// Withdraw removes the guard. Nothing is set any more afterwards.
func (g *Guarding) Withdraw(context.Context) error {
	g.work.Lock()
	defer g.work.Unlock()
	g.withdrawn = true
	_, err := g.target.SetGuard(Guard{})
	return err
}
