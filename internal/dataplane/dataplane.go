// Package dataplane holds what a node's kernel should contain: desired
// state as plain values, the difference to what is there as a pure function,
// and the loop that reconciles the two.
package dataplane

import (
	"context"
	"net/netip"
)

// Desired is the whole small state of a node. Routes are many, so they are
// handed over by UpdateRoutes as what changed.
type Desired struct {
	Sysctls   map[string]string // path below /proc/sys → value
	Ports     []Port
	Addresses []netip.Prefix // host prefixes on the loopback interface
}

// Port is an interface that carries a cable of the fabric: up, with an IPv6
// link-local address at once, deaf to autoconfiguration.
type Port struct{ Name string }

// NextHop is one way out: a port and the link-local address behind it.
type NextHop struct {
	Port string
	Via  netip.Addr // without zone
}

// Route is a prefix and every next hop that packets to it may take.
type Route struct {
	Prefix   netip.Prefix
	NextHops []NextHop
	// Source is the address that the node itself speaks from, its loopback
	// of the prefix's family; the zero Addr leaves the choice to the kernel.
	Source netip.Addr
}

// RouteUpdate is what is now desired for one prefix: no next hops means no route.
type RouteUpdate = Route

// Target is the kernel as the reconciler sees it.
type Target interface {
	// Dump returns everything in the kernel that is recognisably frond's.
	Dump(ctx context.Context) (State, error)
	// Apply carries out the operations in their order, in as few system
	// calls as it can, and returns one error per operation that failed.
	// Deleting what is absent is no error.
	Apply(ctx context.Context, ops []Op) []OpError
}

// State is what the kernel holds that is frond's.
type State struct {
	NextHops  map[uint32]NextHop  // nexthop objects by id
	Groups    map[uint32][]uint32 // nexthop groups by id: ids of their members, sorted
	Routes    map[netip.Prefix]InstalledRoute
	Addresses map[netip.Prefix]struct{}
	Sysctls   map[string]string
	Links     map[string]Link
}

// InstalledRoute is a route as the kernel holds it.
type InstalledRoute struct {
	NextHopID uint32 // nexthop object or group
	Source    netip.Addr
}

// Link is an interface as the kernel shows it.
type Link struct {
	Name      string
	Index     int
	Up        bool // administratively
	Carrier   bool
	MTU       int
	LinkLocal netip.Addr // usable IPv6 link-local address, zero if there is none yet
	MAC       string
	Kind      string // "veth", "bridge", …; empty for a physical device
}

// Op is one change of the kernel: SetNextHop, SetGroup, DeleteNextHop, ….
type Op interface{ op() }

// OpError is an operation that failed.
type OpError struct {
	Op  Op
	Err error
}
