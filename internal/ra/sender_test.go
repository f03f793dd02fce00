package ra

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bareAdvertisement is a router advertisement with lifetime 0, without options.
var bareAdvertisement = []byte{134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// frame builds an Ethernet frame with an ICMPv6 message to all nodes.
func frame(to Port, source netip.Addr, hopLimit int, message []byte) []byte {
	destination := allNodes.As16()
	from := source.As16()
	message = bytes.Clone(message)
	pseudo := append(append(from[:], destination[:]...), 0, 0, 0, byte(len(message)), 0, 0, 0, 58)
	binary.BigEndian.PutUint16(message[2:], checksum(append(pseudo, message...)))
	b := append([]byte{0x33, 0x33, 0, 0, 0, 1}, to.MAC...)
	b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(message)), 58, byte(hopLimit))
	b = append(b, from[:16]...)
	b = append(b, destination[:]...)
	return append(b, message...)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// sender puts frames on a host's port, whatever they contain.
type sender struct {
	t    *testing.T
	fd   int
	from Port
}

func (h *host) sender(p Port) *sender {
	h.t.Helper()
	s := &sender{t: h.t, from: p}
	h.do(func() (err error) {
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	h.t.Cleanup(func() { must(h.t, unix.Close(s.fd)) })
	return s
}

func (s *sender) send(b []byte) {
	to := &unix.SockaddrLinklayer{Ifindex: s.from.Index, Protocol: 0xdd86}
	for {
		err := unix.Sendto(s.fd, b, 0, to)
		if err != unix.ENOBUFS && err != unix.EINTR {
			if err != nil {
				s.t.Error(err)
			}
			return
		}
	}
}

// flood sends 10,000 messages a second until ctx ends, from sources of which
// every 25 ms a new one appears. The kernel remembers every source of an
// advertisement in the one table that all namespaces share, so entirely random
// ones would take the neighbours of everybody else on the machine.
func (s *sender) flood(ctx context.Context, to Port, message []byte) (sent int) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	source := netip.MustParseAddr("fe80::1:0:0:0").As16()
	const perTick, perSource, abreast = 10, 250, 40
	for {
		select {
		case <-ctx.Done():
			return sent
		case <-tick.C:
		}
		for range perTick {
			sent++
			binary.BigEndian.PutUint32(source[12:], uint32(sent/perSource+sent%abreast+1))
			s.send(frame(to, netip.AddrFrom16(source), 255, message))
		}
	}
}
