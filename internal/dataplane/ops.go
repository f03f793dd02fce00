package dataplane

import (
	"fmt"
	"net/netip"
)

// Op is one change of the kernel.
type Op interface {
	fmt.Stringer // what it does, as the beginning of an error: "set route 10.0.0.1/32"
	op()
}

// OpError is an operation that failed.
type OpError struct {
	Index int // of the operation in what was applied
	Op    Op
	Err   error
}

// Error says what was being done and why it failed.
func (e OpError) Error() string { return fmt.Sprintf("%s: %v", e.Op, e.Err) }

// Unwrap returns the reason.
func (e OpError) Unwrap() error { return e.Err }

// SetSysctl writes a value below /proc/sys.
type SetSysctl struct{ Path, Value string }

// SetPort brings an interface up and sees to it that the kernel gives it an
// IPv6 link-local address (RFC 4291 §2.5.6). It removes no address.
type SetPort struct{ Name string }

// AddAddress puts a host prefix on the loopback interface.
type AddAddress struct{ Prefix netip.Prefix }

// DeleteAddress takes a host prefix off the loopback interface.
type DeleteAddress struct{ Prefix netip.Prefix }

// AddPortAddress puts an address on an interface other than lo.
type AddPortAddress struct{ PortAddress }

// DeletePortAddress takes an address off an interface other than lo.
type DeletePortAddress struct{ PortAddress }

// SetNextHop makes a leg: a nexthop object of one next hop. It replaces nothing.
type SetNextHop struct {
	ID      uint32
	NextHop NextHop
}

// SetGroup makes a nexthop group or replaces its members, which moves every
// route that refers to it.
type SetGroup struct {
	ID      uint32
	Members []uint32 // ids of legs, sorted
}

// DeleteNextHop removes a leg or a group. The kernel takes a leg out of all
// groups by itself, and deletes the routes that have no next hop left.
type DeleteNextHop struct{ ID uint32 }

// SetRoute adds a route or replaces the one that is there.
type SetRoute struct {
	Prefix    netip.Prefix
	NextHopID uint32
	Source    netip.Addr // zero: the kernel chooses
}

// DeleteRoute removes a route.
type DeleteRoute struct{ Prefix netip.Prefix }

func (SetSysctl) op()         {}
func (SetPort) op()           {}
func (AddAddress) op()        {}
func (DeleteAddress) op()     {}
func (AddPortAddress) op()    {}
func (DeletePortAddress) op() {}
func (SetNextHop) op()        {}
func (SetGroup) op()          {}
func (DeleteNextHop) op()     {}
func (SetRoute) op()          {}
func (DeleteRoute) op()       {}

func (o SetSysctl) String() string      { return fmt.Sprintf("set sysctl %s to %q", o.Path, o.Value) }
func (o SetPort) String() string        { return "bring up " + o.Name }
func (o AddAddress) String() string     { return fmt.Sprintf("add address %s to lo", o.Prefix) }
func (o DeleteAddress) String() string  { return fmt.Sprintf("delete address %s from lo", o.Prefix) }
func (o AddPortAddress) String() string { return fmt.Sprintf("add address %s to %s", o.Prefix, o.Port) }
func (o DeletePortAddress) String() string {
	return fmt.Sprintf("delete address %s from %s", o.Prefix, o.Port)
}
func (o SetNextHop) String() string    { return fmt.Sprintf("add next hop %s", o.NextHop) }
func (o SetGroup) String() string      { return fmt.Sprintf("set next hop group %#x", o.ID) }
func (o DeleteNextHop) String() string { return fmt.Sprintf("delete next hop %#x", o.ID) }
func (o SetRoute) String() string      { return fmt.Sprintf("set route %s", o.Prefix) }
func (o DeleteRoute) String() string   { return fmt.Sprintf("delete route %s", o.Prefix) }

// String returns the next hop in the form of an IPv6 zoned address (RFC 4007 §11).
func (n NextHop) String() string { return n.Via.String() + "%" + n.Port }

// opKey names what an operation is about, whatever it sets it to, so that a
// refused one is not tried again before the kernel was looked at anew.
type opKey struct {
	kind    string
	subject string
}

// The kinds of operations.
const (
	kindDump              = "read the kernel's state"
	kindSetSysctl         = "set sysctl"
	kindSetPort           = "bring up port"
	kindAddAddress        = "add address to lo"
	kindDeleteAddress     = "delete address from lo"
	kindAddPortAddress    = "add address to port"
	kindDeletePortAddress = "delete address from port"
	kindSetNextHop        = "add next hop"
	kindSetGroup          = "set next hop group"
	kindDeleteNextHop     = "delete next hop"
	kindSetRoute          = "set route"
	kindDeleteRoute       = "delete route"
)

func (k opKey) String() string {
	if k.kind == kindSetGroup || k.subject == "" {
		return k.kind // a group is known by its members, which nobody can read
	}
	return k.kind + " " + k.subject
}

func keyOf(op Op) opKey {
	switch op := op.(type) {
	case SetSysctl:
		return opKey{kindSetSysctl, op.Path}
	case SetPort:
		return opKey{kindSetPort, op.Name}
	case AddAddress:
		return opKey{kindAddAddress, op.Prefix.String()}
	case DeleteAddress:
		return opKey{kindDeleteAddress, op.Prefix.String()}
	case AddPortAddress:
		return opKey{kindAddPortAddress, op.Port + " " + op.Prefix.String()}
	case DeletePortAddress:
		return opKey{kindDeletePortAddress, op.Port + " " + op.Prefix.String()}
	case SetNextHop:
		return opKey{kindSetNextHop, op.NextHop.String()} // its id is a new one each time
	case SetGroup:
		return opKey{kindSetGroup, membersKey(op.Members)} // likewise
	case DeleteNextHop:
		return opKey{kindDeleteNextHop, fmt.Sprintf("%#x", op.ID)}
	case SetRoute:
		return opKey{kindSetRoute, op.Prefix.String()}
	case DeleteRoute:
		return opKey{kindDeleteRoute, op.Prefix.String()}
	}
	return opKey{kind: op.String()}
}
