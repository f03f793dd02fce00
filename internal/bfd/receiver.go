package bfd

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxReceiveFailures in a row are no longer errors that pass.
const maxReceiveFailures = 100

// receiver reads one port's control packets into memory that it has once.
type receiver struct {
	port     string
	arrivals chan<- arrival
	closed   <-chan struct{}
	dropped  *atomic.Uint64

	header  unix.Msghdr
	vector  unix.Iovec
	source  unix.RawSockaddrInet6
	data    [64]byte // a packet without authentication fills 24; what follows is of no interest
	control [64]byte
	length  int
	errno   unix.Errno
}

func newReceiver(port string, arrivals chan<- arrival, closed <-chan struct{}, dropped *atomic.Uint64) *receiver {
	r := &receiver{port: port, arrivals: arrivals, closed: closed, dropped: dropped}
	r.vector.Base = &r.data[0]
	r.vector.SetLen(len(r.data))
	r.header.Name = (*byte)(unsafe.Pointer(&r.source))
	r.header.Iov = &r.vector
	r.header.SetIovlen(1)
	r.header.Control = &r.control[0]
	return r
}

// run hands over what is worth a look until the socket is closed. When nobody
// takes it, the kernel drops what its bounded buffer does not hold.
func (r *receiver) run(socket *os.File) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	for failures := 0; ; {
		if err := raw.Read(r.recvmsg); err != nil {
			select {
			case <-r.closed:
				return nil
			default:
				return fmt.Errorf("read: %w", err)
			}
		}
		if r.errno != 0 {
			// A socket tells an error that it held back once, and works on.
			if failures++; failures == maxReceiveFailures {
				return fmt.Errorf("read: %w", r.errno)
			}
			continue
		}
		failures = 0
		a, ok := r.accept()
		if !ok {
			r.dropped.Add(1)
			continue
		}
		select {
		case r.arrivals <- a:
		case <-r.closed:
			return nil
		}
	}
}

// recvmsg reports whether it is done; if not, the poller waits for data.
func (r *receiver) recvmsg(fd uintptr) bool {
	r.header.Namelen = unix.SizeofSockaddrInet6
	r.header.SetControllen(len(r.control))
	r.length, r.errno = recvmsg(int(fd), &r.header)
	return r.errno != unix.EAGAIN
}

// accept checks what was read: hop limit, source, contents.
func (r *receiver) accept() (arrival, bool) {
	hops, ok := receivedHopLimit(r.control[:r.header.Controllen])
	if !ok || hops != hopLimit {
		return arrival{}, false
	}
	source := netip.AddrFrom16(r.source.Addr)
	if !source.IsLinkLocalUnicast() {
		return arrival{}, false
	}
	p, err := parsePacket(r.data[:r.length])
	if err != nil {
		return arrival{}, false
	}
	return arrival{endpoint{r.port, source}, p}, true
}

func receivedHopLimit(control []byte) (uint32, bool) {
	for len(control) >= unix.SizeofCmsghdr {
		header, data, rest, err := unix.ParseOneSocketControlMessage(control)
		if err != nil {
			return 0, false
		}
		if header.Level == unix.IPPROTO_IPV6 && header.Type == unix.IPV6_HOPLIMIT && len(data) >= 4 {
			return binary.NativeEndian.Uint32(data), true
		}
		control = rest
	}
	return 0, false
}
