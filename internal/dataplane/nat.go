package dataplane

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"
)

// NATTarget is what the kernel does for source NAT.
type NATTarget interface {
	SetMasquerade(Masquerade) error
	HasMasquerade(Masquerade) (bool, error)
	// RefreshMasquerade has the kernel forget the connections that should have
	// source NAT and have none.
	RefreshMasquerade(Masquerade) error
}

const (
	// natInterval is how often source NAT is compared with the kernel though
	// nobody has told of a change.
	natInterval = 30 * time.Second
	// natPause lies between two comparisons, so that somebody who changes
	// rules all the time does not keep a processor busy.
	natPause = 50 * time.Millisecond
)

// NAT keeps the kernel's source NAT as desired.
type NAT struct {
	target  NATTarget
	changes <-chan struct{} // somebody has changed rules
	log     *slog.Logger
	wake    chan struct{} // capacity 1

	work      sync.Mutex // held while the kernel is looked at or changed; guards what follows
	withdrawn bool

	mu      sync.Mutex // guards what follows
	desired *Masquerade
	stale   bool // connections may lack source NAT
	trouble trouble
}

// NewNAT returns a keeper of source NAT that does nothing before Run. changes
// tells that somebody has changed rules.
func NewNAT(target NATTarget, changes <-chan struct{}, log *slog.Logger) *NAT {
	return &NAT{target: target, changes: changes, log: log, wake: make(chan struct{}, 1)}
}

// Set replaces what is desired.
func (n *NAT) Set(m Masquerade) {
	n.mu.Lock()
	same := n.desired != nil && n.desired.Equal(m)
	n.desired = &m
	n.mu.Unlock()
	if same {
		return
	}
	n.wakeUp()
}

// Refresh tells that packets leave by the port again: connections that went
// another way meanwhile get source NAT anew. It does not block.
func (n *NAT) Refresh() {
	n.mu.Lock()
	n.stale = true
	n.mu.Unlock()
	n.wakeUp()
}

func (n *NAT) wakeUp() {
	select {
	case n.wake <- struct{}{}:
	default: // awake already
	}
}

// Problem says why source NAT is not as desired, and since when; empty: it is.
func (n *NAT) Problem() (string, time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.trouble.text, n.trouble.since
}

// Run keeps source NAT as desired until ctx ends, and leaves it in place.
// Before the first Set it touches nothing.
func (n *NAT) Run(ctx context.Context) error {
	changes := n.changes
	var refused retry
	wait := natInterval
	for {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-n.wake:
		case _, ok := <-changes:
			if !ok {
				changes = nil // the timer is left
			}
			if n.isUnused() {
				timer.Stop()
				continue // however often others change their rules
			}
		case <-timer.C:
		}
		timer.Stop()
		wait = cmp.Or(refused.after(n.reconcile()), natInterval)
		pause := time.NewTimer(natPause)
		select {
		case <-ctx.Done():
			pause.Stop()
			return nil
		case <-pause.C:
		case <-n.wake: // by us, who have a reason
			pause.Stop()
			n.wakeUp()
		}
	}
}

// isUnused tells that no source NAT is desired, and that there is none.
func (n *NAT) isUnused() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.desired == nil || n.desired.Port == "" && n.trouble.text == ""
}

func (n *NAT) reconcile() error {
	n.work.Lock()
	defer n.work.Unlock()
	n.mu.Lock()
	desired, stale := n.desired, n.stale
	n.stale = false
	n.mu.Unlock()
	if desired == nil || n.withdrawn {
		return nil
	}
	has, err := n.target.HasMasquerade(*desired)
	if err == nil && !has {
		err = n.target.SetMasquerade(*desired)
		n.log.Info("source NAT is set", "port", desired.Port, "sources", desired.Sources, "error", err)
		stale = true
	}
	if err == nil && stale {
		err = n.target.RefreshMasquerade(*desired)
	}
	n.note(err)
	return err
}

func (n *NAT) note(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.trouble.note(err)
}

// Withdraw removes source NAT. Nothing is set any more afterwards.
func (n *NAT) Withdraw(context.Context) error {
	n.work.Lock()
	defer n.work.Unlock()
	n.withdrawn = true
	has, err := n.target.HasMasquerade(Masquerade{})
	if err != nil || has {
		return err
	}
	return n.target.SetMasquerade(Masquerade{})
}
