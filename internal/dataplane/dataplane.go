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
	Uplink    Uplink
}

// Port is an interface that carries a cable of the fabric: up, with an IPv6
// link-local address at once, deaf to autoconfiguration.
type Port struct{ Name string }

// Uplink is an interface that leads out of the fabric, as far as it is frond's
// to configure: up, with these addresses. Its zero value is none.
type Uplink struct {
	Port      string
	Addresses []netip.Prefix // with the lengths of their networks
	// Unsettled tells that there may be more to come: what an earlier run has
	// left on the port stays meanwhile.
	Unsettled bool
}

// NextHop is one way out: a port and the link-local address behind it.
type NextHop struct {
	Port string
	// Via has no zone. The unspecified address of the route's family: those that
	// packets are for are at the port themselves.
	Via netip.Addr
}

// Route is a prefix and every next hop that packets to it may take.
type Route struct {
	Prefix   netip.Prefix
	NextHops []NextHop
	// Behind is the loopback of the node that all next hops lead to next, if
	// that is the same one; zero: it is not. Legs that the route to Behind
	// loses, this one is about to lose too.
	Behind netip.Prefix
	// Source is the address that the node itself speaks from, its loopback
	// of the prefix's family; the zero Addr leaves the choice to the kernel.
	Source netip.Addr
}

// RouteUpdate is what is now desired for one prefix: no next hops means no route.
type RouteUpdate = Route

// Target is the kernel as the reconciler sees it. Its methods may be called
// while others of them run: a failure never waits for a large batch.
type Target interface {
	// Dump returns everything in the kernel that is recognisably frond's,
	// and every link; Sysctls stays empty.
	Dump(ctx context.Context) (State, error)
	// Sysctls reads values below /proc/sys; what cannot be read is left out.
	Sysctls(paths []string) map[string]string
	// Apply carries out the operations in their order, in as few system
	// calls as it can, and returns one error per operation that failed.
	// Deleting what is absent is no error.
	Apply(ctx context.Context, ops []Op) []OpError
}
