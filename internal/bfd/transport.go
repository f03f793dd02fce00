package bfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// controlPort is where control packets of a single hop go (RFC 5881 §4).
const controlPort = 3784

// Source ports that RFC 5881 §4 allows; every session has its own.
const (
	firstSourcePort = 49152
	lastSourcePort  = 65535
	sourcePortTries = 64
)

// hopLimit is sent, and nothing else is accepted: a packet that was forwarded
// once cannot have it (RFC 5881 §5).
const hopLimit = 255

// receiveBuffer bounds the memory that a flood on one port can hold.
const receiveBuffer = 128 << 10

// trafficClass is CS6, network control: not to wait behind bulk traffic.
const (
	trafficClass   = 0xc0
	socketPriority = 6 // TC_PRIO_INTERACTIVE, the highest without privilege; socket(7)
)

// transport is the wire made of UDP sockets bound to devices. Send and Forget
// belong to one goroutine; every open port has a receiver of its own.
type transport struct {
	arrivals  chan<- arrival
	log       *slog.Logger
	ports     map[string]*port
	receivers sync.WaitGroup
	dropped   atomic.Uint64
}

// port is a device with its sockets, as long as the device stays the same.
type port struct {
	name    string
	index   uint32
	receive *os.File // in Go's poller, so that closing it ends the receiver
	fd      int      // of receive
	closed  chan struct{}
	senders map[endpoint]*sender
}

type sender struct {
	fd int
	to unix.RawSockaddrInet6
}

func newTransport(arrivals chan<- arrival, log *slog.Logger) *transport {
	return &transport{arrivals: arrivals, log: log, ports: map[string]*port{}}
}

// Send implements wire. It looks at the device every time (about a
// microsecond), because a socket stays bound to a device that is gone or
// renamed, and a cable that was made anew only shares the name.
func (t *transport) Send(to endpoint, packet []byte) error {
	p, err := t.open(to.port)
	if err != nil {
		return err
	}
	s, open := p.senders[to]
	if !open {
		if s, err = p.openSender(to); err != nil {
			return err
		}
		p.senders[to] = s
	}
	if err := sendto(s.fd, packet, &s.to); err != nil {
		return fmt.Errorf("send to %s: %w", to, err)
	}
	return nil
}

// Forget implements wire.
func (t *transport) Forget(at endpoint) {
	p := t.ports[at.port]
	if p == nil {
		return
	}
	if s, open := p.senders[at]; open {
		_ = unix.Close(s.fd)
		delete(p.senders, at)
	}
	if len(p.senders) == 0 {
		t.close(p)
	}
}

// Close ends all receivers and waits for them.
func (t *transport) Close() {
	for _, p := range t.ports {
		t.close(p)
	}
	t.receivers.Wait()
}

// open returns a port whose sockets are bound to the device that has the name now.
func (t *transport) open(name string) (*port, error) {
	if p := t.ports[name]; p != nil {
		if deviceHasName(p.fd, p.index, name) {
			return p, nil
		}
		t.close(p)
	}
	p, err := openPort(name)
	if err != nil {
		return nil, err
	}
	t.ports[name] = p
	r := newReceiver(name, t.arrivals, p.closed, &t.dropped)
	t.receivers.Go(func() {
		if err := r.run(p.receive); err != nil {
			t.log.Error("bfd cannot receive", "port", name, "err", err)
		}
	})
	return p, nil
}

func (t *transport) close(p *port) {
	close(p.closed)
	_ = p.receive.Close()
	for at, s := range p.senders {
		_ = unix.Close(s.fd)
		delete(p.senders, at)
	}
	delete(t.ports, p.name)
}

// openPort listens for control packets of one device. It does not share the
// UDP port: two daemons that both answered would be worse than an error.
func openPort(device string) (*port, error) {
	fd, err := openSocket(device, controlPort)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("listen on %s: UDP port %d is taken, another BFD daemon runs here: %w", device, controlPort, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", device, err)
	}
	index, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
	err = errors.Join(err,
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer),
	)
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("listen on %s: %w", device, err)
	}
	return &port{
		name:    device,
		index:   uint32(index),
		receive: os.NewFile(uintptr(fd), "bfd "+device),
		fd:      fd,
		closed:  make(chan struct{}),
		senders: map[endpoint]*sender{},
	}, nil
}

// openSender finds a free source port, starting at random.
func (p *port) openSender(to endpoint) (*sender, error) {
	const ports = lastSourcePort - firstSourcePort + 1
	start := rand.IntN(ports)
	var err error
	for i := range sourcePortTries {
		var fd int
		fd, err = openSocket(p.name, firstSourcePort+(start+i)%ports)
		if errors.Is(err, unix.EADDRINUSE) {
			continue
		}
		if err != nil {
			break
		}
		// Nobody has a reason to send here: what comes is not kept.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 0)
		return &sender{fd, unix.RawSockaddrInet6{
			Family:   unix.AF_INET6,
			Port:     networkOrder(controlPort),
			Addr:     to.peer.As16(),
			Scope_id: p.index,
		}}, nil
	}
	return nil, fmt.Errorf("open source port to %s: %w", to, err)
}

func openSocket(device string, port int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDP)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	if err := bindSocket(fd, device, port); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func bindSocket(fd int, device string, port int) error {
	options := []struct {
		name          string
		level, option int
		value         int
	}{
		{"IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1},
		{"IPV6_UNICAST_HOPS", unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, hopLimit},
		{"IPV6_TCLASS", unix.IPPROTO_IPV6, unix.IPV6_TCLASS, trafficClass},
		{"SO_PRIORITY", unix.SOL_SOCKET, unix.SO_PRIORITY, socketPriority},
	}
	if err := unix.BindToDevice(fd, device); err != nil {
		return fmt.Errorf("bind to device: %w", err)
	}
	for _, o := range options {
		if err := unix.SetsockoptInt(fd, o.level, o.option, o.value); err != nil {
			return fmt.Errorf("set %s: %w", o.name, err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet6{Port: port}); err != nil {
		return fmt.Errorf("bind to port %d: %w", port, err)
	}
	return nil
}

func networkOrder(port uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, port))
}
