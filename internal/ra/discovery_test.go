package ra

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestBothEndsFindEachOther(t *testing.T) {
	t.Parallel()
	a, b := newHost(t), newHost(t)
	portA, portB := cable(a, "eth1", b, "eth1")
	x, y := a.discover(portA), b.discover(portB)
	expect(t, x, "eth1", portB.Addr)
	expect(t, y, "eth1", portA.Addr)
}

func TestTentativeAddress(t *testing.T) {
	t.Parallel()
	a, b := newHost(t), newHost(t)
	_, portB := cable(a, "eth1", b, "eth1")
	must(t, a.nl.LinkSetDown(a.link("eth1")))
	portA := a.up("eth1", true)
	x, y := a.discover(portA), b.discover(portB)
	expect(t, y, "eth1", portA.Addr)
	expect(t, x, "eth1", portB.Addr)
}

func TestPortVanishesAndComesBack(t *testing.T) {
	t.Parallel()
	a, b, c := newHost(t), newHost(t), newHost(t)
	portA, portB := cable(a, "eth1", b, "eth1")
	x := a.discover(portA)
	b.discover(portB)
	expect(t, x, "eth1", portB.Addr)

	must(t, a.nl.LinkDel(a.link("eth1")))
	expect(t, x, "eth1") // found by itself

	portA, portC := cable(a, "eth1", c, "eth1")
	c.discover(portC)
	x.SetPorts([]Port{portA})
	expect(t, x, "eth1", portC.Addr)
	x.SetPorts(nil)
	expect(t, x, "eth1")
}

// A port that is set once and unchanged must come back when its device moves
// away and returns with the index that it had.
func TestUnchangedPortStartsAgain(t *testing.T) {
	t.Parallel()
	a, b, away := newHost(t), newHost(t), newHost(t)
	portA, portB := cable(a, "eth1", b, "eth1")
	x := a.discover(portA)
	b.discover(portB)
	expect(t, x, "eth1", portB.Addr)
	must(t, a.nl.LinkSetNsFd(a.link("eth1"), away.ns.Fd()))
	expect(t, x, "eth1")
	must(t, away.nl.LinkSetNsFd(away.link("eth1"), a.ns.Fd()))
	if back := a.up("eth1", false); !back.Equal(portA) {
		t.Fatalf("came back as %+v, was %+v", back, portA)
	}
	x.SetPorts([]Port{portA})
	expect(t, x, "eth1", portB.Addr)
}

// A port that loses its carrier for a moment is discovered anew, also when that
// was too short to be looked at.
func TestPortThatIsOutForAMoment(t *testing.T) {
	t.Parallel()
	a, b := newHost(t), newHost(t)
	portA, portB := cable(a, "eth1", b, "eth1")
	x := a.discover(portA)
	b.discover(portB)
	expect(t, x, "eth1", portB.Addr)
	for range 5 {
		x.SetPorts(nil)
		x.SetPorts([]Port{portA})
		expect(t, x, "eth1", portB.Addr)
	}
}

// On a bridge there may be a third, and a machine may be taken away while the
// port keeps its carrier.
func TestNeighborsOnABridge(t *testing.T) {
	t.Parallel()
	sw := newHost(t)
	bridge := sw.bridge()
	var ports []Port
	var all []*host
	for i := range 3 {
		h := newHost(t)
		port, out := cable(h, "eth1", sw, fmt.Sprintf("out%d", i))
		must(t, sw.nl.LinkSetMaster(sw.link(out.Name), bridge))
		ports, all = append(ports, port), append(all, h)
	}
	x := all[0].discover(ports[0])
	all[1].discover(ports[1])
	expect(t, x, "eth1", ports[1].Addr)
	all[2].discover(ports[2])
	expect(t, x, "eth1", ports[1].Addr, ports[2].Addr)
	must(t, sw.nl.LinkSetNoMaster(sw.link("out1")))
	expect(t, x, "eth1", ports[2].Addr)
}

func TestLoop(t *testing.T) {
	t.Parallel()
	a, sw := newHost(t), newHost(t)
	port, out := cable(a, "eth1", sw, "out")
	must(t, sw.nl.LinkSetMaster(sw.link(out.Name), sw.bridge()))
	must(t, sw.nl.LinkSetHairpin(sw.link(out.Name), true))
	x := a.discover(port)
	await(t, x, "eth1", "a loop and nobody", func(n Neighbors) bool { return n.Looped && len(n.Neighbors) == 0 })
}

// Two sockets on one port hear each other's multicast inside the machine.
func TestOwnMulticastIsNoLoop(t *testing.T) {
	t.Parallel()
	a, b := newHost(t), newHost(t)
	portA, portB := cable(a, "eth1", b, "eth1")
	x := a.discover(portA)
	y := b.discover(portB)
	expect(t, y, "eth1", portA.Addr)
	expect(t, x, "eth1", portB.Addr)
	var other *socket
	a.do(func() (err error) {
		other, err = openSocket(portA)
		return err
	})
	defer other.close()
	a.do(func() error {
		return controlSetsockopt(other, unix.IPV6_MULTICAST_LOOP, 1)
	})
	message, err := advertise(portA.MAC)
	must(t, err)
	must(t, other.send(message, allNodes))
	b.sender(portB).send(frame(portA, netip.MustParseAddr("fe80::abcd"), 255, bareAdvertisement))
	await(t, x, "eth1", "no loop", func(n Neighbors) bool {
		if n.Looped {
			t.Error("took what it heard from its own machine for a loop")
		}
		return len(n.Neighbors) == 2
	})
}

func controlSetsockopt(s *socket, option, value int) error {
	var err error
	if controlErr := s.conn.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, option, value)
	}); controlErr != nil {
		return controlErr
	}
	return err
}

// What RFC 4861 §6.1.2 says must be discarded.
func TestUnsoundIsIgnored(t *testing.T) {
	t.Parallel()
	a, b := newHost(t), newHost(t)
	portA, portB := cable(a, "eth1", b, "eth1")
	x := a.discover(portA)
	b.discover(portB)
	expect(t, x, "eth1", portB.Addr)
	wire := b.sender(portB)
	bad := netip.MustParseAddr("fe80::bad")
	for _, tt := range []struct {
		name     string
		source   netip.Addr
		hopLimit int
		message  []byte
	}{
		{"forwarded by a router", bad, 254, bareAdvertisement},
		{"not link-local", netip.MustParseAddr("2001:db8::1"), 255, bareAdvertisement},
		{"cut short", bad, 255, bareAdvertisement[:12]},
		{"code 1", bad, 255, append([]byte{134, 1}, bareAdvertisement[2:]...)},
		{"option of length zero", bad, 255, append(slices.Clone(bareAdvertisement), 1, 0, 0, 0, 0, 0, 0, 0)},
		{"another type", bad, 255, append([]byte{136}, bareAdvertisement[1:]...)},
	} {
		t.Log(tt.name)
		wire.send(frame(portA, tt.source, tt.hopLimit, tt.message))
	}
	sound := netip.MustParseAddr("fe80::abcd")
	wire.send(frame(portA, sound, 255, bareAdvertisement))
	expectNext(t, x, Neighbors{Port: "eth1", Neighbors: []Neighbor{{Addr: portB.Addr}, {Addr: sound}}})
}

func expectNext(t *testing.T, d *Discovery, want Neighbors) {
	t.Helper()
	select {
	case n := <-d.Events():
		if n.Port != want.Port || !slices.Equal(addrs(n), addrs(want)) {
			t.Errorf("told %+v, want %+v", n, want)
		}
	case <-time.After(patience):
		t.Errorf("nothing told, want %+v", want)
	}
}

// During a flood from forged sources the neighbour that was there stays, the
// other port finds its own, and memory stays what it was.
func TestFlood(t *testing.T) {
	t.Parallel()
	a, b := newHost(t), newHost(t)
	portA, portB := cable(a, "eth1", b, "eth1")
	otherA, otherB := cable(a, "eth2", b, "eth2")
	x := a.discover(portA, otherA)
	b.discover(portB)
	expect(t, x, "eth1", portB.Addr)
	before := heap()

	ctx, stop := context.WithCancel(context.Background())
	var flood sync.WaitGroup
	wire := b.sender(portB)
	flood.Go(func() { t.Log("messages in the flood:", wire.flood(ctx, portA, bareAdvertisement)) })
	defer flood.Wait()
	defer stop()
	await(t, x, "eth1", "a full table", func(n Neighbors) bool { return len(n.Neighbors) == maxNeighbors })
	b.discover(otherB)
	expect(t, x, "eth2", otherB.Addr)

	// Long enough for those in doubt to be forgotten, twice.
	end := time.After(2*doubt + time.Second)
	for events := 0; ; events++ {
		select {
		case n := <-x.Events():
			if n.Port == "eth1" && (len(n.Neighbors) == 0 || n.Neighbors[0].Addr != portB.Addr) {
				t.Fatalf("the flood pushed out the neighbour: %+v", n)
			}
			continue
		case <-end:
		}
		if events > 50 {
			t.Errorf("%d events: the flood gets through to the consumer", events)
		}
		break
	}
	if grown := int64(heap()) - int64(before); grown > 4<<20 {
		t.Errorf("heap grew by %d bytes", grown)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
