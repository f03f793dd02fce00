// Package kernel carries out what the data plane decides, over rtnetlink(7)
// and /proc/sys, and tells when the kernel changes by somebody else's hand.
//
// What it puts into the kernel is recognised by its protocol number, so that
// a restart finds it again and nothing else is ever touched.
package kernel

import (
	"fmt"
	"log/slog"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"frond/internal/dataplane"
	"frond/internal/netns"
)

const (
	// Protocol marks routes (rtm_protocol), nexthop objects (nh_protocol)
	// and addresses (IFA_PROTO) as frond's. Neither linux/rtnetlink.h nor
	// FRR (zebra/rt_netlink.h) nor BIRD uses the number.
	Protocol = 102
	// Metric is the priority of frond's routes. With one of its own, a route
	// to the same prefix that somebody else has set is another route, which
	// is neither replaced nor deleted. 20 is what routing daemons use for
	// external BGP: below it, as a static route of IPv4 is, one wins.
	Metric = 20
)

// Kernel is the kernel of one network namespace. It implements
// dataplane.Target; all methods are safe for concurrent use.
type Kernel struct {
	log   *slog.Logger
	ns    *netns.NS
	inode uint64 // of ns
	// conns are free connections, one for each who may use one at the same
	// time: nobody waits, least of all for a failure.
	conns chan *conn
	ports []uint32 // netlink port ids of conns: how own changes are told from others'
	// unmarked tells that addresses cannot carry a protocol.
	unmarked bool
	looking  sync.Mutex // held while somebody looks something up
	// frames is a packet socket to send from. It stays open: to close one, the
	// kernel waits for all processors (packet_release in net/packet/af_packet.c).
	frames int
}

// connections suffice for routes, for segments, for what watches either, for
// failures, for one who looks something up, and for addresses of leases,
// whose time is short.
const connections = 7

var _ dataplane.Target = (*Kernel)(nil)

// New opens the kernel of the calling thread's network namespace.
func New(log *slog.Logger) (*Kernel, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ns, err := netns.Current()
	if err != nil {
		return nil, err
	}
	inode, err := ns.Inode()
	if err != nil {
		_ = ns.Close()
		return nil, err
	}
	k := &Kernel{
		log:      log,
		ns:       ns,
		inode:    inode,
		conns:    make(chan *conn, connections),
		unmarked: olderThan(5, 18),
	}
	if k.frames, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		_ = ns.Close()
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	for range connections {
		c, err := dial()
		if err != nil {
			_ = k.Close()
			return nil, fmt.Errorf("open rtnetlink: %w", err)
		}
		k.ports = append(k.ports, c.port)
		k.conns <- c
	}
	return k, nil
}

// Close ends all connections, after waiting for what still uses them.
func (k *Kernel) Close() error {
	for range k.ports {
		(<-k.conns).close()
	}
	k.ports = nil
	_ = unix.Close(k.frames)
	return k.ns.Close()
}

// with lends a connection.
func (k *Kernel) with(do func(c *conn)) {
	c := <-k.conns
	defer func() { k.conns <- c }()
	do(c)
}
