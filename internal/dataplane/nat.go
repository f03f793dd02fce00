package dataplane

import (
	"context"
	"log/slog"
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
	*keeper[Masquerade]
	target NATTarget
	stale  bool // connections may lack source NAT; guarded by keeper.mu
}

// NewNAT returns a keeper of source NAT that does nothing before Run. changes
// tells that somebody has changed rules.
func NewNAT(target NATTarget, changes <-chan struct{}, log *slog.Logger) *NAT {
	return &NAT{keeper: newKeeper[Masquerade](changes, log), target: target}
}

// Refresh tells that packets leave by the port again: connections that went
// another way meanwhile get source NAT anew. It does not block.
func (n *NAT) Refresh() {
	n.mu.Lock()
	n.stale = true
	n.mu.Unlock()
	n.wakeUp()
}

// Run keeps source NAT as desired until ctx ends, and leaves it in place.
// Before the first Set it touches nothing.
func (n *NAT) Run(ctx context.Context) error {
	return n.run(ctx, pace{
		interval:    natInterval,
		afterLook:   func(time.Duration) time.Duration { return natPause },
		afterUpdate: func(time.Duration) time.Duration { return 0 }, // by us, who have a reason
		ignored:     n.isUnused,
	}, n.reconcile, n.reconcile)
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
	if err != nil && stale { // it is still to be done
		n.mu.Lock()
		n.stale = true
		n.mu.Unlock()
	}
	n.note(err)
	return err
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
