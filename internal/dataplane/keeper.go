package dataplane

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"
)

// keeper keeps one thing in the kernel as desired that others may change too:
// what is common to NAT and Guarding.
type keeper[T interface{ Equal(other T) bool }] struct {
	changes <-chan struct{} // somebody has changed rules
	log     *slog.Logger
	wake    chan struct{} // capacity 1

	work      sync.Mutex // held while the kernel is looked at or changed; guards what follows
	withdrawn bool
	held      *T // what the kernel holds, as far as is known; nil: it must be looked at

	mu      sync.Mutex // guards what follows
	desired *T
	trouble trouble
}

// pace is how often a keeper does something.
type pace struct {
	// interval is how often the kernel is looked at though nobody has told of a
	// change.
	interval time.Duration
	// afterLook is what lies between two looks, and afterUpdate between two
	// updates, by how long one took: so that somebody who changes rules all the
	// time does not keep a processor busy.
	afterLook, afterUpdate func(took time.Duration) time.Duration
	// ignored tells that it is nobody's business now what others change.
	ignored func() bool
}

func newKeeper[T interface{ Equal(other T) bool }](changes <-chan struct{}, log *slog.Logger) *keeper[T] {
	return &keeper[T]{changes: changes, log: log, wake: make(chan struct{}, 1)}
}

// Set replaces what is desired.
func (k *keeper[T]) Set(desired T) {
	k.mu.Lock()
	same := k.desired != nil && (*k.desired).Equal(desired)
	k.desired = &desired
	k.mu.Unlock()
	if !same {
		k.wakeUp()
	}
}

func (k *keeper[T]) wakeUp() {
	select {
	case k.wake <- struct{}{}:
	default: // awake already
	}
}

// Problem says why the kernel is not as desired, and since when; empty: it is.
func (k *keeper[T]) Problem() (string, time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.trouble.text, k.trouble.since
}

func (k *keeper[T]) wanted() *T {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.desired
}

// note takes what came of an attempt, and tells whether trouble has begun.
func (k *keeper[T]) note(err error) (began bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.trouble.note(err)
}

// set has the kernel hold what is desired, by what tells whether anything had to
// be changed. It says mended where somebody else had changed it, and refused when
// trouble has begun. keeper.work is held.
func (k *keeper[T]) set(desired *T, set func(T) (bool, error), mended, refused string) error {
	before := k.held
	k.held = nil
	changed, err := set(*desired)
	if err == nil {
		k.held = desired
		if changed && before != nil && (*before).Equal(*desired) {
			k.log.Warn(mended)
		}
	}
	if k.note(err) {
		k.log.Warn(refused, "error", err)
	}
	return err
}

// run has the kernel updated when something else is desired, and looked at when
// others have changed it, now and then, and after it has refused something. It
// ends with ctx and leaves things as they are.
func (k *keeper[T]) run(ctx context.Context, p pace, update, look func() error) error {
	due, rested := time.NewTimer(p.interval), time.NewTimer(0)
	defer due.Stop()
	defer rested.Stop()
	changes, wake := k.changes, k.wake
	var refused retry
	var next time.Time // not looked at for a change before
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
			begun := time.Now()
			if again := refused.after(update()); again > 0 {
				due.Reset(again)
			}
			rested.Reset(p.afterUpdate(time.Since(begun)))
			wake = nil // until then
		case <-rested.C:
			wake = k.wake
		case _, ok := <-changes:
			switch {
			case !ok:
				changes = nil // the timer is left
			case !p.ignored():
				due.Reset(time.Until(next))
				changes = nil // until then
			}
		case <-due.C:
			begun := time.Now()
			due.Reset(cmp.Or(refused.after(look()), p.interval))
			next = time.Now().Add(p.afterLook(time.Since(begun)))
			changes = k.changes
		}
	}
}
