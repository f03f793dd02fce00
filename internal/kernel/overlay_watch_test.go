package kernel_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"frond/internal/dataplane"
	"frond/internal/netns"

	"golang.org/x/sys/unix"
)

// hears waits until what was told is as check wants it.
func (v *vtep) hears(check func(h *heard) error) {
	v.t.Helper()
	eventually(v.t, func() error {
		v.heard.mu.Lock()
		defer v.heard.mu.Unlock()
		return check(v.heard)
	})
}

func (v *vtep) hearsMAC(want dataplane.LocalMAC) {
	v.t.Helper()
	v.hears(func(h *heard) error {
		if got := h.macs[want.MAC]; got != want {
			return fmt.Errorf("heard %+v, want %+v", got, want)
		}
		return nil
	})
}

// TestGuestsOfARunBefore has a watch begin where the kernel knows addresses
// already: by frond's own entries and by what guests have said to it.
func TestGuestsOfARunBefore(t *testing.T) {
	t.Parallel()
	a, b := newVTEPs(t, 1)
	join(a, b)
	g1, g2 := a.guest(1), b.guest(2)
	g1.ping(g2.ip4.String())
	a.hearsMAC(dataplane.LocalMAC{VNI: 100, MAC: g1.mac, Port: g1.port})
	a.stop()
	ours, theirs := netip.MustParseAddr("172.16.0.77"), netip.MustParseAddr("172.16.0.78")
	a.ip("neigh replace %s lladdr %s dev br-blue nud noarp extern_learn protocol 102", ours, g1.mac)
	a.ip("neigh replace %s lladdr %s dev br-blue nud stale", theirs, g1.mac)
	a.ip("neigh replace 172.16.0.79 lladdr %s dev br-blue nud noarp extern_learn protocol 102", g2.mac)
	a.ip("neigh replace 172.16.0.80 lladdr %s dev br-blue nud failed", g1.mac)
	a.start()
	a.take([]dataplane.Segment{a.segment()})
	a.hears(func(h *heard) error {
		if want := []netip.Addr{ours, theirs}; !slices.Equal(h.atRead, want) {
			return fmt.Errorf("told of %v before it said that it has read all; want %v", h.atRead, want)
		}
		return nil
	})
}

func TestGuestsAreHeard(t *testing.T) {
	t.Parallel()
	a, b := newVTEPs(t, 1)
	join(a, b)
	g1, g2, g3 := a.guest(1), b.guest(2), a.guest(3)
	g1.ping(g2.ip4.String())
	g1.ping(g2.ip6.String())
	a.hearsMAC(dataplane.LocalMAC{VNI: 100, MAC: g1.mac, Port: g1.port})
	b.hearsMAC(dataplane.LocalMAC{VNI: 100, MAC: g2.mac, Port: g2.port})
	// One that only answers is heard as well as one that asks.
	for v, g := range map[*vtep]*guest{a: g1, b: g2} {
		for _, ip := range []netip.Addr{g.ip4, g.ip6} {
			v.hears(func(h *heard) error {
				want := dataplane.LocalAddress{VNI: 100, MAC: g.mac, IP: ip, Port: g.port}
				if got := h.addresses[ip]; got != want {
					return fmt.Errorf("heard %+v, want %+v", got, want)
				}
				return nil
			})
		}
	}
	// Nothing of the other node's.
	a.hears(func(h *heard) error {
		if _, mac := h.macs[g2.mac]; mac {
			t.Error("a guest of the other node is told of as a local one")
		}
		for _, ip := range []netip.Addr{g2.ip4, g2.ip6} {
			if _, told := h.addresses[ip]; told {
				t.Errorf("%s of the other node is told of as a local address", ip)
			}
		}
		return nil
	})

	// A gratuitous announcement, as after a move.
	command(t, "ip netns exec %s ip addr add 172.16.0.77/24 dev eth0", g3.name)
	g3.announce(netip.MustParseAddr("172.16.0.77"))
	a.hears(func(h *heard) error {
		if _, told := h.addresses[netip.MustParseAddr("172.16.0.77")]; !told {
			return fmt.Errorf("the announcement was not heard")
		}
		return nil
	})

	// To another port of the same node, by the guest's own MAC. From here on
	// nothing is sent from it but what is announced: kernels ask and answer
	// for their neighbours when they like.
	command(t, "ip -n %s link set eth0 address %s", g1.name, g3.mac)
	command(t, "ip netns exec %s sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1", g3.name)
	command(t, "ip -n %s link set eth0 address %s", g3.name, g1.mac)
	g3.announce(g1.ip4)
	a.hearsMAC(dataplane.LocalMAC{VNI: 100, MAC: g1.mac, Port: g3.port})

	// The kernel forgets.
	command(t, "bridge -n %s fdb del %s dev %s master", a.name, g1.mac, g3.port)
	a.hearsMAC(dataplane.LocalMAC{VNI: 100, MAC: g1.mac, Port: g3.port, Aged: true})

	// The operator puts a guest where it is for good, and takes that back.
	command(t, "bridge -n %s fdb replace %s dev %s master static", a.name, g1.mac, g3.port)
	a.hearsMAC(dataplane.LocalMAC{VNI: 100, MAC: g1.mac, Port: g3.port, Sticky: true})
	command(t, "bridge -n %s fdb replace %s dev %s master dynamic", a.name, g1.mac, g3.port)
	a.hearsMAC(dataplane.LocalMAC{VNI: 100, MAC: g1.mac, Port: g3.port})
	command(t, "bridge -n %s fdb replace %s dev %s master dynamic sticky", a.name, g1.mac, g3.port)
	a.hearsMAC(dataplane.LocalMAC{VNI: 100, MAC: g1.mac, Port: g3.port, Sticky: true})
	command(t, "bridge -n %s fdb del %s dev %s master", a.name, g1.mac, g3.port)
	a.hearsMAC(dataplane.LocalMAC{VNI: 100, MAC: g1.mac, Port: g3.port, Aged: true})

	// A port goes.
	a.ip("link del %s", g3.port)
	a.hears(func(h *heard) error {
		if len(h.gone) != 1 || h.gone[0] != (dataplane.LocalPort{VNI: 100, Port: g3.port}) {
			return fmt.Errorf("ports gone: %v, want %s", h.gone, g3.port)
		}
		return nil
	})
	a.ip("link set %s nomaster", g1.port)
	a.hears(func(h *heard) error {
		if len(h.gone) != 2 || h.gone[1].Port != g1.port {
			return fmt.Errorf("ports gone: %v, want %s", h.gone, g1.port)
		}
		return nil
	})
}

// send puts a frame on a guest's wire.
func (g *guest) send(frames ...[]byte) {
	g.t.Helper()
	ns, err := netns.Open(g.name)
	if err != nil {
		g.t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	err = ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		for _, frame := range frames {
			err = unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: eth0.Index})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		g.t.Fatal(err)
	}
}

// announce sends a gratuitous ARP request (RFC 5944 §4.6).
func (g *guest) announce(ip netip.Addr) {
	g.t.Helper()
	fields := strings.Fields(command(g.t, "ip -n %s -o link show eth0", g.name))
	var mac dataplane.MAC
	for i, field := range fields {
		if field == "link/ether" {
			mac, _ = dataplane.ParseMAC(fields[i+1])
		}
	}
	g.send(arp(mac, ip, ip))
}

// arp is a request for target.
func arp(mac dataplane.MAC, ip, target netip.Addr) []byte {
	frame := append([]byte{255, 255, 255, 255, 255, 255}, mac[:]...)
	frame = binary.BigEndian.AppendUint16(frame, unix.ETH_P_ARP)
	frame = append(frame, 0, 1, 8, 0, 6, 4, 0, 1)
	frame = append(append(frame, mac[:]...), ip.AsSlice()...)
	frame = append(append(frame, 0, 0, 0, 0, 0, 0), target.AsSlice()...)
	return append(frame, make([]byte, 18)...)
}

// Guests that are there before anybody watches, and after a restart.
func TestGuestsThatWereThere(t *testing.T) {
	t.Parallel()
	a, b := newVTEPs(t, 1)
	join(a, b)
	g := a.guest(1)
	eventually(t, func() error {
		g.announce(g.ip4)
		if got := a.fdb(g.port); !strings.Contains(got, g.mac.String()+" master") {
			return fmt.Errorf("the bridge knows %s", got)
		}
		return nil
	})
	a.stop()
	a.start()
	a.take([]dataplane.Segment{a.segment()})
	a.hearsMAC(dataplane.LocalMAC{VNI: 100, MAC: g.mac, Port: g.port})
	// The segment is left, and joined again.
	a.take(nil)
	a.hears(func(h *heard) error {
		if len(h.gone) != 1 {
			return fmt.Errorf("ports gone: %v, want %s", h.gone, g.port)
		}
		clear(h.macs)
		return nil
	})
	a.take([]dataplane.Segment{a.segment()})
	a.settle()
	a.ip("link set %s master br-blue", g.port)
	eventually(t, func() error {
		g.announce(g.ip4)
		a.heard.mu.Lock()
		defer a.heard.mu.Unlock()
		if got := a.heard.macs[g.mac]; got.Port != g.port {
			return fmt.Errorf("heard %+v", got)
		}
		return nil
	})
}

// A guest that floods the bridge with MACs is named; others are heard on.
func TestFloodOfMACs(t *testing.T) {
	t.Parallel()
	a, b := newVTEPs(t, 1)
	join(a, b)
	bad, good := a.guest(1), a.guest(2)
	eventually(t, func() error {
		bad.announce(bad.ip4)
		a.heard.mu.Lock()
		defer a.heard.mu.Unlock()
		if _, ok := a.heard.macs[bad.mac]; !ok {
			return fmt.Errorf("the guest is not heard")
		}
		return nil
	})
	const flood = 50000
	frames := make([][]byte, flood)
	for i := range frames {
		frames[i] = arp(mac(i), netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}), good.ip4)
	}
	bad.send(frames...)
	a.hears(func(h *heard) error {
		if got := h.overflows[bad.port]; !got.Over || got.Limit != 10 || got.VNI != 100 {
			return fmt.Errorf("overflow told: %+v", got)
		}
		return nil
	})
	good.announce(good.ip4)
	eventually(t, func() error {
		good.announce(good.ip4)
		a.heard.mu.Lock()
		defer a.heard.mu.Unlock()
		if got := a.heard.macs[good.mac]; got.Port != good.port {
			return fmt.Errorf("another guest is not heard: %+v", got)
		}
		return nil
	})
	a.hears(func(h *heard) error {
		there := 0
		for _, local := range h.macs {
			if local.Port == bad.port && !local.Aged {
				there++
			}
		}
		if there > 10 {
			return fmt.Errorf("%d MACs of the port are told of, want 10 at most", there)
		}
		if local := h.macs[bad.mac]; local.Aged {
			t.Error("the flood has pushed out what was known")
		}
		return nil
	})
	// The flood is over.
	a.ip("link set %s type bridge_slave fdb_flush", bad.port)
	a.hears(func(h *heard) error {
		if got := h.overflows[bad.port]; got.Over {
			return fmt.Errorf("overflow told still: %+v", got)
		}
		return nil
	})
}
