package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"frond/internal/netns"
)

// MoveGuest moves a guest to another node, with its MAC and its addresses, as
// a hypervisor migrates a running machine: where it goes to, its port is ready
// before it leaves the old one. It says nothing of it to anybody, unless
// announce makes it send what a hypervisor sends then: a gratuitous ARP
// (RFC 5944 §4.6).
func (l *Lab) MoveGuest(ctx context.Context, name, to string, announce bool) error {
	return l.locked(func() error {
		g, err := l.Guest(name)
		if err != nil {
			return err
		}
		moved := g
		moved.Node = to
		if moved == g {
			return nil
		}
		if err := l.migrate(ctx, g, moved, announce); err != nil {
			return fmt.Errorf("move guest %s from %s to %s: %w", name, g.Node, to, err)
		}
		l.Topology.Guests[slices.Index(l.Topology.Guests, g)] = moved
		return l.save()
	})
}

// nextPort is a guest's end of its new cable until the old one is gone.
const nextPort = "next"

// migration is a guest on its way.
type migration struct {
	guest     Guest // before
	mac       net.HardwareAddr
	inside    *netns.NS
	from, to  *netns.NS
	nl        *netlink.Handle // inside
	old, next netlink.Link
}

func (l *Lab) migrate(ctx context.Context, g, moved Guest, announce bool) error {
	m := migration{guest: g}
	var err error
	if m.mac, err = net.ParseMAC(g.MAC); err != nil {
		return err
	}
	for _, open := range []struct {
		ns   **netns.NS
		name string
	}{{&m.inside, g.Name}, {&m.from, g.Node}, {&m.to, moved.Node}} {
		if *open.ns, err = l.Host(open.name); err != nil {
			return err
		}
		defer func() { _ = (*open.ns).Close() }()
	}
	if m.nl, err = handleIn(m.inside); err != nil {
		return err
	}
	defer m.nl.Close()
	bridge, err := l.bridgeOf(ctx, m.to, moved)
	if err != nil {
		return err
	}
	if err := m.prepare(moved, bridge); err != nil {
		return fmt.Errorf("make the new port ready: %w", err)
	}
	if err := m.leap(); err != nil {
		return err
	}
	if announce {
		if err := announceBy(m.inside, nextPort, moved); err != nil {
			return fmt.Errorf("announce it: %w", err)
		}
	}
	m.awaitForgotten(ctx)
	return m.finish()
}

// prepare makes the new cable, on which the guest does not say anything yet.
func (m *migration) prepare(moved Guest, bridge netlink.Link) error {
	var err error
	if m.old, err = m.nl.LinkByName("eth0"); err != nil {
		return err
	}
	if stale, err := m.nl.LinkByName(nextPort); err == nil { // of a move that failed
		if err := m.nl.LinkDel(stale); err != nil {
			return err
		}
	}
	attrs := netlink.LinkAttrs{Name: nextPort, Index: guestIndex, MTU: bridge.Attrs().MTU, HardwareAddr: m.mac}
	if m.old.Attrs().Index == guestIndex {
		attrs.Index++
	}
	err = m.nl.LinkAdd(&netlink.Veth{
		LinkAttrs: attrs,
		PeerName:  moved.port(), PeerNamespace: netlink.NsFd(m.to.Fd()), PeerMTU: uint32(attrs.MTU), //nolint:gosec // at most 65535
	})
	if err != nil {
		return err
	}
	if m.next, err = m.nl.LinkByName(nextPort); err != nil {
		return err
	}
	if err := m.setSysctls(guestSysctls(nextPort), map[string]string{linkLocal: "1"}); err != nil {
		return err
	}
	if err := m.nl.LinkSetUp(m.next); err != nil {
		return err
	}
	return attach(m.to, moved, bridge)
}

// linkLocal is how the new port makes a link-local address, which it would
// announce: not at all (1), or from its MAC (0).
const linkLocal = "ipv6/conf/" + nextPort + "/addr_gen_mode"

func (m *migration) setSysctls(all ...map[string]string) error {
	return m.inside.Do(func() error {
		for _, values := range all {
			for path, value := range values {
				err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0)
				if err != nil && !errors.Is(err, os.ErrNotExist) {
					return err
				}
			}
		}
		return nil
	})
}

// leap has the guest use its new port instead of the old one. Whom it knows
// on the segment it does not forget, as a machine does not that was moved.
func (m *migration) leap() error {
	known, err := m.nl.NeighList(m.old.Attrs().Index, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, n := range known {
		if len(n.HardwareAddr) == 0 {
			continue
		}
		n.LinkIndex, n.State = m.next.Attrs().Index, netlink.NUD_REACHABLE
		if err := m.nl.NeighSet(&n); err != nil {
			return fmt.Errorf("take over neighbour %s: %w", n.IP, err)
		}
	}
	addresses, err := m.nl.AddrList(m.old, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	addresses = slices.DeleteFunc(addresses, func(a netlink.Addr) bool { return a.IP.IsLinkLocalUnicast() })
	routes, err := m.nl.RouteList(m.old, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	for _, a := range addresses {
		if err := m.nl.AddrAdd(m.next, &netlink.Addr{IPNet: a.IPNet, Flags: unix.IFA_F_NODAD}); err != nil {
			return fmt.Errorf("take over address %s: %w", a.IPNet, err)
		}
	}
	// From here on the old port hears nothing any more: what still comes by it
	// is for another MAC.
	deaf := slices.Clone(m.mac)
	deaf[0] ^= 4
	if err := m.nl.LinkSetHardwareAddr(m.old, deaf); err != nil {
		return fmt.Errorf("leave the old port: %w", err)
	}
	for _, a := range addresses {
		if err := m.nl.AddrDel(m.old, &netlink.Addr{IPNet: a.IPNet}); err != nil {
			return fmt.Errorf("leave the old port: %w", err)
		}
	}
	for _, r := range routes {
		if r.Protocol == unix.RTPROT_KERNEL {
			continue
		}
		r.LinkIndex = m.next.Attrs().Index
		if err := m.nl.RouteReplace(&r); err != nil {
			return fmt.Errorf("take over route %s: %w", r, err)
		}
	}
	return nil
}

// announce sends a gratuitous ARP from a guest.
func (l *Lab) announce(g Guest) error {
	inside, err := l.Host(g.Name)
	if err != nil {
		return err
	}
	defer func() { _ = inside.Close() }()
	return announceBy(inside, "eth0", g)
}

func announceBy(inside *netns.NS, port string, g Guest) error {
	mac, err := net.ParseMAC(g.MAC)
	if err != nil {
		return err
	}
	ip := g.Address.Addr().AsSlice()
	frame := slices.Concat([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac, []byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1}, mac, ip, make([]byte, 6), ip)
	return inside.Do(func() error {
		link, err := net.InterfaceByName(port)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		return unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index, Protocol: 0x0608})
	})
}

// forgottenTime is how long the old port stays at most. For a guest that does
// not say anything where it is now, its end is the only sign.
const forgottenTime = 20 * time.Millisecond

// awaitForgotten waits until the old node no longer sends to the old port, and
// a little longer, for the other nodes. To remove a port takes the kernel some
// 20 ms in which nobody can change anything of the network, in all namespaces
// of this machine: agents on machines of their own are not held up so.
func (m *migration) awaitForgotten(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, forgottenTime)
	defer cancel()
	nl, err := handleIn(m.from)
	if err != nil {
		return
	}
	defer nl.Close()
	port, err := nl.LinkByName(m.guest.port())
	if err != nil {
		return
	}
	forgotten := 0
	_ = poll(ctx, func() bool {
		entries, err := nl.NeighList(port.Attrs().Index, unix.AF_BRIDGE)
		if err == nil && !slices.ContainsFunc(entries, func(e netlink.Neigh) bool {
			return slices.Equal(e.HardwareAddr, m.mac) && e.Flags&unix.NTF_SELF == 0
		}) {
			forgotten++
		}
		return forgotten == 2
	}, "it sends to the old port")
}

// finish removes the old port and gives its name to the new one.
func (m *migration) finish() error {
	if err := m.nl.LinkDel(m.old); err != nil {
		return fmt.Errorf("remove the old port: %w", err)
	}
	if err := m.setSysctls(map[string]string{linkLocal: "0"}); err != nil {
		return err
	}
	err := m.nl.LinkSetName(m.next, "eth0")
	if !errors.Is(err, unix.EBUSY) {
		return err
	}
	// Before Linux 6.2 only what is down can be renamed.
	return errors.Join(m.nl.LinkSetDown(m.next), m.nl.LinkSetName(m.next, "eth0"), m.nl.LinkSetUp(m.next))
}
