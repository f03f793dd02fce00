package gateway

import (
	"fmt"
	"time"
)

// Timing is how long a lease lasts, and what follows from it. Every node of a
// fabric must have the same.
type Timing struct {
	// Lease is how long after its last beat was sent a node may hold
	// gateways, and how long after that beat was seen the others wait.
	Lease time.Duration
	// Renew is the time between two beats.
	Renew time.Duration
	// Margin is for clocks that run at different rates, and for the agent to
	// notice that its time is up: that much before the end it lets go.
	Margin time.Duration
	// Slack is how late the kernel may remove an address whose lifetime is
	// over (see the package's documentation): so much before the end of the
	// lease the lifetime has to be.
	Slack time.Duration
}

// DefaultTiming lets a gateway be elsewhere 1.8 s after its holder's death:
// the lease, less half a beat that had passed already on average, plus two
// transactions. It is what the kernel's whole seconds allow: one second of
// lifetime, the kernel's slack, and 0.4 s for a beat to be stored.
var DefaultTiming = Timing{
	Lease:  1900 * time.Millisecond,
	Renew:  250 * time.Millisecond,
	Margin: 100 * time.Millisecond,
	Slack:  500 * time.Millisecond,
}

// Validate says what would be right.
func (t Timing) Validate() error {
	switch {
	case t.Renew <= 0 || t.Margin <= 0 || t.Slack <= 0:
		return fmt.Errorf("renew %s, margin %s, slack %s: want more than 0 each", t.Renew, t.Margin, t.Slack)
	case t.Lease < time.Second+t.Slack+t.Renew:
		return fmt.Errorf("lease %s: want at least %s: a second of lifetime, the slack, and the time between two beats",
			t.Lease, time.Second+t.Slack+t.Renew)
	case t.Lease < 4*t.Renew:
		return fmt.Errorf("lease %s: want at least four times the %s between beats", t.Lease, t.Renew)
	}
	return nil
}

// Lasts tells that a lease lasts that counts from when something was sent: that
// its node may hold gateways.
func (t Timing) Lasts(sent, now time.Duration) bool { return now < sent+t.Lease-t.Margin }

// Lifetime is what an address may be given at a moment (valid_lft, whole
// seconds), and until when it may be given just that. 0 is none.
func (t Timing) Lifetime(sent, now time.Duration) (lifetime, before time.Duration) {
	end := sent + t.Lease - t.Slack
	lifetime = (end - now).Truncate(time.Second)
	if lifetime < time.Second {
		return 0, 0
	}
	return lifetime, end - lifetime
}
