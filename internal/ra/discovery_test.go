package ra

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"

	"frond/internal/netns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTable(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	addr := func(n int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("fe80::%x", n+1)) }
	var tb table
	if !tb.hear(addr(0), at(0)) || tb.hear(addr(0), at(1)) {
		t.Error("a neighbour is new once")
	}
	for n := 1; n < 1000; n++ { // a flood
		if !tb.hear(addr(n), at(2)) {
			t.Fatal("a neighbour is new once")
		}
	}
	if len(tb) != maxNeighbors || tb[0].Addr != addr(0) || tb[maxNeighbors-1].Addr != addr(999) {
		t.Errorf("after the flood: %v", tb)
	}
	if tb.expire(at(1).Add(Lifetime - 1)) {
		t.Error("expired too early")
	}
	if !tb.expire(at(1).Add(Lifetime)) || len(tb) != maxNeighbors-1 {
		t.Error("the first did not expire")
	}
	if !tb.next().Equal(at(2).Add(Lifetime)) {
		t.Error("the rest expire at", tb.next())
	}
}

func TestLimiter(t *testing.T) {
	l := limiter{known: make(map[source]time.Time)}
	now := time.Unix(100, 0)
	me := source{addr: netip.MustParseAddr("fe80::1")}
	if !l.allow(me, now) || l.allow(me, now) || !l.allow(source{me.addr, true}, now) {
		t.Error("once of each kind in one moment")
	}
	allowed := 0
	for i := range 100_000 {
		if l.allow(source{addr: netip.MustParseAddr(fmt.Sprintf("fe80::2:%x", i%60_000))}, now) {
			allowed++
		}
	}
	if allowed > freshRate || len(l.known) > knownSize {
		t.Errorf("%d of a flood allowed, %d remembered", allowed, len(l.known))
	}
	if !l.allow(me, now.Add(knownGap)) {
		t.Error("a known neighbour must be heard in a flood")
	}
}

// In tests, a Discovery's sockets are opened by goroutines, so each runs in
// the namespace of the process: the far ends of the cables are others'.
// Here both ends are in one namespace, which link-local scope allows.
func cable(t *testing.T, a, b string) (Port, Port) {
	t.Helper()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: a}, PeerName: b}
	must(t, netlink.LinkAdd(veth))
	return up(t, a), up(t, b)
}

func up(t *testing.T, name string) Port {
	t.Helper()
	must(t, os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/accept_dad", []byte("0"), 0))
	link, err := netlink.LinkByName(name)
	must(t, err)
	must(t, netlink.LinkSetUp(link))
	hw := link.Attrs().HardwareAddr
	addr, _ := netip.AddrFromSlice(net.IP{0xfe, 0x80, 0, 0, 0, 0, 0, 0, hw[0] ^ 2, hw[1], hw[2], 0xff, 0xfe, hw[3], hw[4], hw[5]})
	return Port{Name: name, Index: link.Attrs().Index, Addr: addr, MAC: hw}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// isolated reruns the test in a process of its own inside a fresh network
// namespace, and returns true there.
func isolated(t *testing.T) bool {
	t.Helper()
	if os.Getenv("FROND_TEST_ISOLATED") == t.Name() {
		return true
	}
	name := fmt.Sprintf("ra%d-%s", os.Getpid(), t.Name())
	must(t, netns.Create(name))
	defer func() { must(t, netns.Delete(name)) }()
	ns, err := netns.Open(name)
	must(t, err)
	defer func() { must(t, ns.Close()) }()
	cmd := testCommand(t)
	out := &output{t: t}
	cmd.Stdout, cmd.Stderr = out, out
	must(t, ns.Start(cmd))
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	return false
}

func run(t *testing.T) *Discovery {
	t.Helper()
	d := New(slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		must(t, <-done)
	})
	return d
}

// expect waits until a port's neighbours are exactly these.
func expect(t *testing.T, d *Discovery, port string, want ...netip.Addr) {
	t.Helper()
	limit := time.After(10 * time.Second)
	var last []Neighbor
	for {
		select {
		case n := <-d.Events():
			if n.Port != port {
				continue
			}
			last = n.Neighbors
			same := len(last) == len(want)
			for i := range min(len(last), len(want)) {
				same = same && last[i].Addr == want[i]
			}
			if same {
				return
			}
		case <-limit:
			t.Fatalf("%s: last heard %v, want %v", port, last, want)
		}
	}
}

func TestBothEndsFindEachOther(t *testing.T) {
	if !isolated(t) {
		return
	}
	a, b := cable(t, "eth1", "eth2")
	x, y := run(t), run(t)
	x.SetPorts([]Port{a})
	y.SetPorts([]Port{b})
	expect(t, x, "eth1", b.Addr)
	expect(t, y, "eth2", a.Addr)

	// The port vanishes, and comes back with another end.
	link, err := netlink.LinkByName("eth1")
	must(t, err)
	must(t, netlink.LinkDel(link))
	x.SetPorts(nil)
	expect(t, x, "eth1")
	a, c := cable(t, "eth1", "eth3")
	x.SetPorts([]Port{a})
	y.SetPorts([]Port{c})
	expect(t, x, "eth1", c.Addr)
}

func TestSomebodyThirdOnTheCable(t *testing.T) {
	if !isolated(t) {
		return
	}
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}
	must(t, netlink.LinkAdd(bridge))
	must(t, netlink.LinkSetUp(bridge))
	var ports []Port
	for i := range 3 {
		inner, outer := cable(t, fmt.Sprintf("eth%d", i), fmt.Sprintf("out%d", i))
		link, err := netlink.LinkByName(outer.Name)
		must(t, err)
		must(t, netlink.LinkSetMaster(link, bridge))
		ports = append(ports, inner)
	}
	x, y, z := run(t), run(t), run(t)
	x.SetPorts(ports[:1])
	y.SetPorts(ports[1:2])
	expect(t, x, "eth0", ports[1].Addr)
	z.SetPorts(ports[2:])
	expect(t, x, "eth0", ports[1].Addr, ports[2].Addr)
}

// TestFlood sends advertisements from random addresses as fast as it can.
func TestFlood(t *testing.T) {
	if !isolated(t) {
		return
	}
	a, b := cable(t, "eth1", "eth2")
	c, e := cable(t, "eth3", "eth4")
	x, y, z := run(t), run(t), run(t)
	x.SetPorts([]Port{a, c})
	y.SetPorts([]Port{b})
	expect(t, x, "eth1", b.Addr)
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	flood(t, b, a, 100_000)
	z.SetPorts([]Port{e})
	expect(t, x, "eth3", e.Addr) // the other port does not suffer
	var after runtime.MemStats
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 8<<20 {
		t.Errorf("heap grew by %d bytes", grown)
	}
}

func TestSound(t *testing.T) {
	if !isolated(t) {
		return
	}
	a, b := cable(t, "eth1", "eth2")
	x, y := run(t), run(t)
	x.SetPorts([]Port{a})
	y.SetPorts([]Port{b})
	expect(t, x, "eth1", b.Addr)
	for _, tt := range []struct {
		name     string
		hopLimit int
		body     []byte
	}{
		{"through a router", 254, advertisement},
		{"cut short", 255, advertisement[:12]},
		{"code 1", 255, append([]byte{134, 1}, advertisement[2:]...)},
	} {
		t.Log(tt.name)
		send(t, b, a, netip.MustParseAddr("fe80::bad"), tt.hopLimit, tt.body)
	}
	genuine := netip.MustParseAddr("fe80::abcd")
	send(t, b, a, genuine, 255, advertisement)
	expect(t, x, "eth1", b.Addr, genuine) // and nobody between them
}
