package gateway

import (
	"context"
	"time"
)

// Holding is a gateway that this node holds.
type Holding struct {
	Segment string
	// Lifetime is what its addresses get (valid_lft), in whole seconds. If it
	// is 0, the lease is too far gone for another: what the kernel has stays
	// as it is, and nothing is added.
	Lifetime time.Duration
	// Before is when the addresses have to be in the kernel, on the clock that
	// Config.Clock is: later, this lifetime would outlive the lease. It is to
	// be looked at directly before the system call, and after it: an address
	// that came too late has to go at once.
	Before time.Duration
	Term   uint64    // grows with each change of holder: the sequence number of EVPN's MAC mobility
	Since  time.Time // for people
	Why    string
}

// NotAdded is the error of Addresses.Set when all that was to go is gone, and
// only some of what was to come is not there.
type NotAdded struct{ Err error }

func (e *NotAdded) Error() string { return e.Err.Error() }

// Unwrap gives the reason.
func (e *NotAdded) Unwrap() error { return e.Err }

// Addresses puts gateways into the kernel.
type Addresses interface {
	// Set makes the holdings all that there are. When it returns without an
	// error, or with NotAdded, the addresses of all others are gone from the kernel, and those
	// with a lifetime are there for as long. Of a gateway that was not among
	// the holdings before, it also tells the segment (gratuitous ARP,
	// unsolicited neighbour advertisement).
	Set(ctx context.Context, holdings []Holding) error
}
