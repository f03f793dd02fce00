package advertise

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// readBuffer is what a flood of questions may occupy, octets.
const readBuffer = 16 << 10

// questionFilter passes router solicitations and what is for DHCPv6 servers;
// the rest costs no copy.
func questionFilter() []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetEtherType, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IPV6, SkipTrue: 9},
		bpf.LoadAbsolute{Off: offsetNextHeader, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: udp, SkipTrue: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: icmpv6, SkipTrue: 6},
		bpf.LoadAbsolute{Off: sizeHeaders, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: icmpSolicitation, SkipTrue: 4},
		bpf.RetConstant{Val: maxQuestion},
		bpf.LoadAbsolute{Off: sizeHeaders + 2, Size: 2}, // destination port
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: serverPort, SkipTrue: 1},
		bpf.RetConstant{Val: maxQuestion},
		bpf.RetConstant{Val: 0},
	}
}

// socket is a packet(7) socket on one link. What it sends leaves by that link
// as it is; of what the link receives it hears questions.
type socket struct {
	file *os.File // nonblocking, so that deadlines interrupt reads
	conn syscall.RawConn
	buf  [maxQuestion]byte
}

// openSocket opens a socket in the network namespace of the calling thread. A
// link that does not exist is an error that wraps unix.ENODEV.
func openSocket(link Link) (*socket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket for %s: %w", link.Name, err)
	}
	if err := configure(fd, link); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("configure packet socket for %s: %w", link.Name, err)
	}
	s := &socket{file: os.NewFile(uintptr(fd), "advertise "+link.Name)}
	if s.conn, err = s.file.SyscallConn(); err != nil {
		s.close()
		return nil, fmt.Errorf("open packet socket for %s: %w", link.Name, err)
	}
	return s, nil
}

func configure(fd int, link Link) error {
	raw, err := bpf.Assemble(questionFilter())
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
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, readBuffer); err != nil {
		return fmt.Errorf("SO_RCVBUF: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return fmt.Errorf("PACKET_IGNORE_OUTGOING: %w", err)
	}
	// Bound last: nothing that the filter has not seen is ever heard. A bridge
	// takes frames of its ports before anybody else but who wants everything.
	everything := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: link.Index}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// receive waits for a question, which is valid until the next receive.
// After deadline the error wraps os.ErrDeadlineExceeded, after close
// os.ErrClosed.
func (s *socket) receive() ([]byte, error) {
	var n int
	var err error
	waitErr := s.conn.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), s.buf[:], unix.MSG_DONTWAIT)
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	})
	if waitErr != nil {
		return nil, waitErr
	}
	if err != nil {
		return nil, fmt.Errorf("recvfrom: %w", err)
	}
	return s.buf[:n], nil
}

// wakeAt ends receive at a time, whoever calls it.
func (s *socket) wakeAt(deadline time.Time) error { return s.file.SetReadDeadline(deadline) }

// send sends a frame or fails at once.
func (s *socket) send(frame []byte) error {
	var err error
	writeErr := s.conn.Write(func(fd uintptr) bool {
		_, err = unix.Write(int(fd), frame)
		return true
	})
	if writeErr != nil {
		return writeErr
	}
	if err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

func (s *socket) close() { _ = s.file.Close() }
