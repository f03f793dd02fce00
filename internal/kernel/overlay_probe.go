package kernel

import (
	"encoding/binary"
	"fmt"
	"os"

	"frond/internal/dataplane"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A probe is a frame from the bridge's MAC to the VXLAN device's. Nobody sends
// from there, so a bridge in between floods it; the own one takes it to be for
// its host, and no further. After the Ethernet
// header come a mark, the nonce of the sender, and the index of the port that
// it was sent by.
const (
	probeEtherType = 0x88b5 // for experiments of one's own (IEEE 802 §9.2.3)
	probeMark      = "frond loop"
	offsetNonce    = sizeEthernet + len(probeMark)
	offsetSentBy   = offsetNonce + 8
	sizeProbe      = 60 // the least that Ethernet carries, without its checksum
)

// loopProbe is a probe that has come back.
type loopProbe struct{ from, to uint32 }

// probeSocket sends and hears probes on one port.
type probeSocket struct {
	file  *os.File
	index uint32
	nonce [8]byte
}

var probeFilter = []bpf.Instruction{
	bpf.LoadAbsolute{Off: offsetEtherType, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: probeEtherType, SkipTrue: 1},
	bpf.RetConstant{Val: verdictDrop},
	bpf.RetConstant{Val: sizeProbe},
}

// openProbe begins to listen for probes with this nonce on a port.
func (w *OverlayWatch) openProbe(index uint32, nonce [8]byte, heard chan<- loopProbe) (*probeSocket, error) {
	file, err := w.kernel.openPacket(index, probeFilter)
	if err != nil {
		return nil, err
	}
	s := &probeSocket{file: file, index: index, nonce: nonce}
	w.work.Go(func() { s.listen(heard) })
	return s, nil
}

func (s *probeSocket) listen(heard chan<- loopProbe) {
	receiveAll(s.file, sizeProbe, func(frame []byte) {
		if from, ok := sentBy(frame, s.nonce); ok {
			select {
			case heard <- loopProbe{from, s.index}:
			default: // another one will come
			}
		}
	})
}

// sentBy returns the port that a probe was sent by, if it is one of ours.
func sentBy(frame []byte, nonce [8]byte) (uint32, bool) {
	if len(frame) < offsetSentBy+4 || string(frame[sizeEthernet:offsetNonce]) != probeMark || [8]byte(frame[offsetNonce:]) != nonce {
		return 0, false
	}
	return binary.BigEndian.Uint32(frame[offsetSentBy:]), true
}

// send sends a probe. One that cannot be sent is as one that is lost.
func (s *probeSocket) send(bridge, vxlan dataplane.MAC) {
	frame := make([]byte, 0, sizeProbe)
	frame = append(append(frame, vxlan[:]...), bridge[:]...)
	frame = binary.BigEndian.AppendUint16(frame, probeEtherType)
	frame = append(append(frame, probeMark...), s.nonce[:]...)
	frame = binary.BigEndian.AppendUint32(frame, s.index)
	raw, err := s.file.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.Sendto(int(fd), frame[:sizeProbe], unix.MSG_DONTWAIT, &unix.SockaddrLinklayer{Ifindex: int(s.index)})
	})
}

func (s *probeSocket) close() { _ = s.file.Close() }

// openPacket opens a packet(7) socket for what a port receives and the filter
// passes.
func (k *Kernel) openPacket(index uint32, filter []bpf.Instruction) (*os.File, error) {
	var fd int
	err := k.inside(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	socket := os.NewFile(uintptr(fd), "packet")
	if err := bindPacket(fd, index, filter); err != nil {
		_ = socket.Close()
		return nil, err
	}
	return socket, nil
}

func bindPacket(fd int, index uint32, filter []bpf.Instruction) error {
	program, err := bpf.Assemble(filter)
	if err != nil {
		return fmt.Errorf("assemble the filter: %w", err)
	}
	if err := attachFilter(fd, program); err != nil {
		return fmt.Errorf("attach the filter: %w", err)
	}
	// Before Linux 4.20 what leaves is seen too, which says nothing of guests
	// that the MAC would not tell.
	_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, tapBuffer)
	everything := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: everything, Ifindex: int(index)})
}
