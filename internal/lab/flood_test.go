package lab

import (
	"encoding/binary"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"frond/internal/status"
)

// raiseNeighborLimits makes room in the kernel's neighbour table, which all
// namespaces share and which an agent sees to on a machine of its own: the
// kernel notes the sender of every advertisement. The old limits come back.
func raiseNeighborLimits(t *testing.T) {
	t.Helper()
	for _, limit := range []struct{ name, value string }{{"gc_thresh3", "65536"}, {"gc_thresh2", "32768"}} {
		path := "/proc/sys/net/ipv6/neigh/default/" + limit.name
		old, err := os.ReadFile(path)
		must(t, err)
		must(t, os.WriteFile(path, []byte(limit.value), 0))
		t.Cleanup(func() { must(t, os.WriteFile(path, old, 0)) })
	}
}

// flood sends router advertisements out of a port, each from another
// address, at about 10,000 a second for the given time.
func (w *world) flood(node, port string, span time.Duration) (sent int) {
	w.t.Helper()
	const burst, pause = 100, 10 * time.Millisecond
	must(w.t, w.namespace(node).Do(func() error {
		ifi, err := net.InterfaceByName(port)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		to := &unix.SockaddrLinklayer{Ifindex: ifi.Index, Protocol: 0xdd86}
		for end := time.Now().Add(span); time.Now().Before(end); time.Sleep(pause) {
			for range burst {
				sent++
				if err := unix.Sendto(fd, advertisement(ifi.HardwareAddr, uint32(sent)), 0, to); err != nil && err != unix.ENOBUFS {
					return err
				}
			}
		}
		return nil
	}))
	return sent
}

// advertisement is a frame with a router advertisement (RFC 4861 §4.2) from
// the link-local address of that number.
func advertisement(mac net.HardwareAddr, number uint32) []byte {
	message := make([]byte, 16)
	message[0] = 134
	source := net.IP{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(source[12:], number)
	all := net.IP{0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}
	pseudo := append(append(append([]byte{}, source...), all...), 0, 0, 0, byte(len(message)), 0, 0, 0, 58)
	binary.BigEndian.PutUint16(message[2:], checksum(append(pseudo, message...)))
	frame := append([]byte{0x33, 0x33, 0, 0, 0, 1}, mac...)
	frame = append(frame, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(message)), 58, 255)
	return append(append(append(frame, source...), all...), message...)
}

// checksum is that of RFC 1071.
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

// TestAdvertisementFlood has one end of a cable advertise ten thousand
// routers a second: no session suffers, not even that cable's own, and the
// agent does not grow.
func TestAdvertisementFlood(t *testing.T) {
	raiseNeighborLimits(t)
	w := bring(t, "flood", SpineLeaf(2, 3))
	w.whole()
	agent, ok := w.AgentPID("leaf1")
	if !ok {
		t.Fatal("no agent")
	}
	before := residentMiB(t, agent)
	stop := w.traffic("leaf1", "leaf3")
	if sent := w.flood("spine1", "eth1", 3*time.Second); sent < 10_000 {
		t.Fatalf("only %d advertisements were sent: that is no flood", sent)
	}
	w.nothingLost(stop())
	w.eventually("leaf1", "its sessions, undisturbed", func(s status.Snapshot) bool {
		for _, p := range s.Peers {
			if p.State != "established" || p.Flaps > 0 {
				return false
			}
		}
		return len(s.Peers) == 2
	})
	w.eventually("leaf1", "that the cable is crowded", func(s status.Snapshot) bool {
		for _, c := range s.Conditions {
			if c.Subject == "eth1" && strings.Contains(c.Text, "neighbours on one cable") {
				return true
			}
		}
		return false
	})
	if grown := residentMiB(t, agent) - before; grown > 16 {
		t.Errorf("the agent grew by %.1f MiB", grown)
	}
}
