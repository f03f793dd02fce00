package kernel_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"frond/internal/dataplane"
	"frond/internal/kernel"
	"frond/internal/netns"
)

// vtep is a node of a small fabric: a network namespace, its kernel and an
// overlay at work on it.
type vtep struct {
	*dataplane.Overlay
	t       testing.TB
	name    string
	address netip.Addr
	kernel  *kernel.Kernel
	target  *countedOverlay
	watch   *kernel.OverlayWatch
	heard   *heard
	stop    func()
}

// heard is what a watch has told, taken together.
type heard struct {
	mu        sync.Mutex
	macs      map[dataplane.MAC]dataplane.LocalMAC
	addresses map[netip.Addr]dataplane.LocalAddress
	gone      []dataplane.LocalPort
	overflows map[string]dataplane.LocalOverflow
	loops     map[string]dataplane.LocalLoop
	drifts    int
	// atRead are the addresses that had been told when LocalRead was; nil: it was not.
	atRead []netip.Addr
}

func newHeard() *heard {
	return &heard{
		macs:      make(map[dataplane.MAC]dataplane.LocalMAC),
		addresses: make(map[netip.Addr]dataplane.LocalAddress),
		overflows: make(map[string]dataplane.LocalOverflow),
		loops:     make(map[string]dataplane.LocalLoop),
	}
}

func (h *heard) note(event dataplane.OverlayEvent) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch event := event.(type) {
	case dataplane.LocalMACs:
		for _, local := range event {
			h.macs[local.MAC] = local
		}
	case dataplane.LocalAddresses:
		for _, local := range event {
			h.addresses[local.IP] = local
		}
	case dataplane.LocalPortsGone:
		h.gone = append(h.gone, event...)
	case dataplane.LocalOverflows:
		for _, overflow := range event {
			h.overflows[overflow.Port] = overflow
		}
	case dataplane.LocalLoops:
		for _, loop := range event {
			h.loops[loop.Port] = loop
		}
	case dataplane.LocalRead:
		h.atRead = slices.SortedFunc(maps.Keys(h.addresses), netip.Addr.Compare)
	case dataplane.OverlayDrifted:
		h.drifts++
	}
}

// countedOverlay counts what is applied.
type countedOverlay struct {
	dataplane.OverlayTarget
	mu  sync.Mutex
	ops []dataplane.OverlayOp
}

func (c *countedOverlay) ApplyOverlay(ctx context.Context, ops []dataplane.OverlayOp) []dataplane.OpError {
	c.mu.Lock()
	c.ops = append(c.ops, ops...)
	c.mu.Unlock()
	return c.OverlayTarget.ApplyOverlay(ctx, ops)
}

func (c *countedOverlay) take() []dataplane.OverlayOp {
	c.mu.Lock()
	defer c.mu.Unlock()
	ops := c.ops
	c.ops = nil
	return ops
}

func namespace(t testing.TB, purpose string) string {
	t.Helper()
	name := fmt.Sprintf("kernel-%d-%d-%s", os.Getpid(), spaces.Add(1), purpose)
	if err := netns.Create(name); err != nil {
		t.Fatalf("these tests run as root and make network namespaces: %v", err)
	}
	t.Cleanup(func() {
		if err := netns.Delete(name); err != nil {
			t.Error(err)
		}
	})
	return name
}

func command(t testing.TB, line string, args ...any) string {
	t.Helper()
	fields := strings.Fields(fmt.Sprintf(line, args...))
	out, err := exec.Command(fields[0], fields[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(fields, " "), err, out)
	}
	return string(out)
}

// newVTEPs makes two nodes with so many cables between them, static routes
// over all of them, and flows spread.
func newVTEPs(t testing.TB, cables int) (a, b *vtep) {
	t.Helper()
	a = &vtep{t: t, name: namespace(t, "a"), address: netip.MustParseAddr("10.0.0.1")}
	b = &vtep{t: t, name: namespace(t, "b"), address: netip.MustParseAddr("10.0.0.2")}
	legs := make(map[*vtep]string)
	for i := range cables {
		command(t, "ip -n %s link add up%d mtu 9000 type veth peer name up%d mtu 9000 netns %s", a.name, i, i, b.name)
		for n, v := range []*vtep{a, b} {
			v.ip("link set up%d up", i)
			v.ip("addr add 192.0.2.%d/31 dev up%d", 2*i+n, i)
			legs[v] += fmt.Sprintf(" nexthop via 192.0.2.%d", 2*i+1-n)
		}
	}
	for _, v := range []*vtep{a, b} {
		other := map[*vtep]*vtep{a: b, b: a}[v]
		v.ip("link set lo up")
		v.ip("addr add %s/32 dev lo", v.address)
		v.ip("route add %s/32 src %s%s", other.address, v.address, legs[v])
		command(t, "ip netns exec %s sysctl -qw net.ipv4.fib_multipath_hash_policy=1", v.name)
		v.kernel = openKernel(t, v.name)
		v.start()
	}
	return a, b
}

func openKernel(t testing.TB, name string) *kernel.Kernel {
	t.Helper()
	return (&space{t: t, name: name}).open()
}

// start runs a new overlay, until stop or the test's end.
func (v *vtep) start() {
	v.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	v.target = &countedOverlay{OverlayTarget: v.kernel}
	v.Overlay = dataplane.NewOverlay(v.target, slog.New(slog.DiscardHandler))
	var work sync.WaitGroup
	overlay, heard := v.Overlay, newHeard()
	watch, err := v.kernel.WatchOverlay(ctx)
	if err != nil {
		cancel()
		v.t.Fatal(err)
	}
	v.watch, v.heard = watch, heard
	work.Go(func() { _ = overlay.Run(ctx) })
	work.Go(func() {
		for event := range watch.Events() {
			heard.note(event)
			overlay.Observe(event)
		}
	})
	v.stop = sync.OnceFunc(func() {
		cancel()
		work.Wait()
	})
	v.t.Cleanup(v.stop)
}

func (v *vtep) ip(line string, args ...any) string {
	v.t.Helper()
	return command(v.t, "ip -n "+v.name+" "+line, args...)
}

func (v *vtep) fdb(device string) string {
	v.t.Helper()
	return command(v.t, "bridge -n %s fdb show dev %s", v.name, device)
}

// segment is how a node takes part in segment blue.
func (v *vtep) segment() dataplane.Segment {
	return dataplane.Segment{
		Name: "blue", Bridge: "br-blue", VXLAN: "vx-blue",
		VNI: 100, Local: v.address, MTU: 8950, MACLimit: 10,
	}
}

// take has the node take part in segments.
func (v *vtep) take(segments []dataplane.Segment) {
	v.SetSegments(segments)
	v.watch.SetSegments(segments)
}

// settle waits until everything that was asked for is in the kernel.
func (v *vtep) settle() {
	v.t.Helper()
	done := make(chan struct{})
	v.Then(func() { close(done) })
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		v.t.Fatalf("the kernel is not as asked for: %+v", v.Report())
	}
}

// noProblems fails if the kernel refused something.
func (v *vtep) noProblems() {
	v.t.Helper()
	if problems := v.Report().Problems; len(problems) > 0 {
		v.t.Fatalf("problems: %+v", problems)
	}
}

// join has both nodes take part in segment blue and flood to each other.
func join(a, b *vtep) {
	for _, v := range []*vtep{a, b} {
		other := map[*vtep]*vtep{a: b, b: a}[v]
		v.take([]dataplane.Segment{v.segment()})
		v.Update(dataplane.OverlayUpdate{Flood: map[uint32][]netip.Addr{100: {other.address}}})
		v.Complete()
	}
	for _, v := range []*vtep{a, b} {
		v.t.Helper()
		v.settle()
		v.noProblems()
	}
}

// guest is a namespace behind a port of a node's bridge.
type guest struct {
	t    testing.TB
	name string
	ip4  netip.Addr
	ip6  netip.Addr
	mac  dataplane.MAC
	port string // at the node
}

// guest attaches the guest of that number to segment blue.
func (v *vtep) guest(number int) *guest {
	v.t.Helper()
	g := &guest{
		t: v.t, name: namespace(v.t, fmt.Sprintf("g%d", number)), port: fmt.Sprintf("tap%d", number),
		ip4: netip.AddrFrom4([4]byte{172, 16, 0, byte(number)}),
		ip6: netip.AddrFrom16([16]byte{0xfd, 15: byte(number)}),
		mac: dataplane.MAC{2, 0, 0, 0, 0, byte(number)},
	}
	command(v.t, "ip -n %s link add %s mtu 8950 type veth peer name eth0 mtu 8950 address %s netns %s", v.name, g.port, g.mac, g.name)
	command(v.t, "ip -n %s addr add %s/24 dev eth0", g.name, g.ip4)
	command(v.t, "ip -n %s addr add %s/64 dev eth0 nodad", g.name, g.ip6)
	command(v.t, "ip -n %s link set eth0 up", g.name)
	v.ip("link set %s master br-blue up", g.port)
	return g
}

func (g *guest) ping(to string) {
	g.t.Helper()
	command(g.t, "ip netns exec %s ping -c 2 -i 0.05 -W 2 %s", g.name, to)
}

// eventually waits until check finds nothing wrong.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still: %v", err)
		}
	}
}
