package probe

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"frond/internal/netns"
)

// flow is one direction of a pair of ports.
type flow struct {
	id       uint64 // of the probe and this direction; tells strangers' packets from ours
	src, dst netip.AddrPort
	to       unix.Sockaddr
	out, in  int // sockets; out belongs to the direction back as its in
	mirror   int // socket of an echo at the far end; 0: none
	tally    tally
	buf      [packetSize]byte
}

// openFlows returns two flows per pair of ports, there and back, or one that
// goes there and comes back.
func openFlows(cfg Config, id uint64) (flows []*flow, err error) {
	defer func() {
		if err != nil {
			closeFlows(flows)
		}
	}()
	for i := range uint64(cfg.Flows) {
		a, from, err := openSocket(cfg.From, cfg.FromAddr)
		if err != nil {
			return flows, err
		}
		b, to, err := openSocket(cfg.To, cfg.ToAddr)
		if err != nil {
			_ = unix.Close(a)
			return flows, err
		}
		if cfg.Echo {
			flows = append(flows, &flow{id: id + 2*i, src: from, dst: to, to: sockaddr(to), out: a, in: a, mirror: b})
			continue
		}
		flows = append(flows,
			&flow{id: id + 2*i, src: from, dst: to, to: sockaddr(to), out: a, in: b},
			&flow{id: id + 2*i + 1, src: to, dst: from, to: sockaddr(from), out: b, in: a})
	}
	return flows, nil
}

func closeFlows(flows []*flow) {
	for _, f := range flows {
		_ = unix.Close(f.out)
		if f.mirror != 0 {
			_ = unix.Close(f.mirror)
		}
	}
}

// openSocket opens a UDP socket on a port that the kernel chooses. It is not
// connected: every packet asks the routing table, as forwarded ones do, and
// no ICMP error of one is charged to the next.
func openSocket(ns *netns.NS, addr netip.Addr) (fd int, local netip.AddrPort, err error) {
	err = ns.Do(func() error {
		domain := unix.AF_INET6
		if addr.Is4() {
			domain = unix.AF_INET
		}
		fd, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		// A reader that is late must not look like a network that loses.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuf)
		if err := unix.Bind(fd, sockaddr(netip.AddrPortFrom(addr, 0))); err != nil {
			_ = unix.Close(fd)
			return err
		}
		bound, err := unix.Getsockname(fd)
		if err != nil {
			_ = unix.Close(fd)
			return err
		}
		local = netip.AddrPortFrom(addr, port(bound))
		return nil
	})
	if err != nil {
		return 0, netip.AddrPort{}, fmt.Errorf("open UDP socket on %s in %s: %w", addr, ns.Name(), err)
	}
	return fd, local, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func port(sa unix.Sockaddr) uint16 {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(sa.Port)
	case *unix.SockaddrInet6:
		return uint16(sa.Port)
	}
	return 0
}

func (f *flow) send(now time.Duration) {
	seq := f.tally.send(now)
	binary.LittleEndian.PutUint64(f.buf[0:], f.id)
	binary.LittleEndian.PutUint64(f.buf[8:], seq)
	binary.LittleEndian.PutUint64(f.buf[16:], uint64(now))
	// A packet that the kernel has no way for is sent and lost, as any other.
	_ = unix.Sendto(f.out, f.buf[:], 0, f.to)
}

// reflect sends back what has come to the far end of an echo.
func (f *flow) reflect() {
	var buf [packetSize]byte
	for f.mirror != 0 {
		n, from, err := unix.Recvfrom(f.mirror, buf[:], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		_ = unix.Sendto(f.mirror, buf[:n], 0, from)
	}
}

func (f *flow) receive() {
	f.reflect()
	var buf [packetSize]byte
	for {
		n, err := unix.Read(f.in, buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return
		}
		if n == packetSize && binary.LittleEndian.Uint64(buf[0:]) == f.id {
			f.tally.receive(binary.LittleEndian.Uint64(buf[8:]), time.Duration(binary.LittleEndian.Uint64(buf[16:])))
		}
	}
}

func (f *flow) result() Flow {
	f.tally.settleAll()
	t := &f.tally
	return Flow{Src: f.src, Dst: f.dst, Sent: t.next, Lost: t.lost, Duplicated: t.duplicated, Outage: t.outage}
}
