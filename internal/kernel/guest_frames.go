package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"time"

	"frond/internal/dataplane"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	// waitingFrames bounds the requests that nobody has taken yet, of all
	// ports together. Clients repeat what is not answered (RFC 2131 §4.1).
	waitingFrames        = 4096
	waitingSolicitations = 256
	// requestBuffer is for what comes in by one port meanwhile, octets.
	requestBuffer = 512 << 10
	largestFrame  = 2048 // octets; a request has some 300

	portDHCPServer     = 67
	portDHCP6Server    = 547
	routerSolicitation = 133
)

// guestPorts are the guests' ports of segments on which DHCP or questions for
// routers are answered.
type guestPorts struct {
	frames        chan dataplane.GuestFrame
	solicitations chan dataplane.GuestFrame
	open          func(index uint32) (*os.File, error) // what guests of a port ask

	mu      sync.Mutex
	sockets map[dataplane.LocalPort]guestSocket
}

// guestSocket hears and sends frames on one port.
type guestSocket struct {
	file  *os.File
	index uint32
}

func newGuestPorts(open func(index uint32) (*os.File, error)) *guestPorts {
	return &guestPorts{
		open:          open,
		frames:        make(chan dataplane.GuestFrame, waitingFrames),
		solicitations: make(chan dataplane.GuestFrame, waitingSolicitations),
		sockets:       make(map[dataplane.LocalPort]guestSocket),
	}
}

// Frames are what guests send to DHCP servers, and their answers to probes of
// addresses. Each came in by the port that it is told with, so that none is
// from another node.
func (w *OverlayWatch) Frames() <-chan dataplane.GuestFrame { return w.guests.frames }

// Solicitations are what guests of this node ask routers (RFC 4861 §4.1).
func (w *OverlayWatch) Solicitations() <-chan dataplane.GuestFrame { return w.guests.solicitations }

// Flood sends a frame to all guests of a segment, those of other nodes too.
// One that cannot be sent is as one that is lost.
func (w *OverlayWatch) Flood(vni uint32, frame []byte) {
	w.mu.Lock()
	bridge := w.board.bridgeOf(vni)
	w.mu.Unlock()
	if bridge != 0 {
		_ = unix.Sendto(w.kernel.frames, frame, unix.MSG_DONTWAIT, &unix.SockaddrLinklayer{Ifindex: int(bridge)})
	}
}

// Send sends a frame to the guests behind a port, or behind all ports of its
// segment on which guests are answered if it has no name. One that cannot be sent
// is as one that is lost.
func (w *OverlayWatch) Send(port dataplane.LocalPort, frame []byte) {
	w.guests.mu.Lock()
	defer w.guests.mu.Unlock()
	if port.Port != "" {
		if s, ok := w.guests.sockets[port]; ok {
			s.send(frame)
		}
		return
	}
	for other, s := range w.guests.sockets {
		if other.VNI == port.VNI {
			s.send(frame)
		}
	}
}

func (s guestSocket) send(frame []byte) {
	raw, err := s.file.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.Sendto(int(fd), frame, unix.MSG_DONTWAIT, &unix.SockaddrLinklayer{Ifindex: int(s.index)})
	})
}

// servePause is how long after a port could not be listened to it is tried again.
const servePause = time.Second

// serve hands over what guests of a port ask until unserve is called.
func (w *OverlayWatch) serve(index uint32, port dataplane.LocalPort) (unserve func()) {
	stop := make(chan struct{})
	if err := w.serveOnce(index, port, stop); err != nil && !errors.Is(err, unix.ENODEV) { // which is gone already
		w.kernel.log.Warn("cannot listen to what guests ask DHCP servers and routers; trying on", "port", port.Port, "error", err)
		w.work.Go(func() { w.serveLater(index, port, stop) })
	}
	return func() {
		w.guests.mu.Lock()
		defer w.guests.mu.Unlock()
		close(stop)
		if s, ok := w.guests.sockets[port]; ok && s.index == index { // else another one bears the name now
			delete(w.guests.sockets, port)
			_ = s.file.Close()
		}
	}
}

// serveLater tries until it is heard, or the port is gone or need not be heard.
func (w *OverlayWatch) serveLater(index uint32, port dataplane.LocalPort, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(servePause):
		}
		if err := w.serveOnce(index, port, stop); err == nil || errors.Is(err, unix.ENODEV) {
			return
		}
	}
}

func (w *OverlayWatch) serveOnce(index uint32, port dataplane.LocalPort, stop <-chan struct{}) error {
	file, err := w.guests.open(index)
	if err != nil {
		return err
	}
	w.guests.mu.Lock()
	defer w.guests.mu.Unlock()
	select {
	case <-stop:
		return file.Close()
	default:
	}
	if before, ok := w.guests.sockets[port]; ok { // the name was another port's
		_ = before.file.Close()
	}
	w.guests.sockets[port] = guestSocket{file, index}
	w.work.Go(func() { w.hear(file, port) })
	return nil
}

// openRequests opens a socket for what guests of a port ask.
func (k *Kernel) openRequests(index uint32) (*os.File, error) {
	file, err := k.openPacket(index, requestFilter)
	if err != nil {
		return nil, err
	}
	if raw, err := file.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, requestBuffer)
		})
	}
	return file, nil
}

func (w *OverlayWatch) hear(file *os.File, port dataplane.LocalPort) {
	receiveAll(file, largestFrame, func(frame []byte) {
		to := w.guests.frames
		if isICMPv6(frame) {
			to = w.guests.solicitations
		}
		select {
		case to <- dataplane.GuestFrame{Port: port, Data: bytes.Clone(frame)}:
		default:
		}
	})
}

// isICMPv6 tells apart what the filter passes of IPv6.
func isICMPv6(frame []byte) bool {
	return len(frame) > sizeEthernet+6 && binary.BigEndian.Uint16(frame[offsetEtherType:]) == unix.ETH_P_IPV6 &&
		frame[sizeEthernet+6] == unix.IPPROTO_ICMPV6
}

// requestFilter passes whole UDP datagrams to a DHCP server, of IPv4 (RFC 2131
// §4.1) and IPv6 (RFC 8415 §7.2), ARP replies to nobody, which answer probes
// (RFC 5227 §2.1.1), and router solicitations that nobody has routed (RFC 4861
// §6.1.1).
var requestFilter = []bpf.Instruction{
	bpf.LoadAbsolute{Off: offsetEtherType, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IPV6, SkipTrue: 11},
	bpf.LoadAbsolute{Off: sizeEthernet + 6, Size: 1}, // next header
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.IPPROTO_UDP, SkipTrue: 5},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_ICMPV6, SkipTrue: 7},
	bpf.LoadAbsolute{Off: sizeEthernet + 7, Size: 1}, // hop limit
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: hopLimit, SkipTrue: 5},
	bpf.LoadAbsolute{Off: sizeEthernet + 40, Size: 1}, // type
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: routerSolicitation, SkipTrue: 2, SkipFalse: 3},
	bpf.LoadAbsolute{Off: sizeEthernet + sizeIPv6 + 2, Size: 2}, // UDP's destination
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: portDHCP6Server, SkipTrue: 1},
	bpf.RetConstant{Val: largestFrame},
	bpf.RetConstant{Val: verdictDrop},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_IP, SkipTrue: 5},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_ARP, SkipTrue: 11},
	bpf.LoadAbsolute{Off: sizeEthernet + 6, Size: 2}, // operation
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: arpReply, SkipTrue: 9},
	bpf.LoadAbsolute{Off: sizeEthernet + 24, Size: 4}, // target
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 8, SkipFalse: 7},
	bpf.LoadAbsolute{Off: sizeEthernet + 9, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 5},
	bpf.LoadAbsolute{Off: sizeEthernet + 6, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: 0x3fff, SkipTrue: 3}, // a fragment
	bpf.LoadMemShift{Off: sizeEthernet},
	bpf.LoadIndirect{Off: sizeEthernet + 2, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: portDHCPServer, SkipTrue: 1},
	bpf.RetConstant{Val: verdictDrop},
	bpf.RetConstant{Val: largestFrame},
}
