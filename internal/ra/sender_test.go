package ra

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// advertisement is a router advertisement with lifetime 0, without options.
var advertisement = []byte{134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

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

// wire opens a packet socket on a port and returns what sends frames there.
func wire(t *testing.T, from Port) func([]byte) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	must(t, err)
	t.Cleanup(func() { must(t, unix.Close(fd)) })
	to := &unix.SockaddrLinklayer{Ifindex: from.Index, Protocol: 0xdd86}
	return func(b []byte) {
		for {
			err := unix.Sendto(fd, b, 0, to)
			if err != unix.ENOBUFS && err != unix.EINTR {
				must(t, err)
				return
			}
		}
	}
}

func send(t *testing.T, from, to Port, source netip.Addr, hopLimit int, message []byte) {
	t.Helper()
	wire(t, from)(frame(to, source, hopLimit, message))
}

func flood(t *testing.T, from, to Port, count int) {
	t.Helper()
	put := wire(t, from)
	source := net.ParseIP("fe80::1:0:0:0")
	for i := range count {
		binary.BigEndian.PutUint32(source[12:], uint32(i))
		addr, _ := netip.AddrFromSlice(source)
		put(frame(to, addr, 255, advertisement))
	}
}

func testCommand(t *testing.T) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "FROND_TEST_ISOLATED="+t.Name())
	return cmd
}

// output shows what the isolated process prints with the test.
type output struct{ t *testing.T }

func (o *output) Write(b []byte) (int, error) {
	o.t.Logf("%s", b)
	return len(b), nil
}
