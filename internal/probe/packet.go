package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"frond/internal/netns"
)

// openPacket opens a packet socket (packet(7)) for the frames of a protocol,
// an EtherType, that pass the filter, on all interfaces of a namespace. kind
// is unix.SOCK_RAW, or unix.SOCK_DGRAM for frames without link-layer headers.
func openPacket(ns *netns.NS, kind int, protocol uint16, filter []bpf.Instruction) (*os.File, error) {
	var socket *os.File
	err := ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		socket = os.NewFile(uintptr(fd), "packet")
		if err := attachFilter(fd, filter); err != nil {
			return err
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, packetBuffer)
		network := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, protocol))
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: network})
	})
	if err != nil {
		if socket != nil {
			_ = socket.Close()
		}
		return nil, fmt.Errorf("listen to packets in %s: %w", ns.Name(), err)
	}
	return socket, nil
}

// packetBuffer is octets of frames that wait to be read.
const packetBuffer = 1 << 20

func attachFilter(fd int, filter []bpf.Instruction) error {
	assembled, err := bpf.Assemble(filter)
	if err != nil {
		return fmt.Errorf("assemble a filter: %w", err)
	}
	program := make([]unix.SockFilter, len(assembled))
	for i, in := range assembled {
		program[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// match is a number that a frame has at an offset.
type match struct{ offset, size, value uint32 }

// matching is a filter that passes the first octets of frames that have all
// of these.
func matching(octets uint32, all ...match) []bpf.Instruction {
	var filter []bpf.Instruction
	for _, m := range all {
		filter = append(filter,
			bpf.LoadAbsolute{Off: m.offset, Size: int(m.size)},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: m.value, SkipTrue: 1},
			bpf.RetConstant{Val: 0})
	}
	return append(filter, bpf.RetConstant{Val: octets})
}

// leaving matches what a VTEP sends out in VXLAN of a VNI, from local, an IPv4
// address.
func leaving(local netip.Addr, vni uint32) []match {
	source := local.As4()
	return []match{
		{offsetEtherType, 2, unix.ETH_P_IP},
		{offsetIP, 1, 0x45},
		{offsetIPProtocol, 1, unix.IPPROTO_UDP},
		{offsetIPSource, 4, binary.BigEndian.Uint32(source[:])},
		{offsetUDPTo, 2, portVXLAN},
		{offsetVNI, 4, vni << 8},
	}
}

// drain reads what has come in by a packet socket, frame by frame into buf, and
// tells how many octets of each there are.
func drain(socket *os.File, buf []byte, take func(n int)) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	var readErr error
	err = raw.Control(func(fd uintptr) {
		for {
			n, _, err := unix.Recvfrom(int(fd), buf, 0)
			switch {
			case errors.Is(err, unix.EAGAIN):
				return
			case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENETDOWN): // of one interface
			case err != nil:
				readErr = err
				return
			default:
				take(n)
			}
		}
	})
	return errors.Join(err, readErr)
}
