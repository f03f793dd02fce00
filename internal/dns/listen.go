package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxQuery = 4096 // of a datagram, octets
	// idleTime is how long a connection may wait for a question, or for its
	// answer to be taken.
	idleTime = 10 * time.Second
)

// listener hears questions on one address of one bridge.
type listener struct {
	server  *Server
	segment atomic.Pointer[Segment]
	udp     *net.UDPConn
	tcp     *net.TCPListener
	streams *gate
	cancel  context.CancelFunc
	work    sync.WaitGroup
	failure atomic.Pointer[error]
}

// listen opens an endpoint's sockets and begins to serve them.
func (s *Server) listen(ctx context.Context, e endpoint, segment Segment) (*listener, error) {
	l := &listener{server: s, streams: newGate(maxStreams, maxStreamsOfOne)}
	l.segment.Store(&segment)
	if err := s.enter(func() error { return l.open(ctx, e) }); err != nil {
		return nil, hint(err)
	}
	ctx, l.cancel = context.WithCancel(ctx)
	l.work.Go(func() { l.serve(ctx, l.datagrams) })
	l.work.Go(func() { l.serve(ctx, l.connections) })
	return l, nil
}

// hint says what would help.
func hint(err error) error {
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("%w: another name server listens there; keep it off this interface, or set dns_names: off", err)
	}
	return err
}

func (l *listener) open(ctx context.Context, e endpoint) error {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return bindTo(c, e) }}
	family := "4"
	if e.address.Is6() {
		family = "6"
	}
	at := netip.AddrPortFrom(e.address, port).String()
	udp, err := config.ListenPacket(ctx, "udp"+family, at)
	if err != nil {
		return err
	}
	tcp, err := config.Listen(ctx, "tcp"+family, at)
	if err != nil {
		_ = udp.Close()
		return err
	}
	l.udp, l.tcp = udp.(*net.UDPConn), tcp.(*net.TCPListener)
	return nil
}

// bindTo lets in packets from the bridge alone, and takes an address that may
// come later (ip(7), IP_FREEBIND).
func bindTo(c syscall.RawConn, e endpoint) error {
	var err error
	controlErr := c.Control(func(fd uintptr) {
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX, e.index); err != nil {
			err = fmt.Errorf("SO_BINDTOIFINDEX: %w", err)
			return
		}
		if e.address.Is6() {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1)
		}
	})
	return errors.Join(controlErr, err)
}

// serve runs one of the sockets. What ends it by itself is kept, and ends both.
func (l *listener) serve(ctx context.Context, run func(context.Context) error) {
	if err := run(ctx); ctx.Err() == nil {
		l.failure.CompareAndSwap(nil, &err)
		l.server.signal()
	}
}

func (l *listener) err() error {
	if failure := l.failure.Load(); failure != nil {
		return *failure
	}
	return nil
}

// stop closes the sockets and waits until nobody is answered any more.
func (l *listener) stop() {
	l.cancel()
	_ = l.udp.Close()
	_ = l.tcp.Close()
	l.work.Wait()
}

// isGuest tells whether an address may ask: one of the segment's, or of its link.
func isGuest(s Segment, from netip.Addr) bool {
	return from.IsLinkLocalUnicast() || slices.ContainsFunc(s.Prefixes, func(p netip.Prefix) bool { return p.Contains(from.WithZone("")) })
}

// datagrams answers questions in datagrams. Those that are too many go
// unanswered: guests ask again.
func (l *listener) datagrams(ctx context.Context) error {
	buf := make([]byte, maxQuery)
	for {
		n, from, err := l.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		segment, source := *l.segment.Load(), from.Addr().Unmap()
		if !isGuest(segment, source) || !l.server.gate.enter(source) {
			continue
		}
		packet := slices.Clone(buf[:n])
		l.work.Go(func() {
			defer l.server.gate.leave(source)
			if reply := l.server.answer(ctx, segment, packet, false); reply != nil {
				_, _ = l.udp.WriteToUDPAddrPort(reply, from)
			}
		})
	}
}

// connections answers questions in streams.
func (l *listener) connections(ctx context.Context) error {
	for {
		conn, err := l.tcp.AcceptTCP()
		if err != nil {
			return err
		}
		source := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		if !isGuest(*l.segment.Load(), source) || !l.streams.enter(source) {
			_ = conn.Close()
			continue
		}
		l.work.Go(func() {
			defer l.streams.leave(source)
			defer func() { _ = conn.Close() }()
			defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
			l.stream(ctx, conn, source)
		})
	}
}

// stream answers one question after the other.
func (l *listener) stream(ctx context.Context, conn net.Conn, source netip.Addr) {
	for {
		if conn.SetDeadline(time.Now().Add(idleTime)) != nil {
			return
		}
		packet, err := readStream(conn)
		if err != nil || !l.server.gate.enter(source) {
			return
		}
		reply := l.server.answer(ctx, *l.segment.Load(), packet, true)
		l.server.gate.leave(source)
		if reply == nil || conn.SetDeadline(time.Now().Add(idleTime)) != nil || writeStream(conn, reply) != nil {
			return
		}
	}
}

// dial connects to a name server.
func (s *Server) dial(ctx context.Context, network string, to netip.AddrPort) (conn net.Conn, err error) {
	dialErr := s.enter(func() error {
		conn, err = new(net.Dialer).DialContext(ctx, network, to.String())
		return nil
	})
	return conn, errors.Join(dialErr, err)
}
