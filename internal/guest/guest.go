// Package guest knows the instances of the hypervisor on this node: which
// network interfaces they have, and which port of which bridge each is behind.
//
// A hypervisor is read, never told. What it once said of an instance holds
// until it says otherwise: that it does not answer, or no longer knows, is no
// reason to forget a guest that lives.
package guest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"frond/internal/dataplane"
)

// Key names an instance: names are unique in their project.
type Key struct{ Project, Name string }

// String is the name, with its project unless that is the default one.
func (k Key) String() string {
	if k.Project == "" || k.Project == defaultProject {
		return k.Name
	}
	return k.Project + "/" + k.Name
}

// compare orders instances by project and name, the default project first.
func (k Key) compare(other Key) int {
	if first, second := k.Project == defaultProject, other.Project == defaultProject; first != second {
		if first {
			return -1
		}
		return 1
	}
	if d := strings.Compare(k.Project, other.Project); d != 0 {
		return d
	}
	return strings.Compare(k.Name, other.Name)
}

// Instance is a container or a virtual machine of the hypervisor.
type Instance struct {
	Key
	Kind     string // container or virtual-machine
	State    string // in the hypervisor's words: Running, Stopped, …
	Location string // the cluster member that it is on; empty or "none" without a cluster
	NICs     []NIC  // by name; virtual functions and the like are none
}

// NIC is a network interface of an instance.
type NIC struct {
	Device string // its name in the instance's configuration
	MAC    dataplane.MAC
	// Port is the end that the host has of it; empty as long as the hypervisor
	// has not said.
	Port   string
	Parent string // the bridge that it is to be a port of
	// Addresses are those that the configuration gives it, not those of leases.
	Addresses []netip.Addr
}

// Server is the daemon that was asked.
type Server struct {
	Product string // LXD or Incus
	Version string
	Member  string // its name in its cluster
	Cluster bool
	Address string // of the member in its cluster, host:port
}

// Here tells whether an instance is on the member itself.
func (s Server) Here(i Instance) bool { return !s.Cluster || i.Location == s.Member }

// Event tells that something happened to an instance: look again.
type Event struct {
	Key
	Location string // the cluster member that it happened on; empty if that is not said
	Renamed  bool   // it had another name before
}

// ErrGone is a source's answer for an instance that there is no more.
var ErrGone = errors.New("there is no such instance")

// ErrUnknown is a source's answer for an instance of which the hypervisor knows
// nothing at the moment, as of one on a member that is away.
var ErrUnknown = errors.New("the hypervisor knows nothing of the instance at the moment")

func noAnswer(d time.Duration) error { return fmt.Errorf("no answer within %s", d) }

// Source is a hypervisor that can be asked. Each call ends when its context does.
type Source interface {
	Server(context.Context) (Server, error)
	// Instances are those on this member. One whose configuration the
	// hypervisor does not know at the moment is named without it, by unknown.
	Instances(context.Context) (known []Instance, unknown []Key, err error)
	// Everywhere are those on all members, likewise.
	Everywhere(context.Context) (known []Instance, unknown []Key, err error)
	// Instance is one by its name; ErrGone if there is none, ErrUnknown if the
	// hypervisor does not know its configuration.
	Instance(context.Context, Key) (Instance, error)
	// Keys are the names of the instances on this member, Names those on all:
	// cheap to ask for.
	Keys(context.Context) ([]Key, error)
	Names(context.Context) ([]Key, error)
	// Events calls ready when it hears, and tell for each event after that,
	// until the connection or ctx ends.
	Events(ctx context.Context, ready func(), tell func(Event)) error
}
