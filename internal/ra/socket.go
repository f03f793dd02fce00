package ra

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	// readBuffer is the socket's, in bytes: what a flood may occupy, and
	// about 10 ms of 10,000 messages a second, so that a neighbour is heard in
	// between (socket(7), SO_RCVBUF; the kernel doubles it).
	readBuffer = 64 << 10
	// maxMessage is the longest message read, larger than any sensible one.
	maxMessage = 4096
)

// socket is a raw ICMPv6 socket (RFC 3542) that hears and sends on one port
// only. It is opened while the port's address may still be tentative; only
// sending waits for that.
type socket struct {
	file   *os.File // nonblocking, so that Close and deadlines interrupt reads
	conn   syscall.RawConn
	source []byte // control message that names port and source address
	buf    [maxMessage]byte
}

// openSocket opens the port's socket in the network namespace of the calling
// thread. A port that does not exist is an error that wraps unix.ENODEV.
func openSocket(p Port) (*socket, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMPV6)
	if err != nil {
		return nil, fmt.Errorf("open ICMPv6 socket for %s: %w", p.Name, err)
	}
	if err := configure(fd, p); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("configure ICMPv6 socket for %s: %w", p.Name, err)
	}
	s := &socket{
		file:   os.NewFile(uintptr(fd), "icmpv6 "+p.Name),
		source: unix.PktInfo6(&unix.Inet6Pktinfo{Addr: p.Addr.As16(), Ifindex: uint32(p.Index)}),
	}
	if s.conn, err = s.file.SyscallConn(); err != nil {
		s.close()
		return nil, fmt.Errorf("open ICMPv6 socket for %s: %w", p.Name, err)
	}
	return s, nil
}

func configure(fd int, p Port) error {
	for _, o := range []struct {
		name                 string
		level, option, value int
	}{
		{"SO_BINDTOIFINDEX", unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, p.Index},
		{"SO_RCVBUF", unix.SOL_SOCKET, unix.SO_RCVBUF, readBuffer},
		{"IPV6_MULTICAST_IF", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, p.Index},
		{"IPV6_MULTICAST_HOPS", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255},
		{"IPV6_MULTICAST_LOOP", unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.option, o.value); err != nil {
			return fmt.Errorf("%s: %w", o.name, err)
		}
	}
	// Solicitations are sent to all routers; all nodes needs no joining.
	group := &unix.IPv6Mreq{Multiaddr: allRouters.As16(), Interface: uint32(p.Index)}
	if err := unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, group); err != nil {
		return fmt.Errorf("join %s: %w", allRouters, err)
	}
	if err := attach(fd, openFilter()); err != nil {
		return err
	}
	return drain(fd)
}

// drain discards what came before the socket was bound and filtered.
func drain(fd int) error {
	// As many as the buffer can hold, so that a flood does not keep us here.
	for range readBuffer / 128 {
		_, _, err := unix.Recvfrom(fd, make([]byte, 1), unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("recvfrom: %w", err)
		}
	}
	return nil
}

// attach puts a packet filter in the place of the one before (socket(7)).
func attach(fd int, program []bpf.Instruction) error {
	raw, err := bpf.Assemble(program)
	if err != nil {
		return fmt.Errorf("assemble packet filter: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := &unix.SockFprog{Len: uint16(len(filter)), Filter: unsafe.SliceData(filter)}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, prog); err != nil {
		return fmt.Errorf("SO_ATTACH_FILTER: %w", err)
	}
	return nil
}

// setFilter replaces what the socket hears from now on.
func (s *socket) setFilter(program []bpf.Instruction) error {
	var err error
	if controlErr := s.conn.Control(func(fd uintptr) { err = attach(int(fd), program) }); controlErr != nil {
		return controlErr
	}
	return err
}

// receive waits for a message. It is valid until the next receive. After
// deadline the error wraps os.ErrDeadlineExceeded, after close os.ErrClosed.
func (s *socket) receive(deadline time.Time) (message []byte, from netip.Addr, err error) {
	if err := s.file.SetReadDeadline(deadline); err != nil {
		return nil, netip.Addr{}, err
	}
	var n int
	var name unix.Sockaddr
	waitErr := s.conn.Read(func(fd uintptr) bool {
		n, name, err = unix.Recvfrom(int(fd), s.buf[:], unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if waitErr != nil {
		return nil, netip.Addr{}, waitErr
	}
	if err != nil {
		return nil, netip.Addr{}, fmt.Errorf("recvfrom: %w", err)
	}
	if a, ok := name.(*unix.SockaddrInet6); ok {
		from = netip.AddrFrom16(a.Addr)
	}
	return s.buf[:n], from, nil
}

// send sends a message to a multicast group, or fails at once.
func (s *socket) send(message []byte, group netip.Addr) error {
	var err error
	to := &unix.SockaddrInet6{Addr: group.As16()}
	writeErr := s.conn.Write(func(fd uintptr) bool {
		_, err = unix.SendmsgN(int(fd), message, s.source, to, unix.MSG_DONTWAIT)
		return true
	})
	if writeErr != nil {
		return writeErr
	}
	if err != nil {
		return fmt.Errorf("send to %s: %w", group, err)
	}
	return nil
}

func (s *socket) close() { _ = s.file.Close() }
