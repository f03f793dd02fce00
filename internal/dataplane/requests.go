package dataplane

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

// RequestTarget keeps guests' requests to DHCP servers on their node.
type RequestTarget interface {
	// SetRequests does so on exactly these segments, and tells whether anything
	// had to be changed.
	SetRequests([]Segment) (bool, error)
}

const (
	// requestInterval is how often the rules are compared with the kernel though
	// nobody has told of a change.
	requestInterval = 30 * time.Second
	// requestPause lies between two comparisons, so that somebody who changes
	// rules all the time does not keep a processor busy.
	requestPause = 500 * time.Millisecond
)

// asking are segments whose guests ask for addresses.
type asking []Segment

func (a asking) Equal(o asking) bool { return slices.Equal(a, o) }

// Requests keeps guests' requests to DHCP servers on their node, where somebody
// answers them.
type Requests struct {
	*keeper[asking]
	target RequestTarget
}

// NewRequests returns a keeper of requests that does nothing before Run. changes
// tells that somebody has changed rules.
func NewRequests(target RequestTarget, changes <-chan struct{}, log *slog.Logger) *Requests {
	return &Requests{keeper: newKeeper[asking](changes, log), target: target}
}

// Set replaces the segments whose guests ask.
func (r *Requests) Set(segments []Segment) { r.keeper.Set(segments) }

// Run keeps the rules as desired until ctx ends, and leaves them in place.
// Before the first Set it touches nothing.
func (r *Requests) Run(ctx context.Context) error {
	return r.run(ctx, pace{
		interval:    requestInterval,
		afterLook:   func(time.Duration) time.Duration { return requestPause },
		afterUpdate: func(time.Duration) time.Duration { return 0 },
		ignored:     r.isUnused,
	}, r.reconcile, r.reconcile)
}

// isUnused tells that nobody asks, and that nothing is there for it.
func (r *Requests) isUnused() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.desired == nil || len(*r.desired) == 0 && r.trouble.text == ""
}

func (r *Requests) reconcile() error {
	r.work.Lock()
	defer r.work.Unlock()
	desired := r.wanted()
	if desired == nil || r.withdrawn {
		return nil
	}
	return r.set(desired, func(a asking) (bool, error) { return r.target.SetRequests(a) },
		"the rules that keep guests' DHCP requests on the node were changed by somebody else, and are as they should be again",
		"guests' DHCP requests cross the fabric, where nobody answers them")
}

// Withdraw lets requests go where they will. Nothing is set any more afterwards.
func (r *Requests) Withdraw(context.Context) error {
	r.work.Lock()
	defer r.work.Unlock()
	r.withdrawn = true
	_, err := r.target.SetRequests(nil)
	return err
}
