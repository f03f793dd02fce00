package kernel_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"frond/internal/dataplane"
	"frond/internal/kernel"
	"frond/internal/netns"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	restore := raiseNeighborLimits()
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		restore()
		os.Exit(code)
	}))
}

// raiseNeighborLimits makes room in the kernel's neighbour tables, which all
// namespaces share, those of other packages' tests too, and which an agent sees
// to on a machine of its own. What it returns brings the old limits back.
func raiseNeighborLimits() (restore func()) {
	old := make(map[string][]byte)
	for _, family := range []string{"ipv4", "ipv6"} {
		for _, limit := range []struct{ name, value string }{{"gc_thresh3", "65536"}, {"gc_thresh2", "32768"}} {
			path := "/proc/sys/net/" + family + "/neigh/default/" + limit.name
			before, err := os.ReadFile(path)
			if err == nil && os.WriteFile(path, []byte(limit.value), 0) == nil {
				old[path] = before
			}
		}
	}
	return func() {
		for path, value := range old {
			_ = os.WriteFile(path, value, 0)
		}
	}
}

var spaces atomic.Int64

// space is a node in a network namespace, and another one that its cables
// lead to.
type space struct {
	t          testing.TB
	name, peer string
	kernel     *kernel.Kernel
	cables     int
}

// newSpace makes a namespace with one cable per port. The port is down, its
// other end is up and holds fe80::1.
func newSpace(t testing.TB, ports ...string) *space {
	t.Helper()
	n := spaces.Add(1)
	s := &space{t: t, name: fmt.Sprintf("kernel-%d-%d", os.Getpid(), n)}
	s.peer = s.name + "-peer"
	for _, name := range []string{s.name, s.peer} {
		if err := netns.Create(name); err != nil {
			t.Fatalf("these tests run as root and make network namespaces: %v", err)
		}
		t.Cleanup(func() {
			if err := netns.Delete(name); err != nil {
				t.Error(err)
			}
		})
	}
	for _, port := range ports {
		s.plug(port)
	}
	s.kernel = s.open()
	return s
}

// plug adds a cable.
func (s *space) plug(port string) {
	s.t.Helper()
	// With the same index at both ends the kernel takes a cable for a device
	// whose carrier is not urgent, and tells of it up to a second later
	// (net/core/link_watch.c, linkwatch_urgent_event).
	s.cables++
	s.ip("link add %s index %d type veth peer name %s netns %s", port, 1000+s.cables, port, s.peer)
	s.ipPeer("link set %s up", port)
	s.ipPeer("addr add fe80::1/64 dev %s nodad", port)
}

// open opens the namespace's kernel.
func (s *space) open() *kernel.Kernel {
	s.t.Helper()
	ns, err := netns.Open(s.name)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	var k *kernel.Kernel
	err = ns.Do(func() error {
		k, err = kernel.New(slog.New(slog.DiscardHandler))
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := k.Close(); err != nil {
			s.t.Error(err)
		}
	})
	return k
}

// ip runs ip(8) in the node's namespace, as an operator does.
func (s *space) ip(format string, args ...any) string {
	s.t.Helper()
	return s.run(s.name, format, args...)
}

func (s *space) ipPeer(format string, args ...any) string {
	s.t.Helper()
	return s.run(s.peer, format, args...)
}

func (s *space) run(name, format string, args ...any) string {
	s.t.Helper()
	line := fmt.Sprintf(format, args...)
	out, err := exec.Command("ip", append([]string{"-n", name}, strings.Fields(line)...)...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("ip -n %s %s: %v: %s", name, line, err, out)
	}
	return string(out)
}

// node is a reconciler at work on a space.
type node struct {
	*dataplane.Reconciler
	*space
	target *counted
	stop   func()
}

// counted counts what is applied.
type counted struct {
	dataplane.Target
	mu  sync.Mutex
	ops []dataplane.Op
}

func (c *counted) Apply(ctx context.Context, ops []dataplane.Op) []dataplane.OpError {
	c.mu.Lock()
	c.ops = append(c.ops, ops...)
	c.mu.Unlock()
	return c.Target.Apply(ctx, ops)
}

func (c *counted) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.ops)
}

func (c *counted) applied() []dataplane.Op {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.ops)
}

// start runs a reconciler that hears the kernel, until stop or the test's end.
func (s *space) start() *node {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	target := &counted{Target: s.kernel}
	n := &node{
		Reconciler: dataplane.NewReconciler(target, slog.New(slog.DiscardHandler)),
		space:      s,
		target:     target,
	}
	events, err := s.kernel.Watch(ctx)
	if err != nil {
		cancel()
		s.t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() { _ = n.Run(ctx) })
	work.Go(func() {
		for event := range events {
			n.Observe(event)
		}
	})
	n.stop = sync.OnceFunc(func() {
		cancel()
		work.Wait()
	})
	s.t.Cleanup(n.stop)
	return n
}

// eventually waits until check finds nothing wrong.
func (s *space) eventually(check func() error) {
	s.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("still: %v\nlinks:\n%snexthops:\n%sroutes:\n%s", err,
				s.ip("-br link"), s.ip("nexthop"), s.ip("route"))
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// dump reads the kernel by a way of its own.
func (s *space) dump() dataplane.State {
	s.t.Helper()
	state, err := s.kernel.Dump(context.Background())
	if err != nil {
		s.t.Fatal(err)
	}
	return state
}

// forwards checks which next hops the kernel has for a prefix.
func (s *space) forwards(prefix netip.Prefix, want ...dataplane.NextHop) error {
	state := s.dump()
	route, ok := state.Routes[prefix]
	if !ok {
		if len(want) == 0 {
			return nil
		}
		return fmt.Errorf("no route to %s, want one over %v", prefix, want)
	}
	var got []dataplane.NextHop
	if leg, ok := state.NextHops[route.NextHopID]; ok {
		got = append(got, leg)
	}
	for _, id := range state.Groups[route.NextHopID] {
		got = append(got, state.NextHops[id])
	}
	slices.SortFunc(got, func(a, b dataplane.NextHop) int { return strings.Compare(a.String(), b.String()) })
	if !slices.Equal(got, want) {
		return fmt.Errorf("route to %s is over %v, want %v", prefix, got, want)
	}
	return nil
}

func (s *space) eventuallyForwards(prefix netip.Prefix, want ...dataplane.NextHop) {
	s.t.Helper()
	s.eventually(func() error { return s.forwards(prefix, want...) })
}

// everything is what the namespace holds, as ip(8) shows it.
func (s *space) everything() string {
	return strings.Join([]string{
		s.ip("addr show lo"), s.ip("nexthop"),
		s.ip("-4 route show table all"), s.ip("-6 route show table all"),
	}, "--\n")
}

func leg(port string) dataplane.NextHop {
	return dataplane.NextHop{Port: port, Via: netip.MustParseAddr("fe80::1")}
}

func ports(names ...string) []dataplane.Port {
	var list []dataplane.Port
	for _, name := range names {
		list = append(list, dataplane.Port{Name: name})
	}
	return list
}

func host(text string) netip.Prefix {
	addr := netip.MustParseAddr(text)
	return netip.PrefixFrom(addr, addr.BitLen())
}
