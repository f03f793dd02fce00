package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"frond/internal/api"
	"frond/internal/netns"
	"frond/internal/probe"
	"frond/internal/status"
)

// standIn is a program for nodes that notes its arguments and has a child,
// as an agent has, which outlives it.
const standIn = `#!/bin/sh
echo "$@"
sleep 1000 &
exec sleep 1000
`

// stubborn does not end when it is asked to, until it is asked again.
const stubborn = `#!/bin/sh
trap 'trap - TERM; echo asked' TERM
echo trapped
while :; do sleep 0.05; done
`

func script(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

// unused is a lab name of this process; whatever gets that name is removed
// when the test ends.
func unused(t *testing.T, letter string) string {
	t.Helper()
	name := fmt.Sprintf("lab%s%d", letter, os.Getpid())
	t.Cleanup(func() {
		if _, err := Down(context.Background(), name); err != nil {
			t.Error(err)
		}
		if there, err := exists(name); there || err != nil {
			t.Errorf("lab %s is still there: %v", name, err)
		}
	})
	return name
}

func up(t *testing.T, letter string, topology Topology, binary string) *Lab {
	t.Helper()
	name := unused(t, letter)
	l, err := Up(t.Context(), Lab{Name: name, Topology: topology, Binary: binary}, Source{Content: Document(name, topology)}, func(string, int, int) {})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestUpAndDown(t *testing.T) {
	t.Parallel()
	l := up(t, "a", SpineLeaf(1, 2), script(t, standIn))
	neighbour := up(t, "aa", Parallel(1), script(t, standIn)) // its name begins as the other's does

	_, err := Up(t.Context(), *l, Source{Content: Document(l.Name, l.Topology)}, nil)
	if err == nil || !strings.Contains(err.Error(), "frond lab down --name "+l.Name) {
		t.Errorf("up twice: %v; want it to say what to do", err)
	}
	opened, err := Open(l.Name, l.Binary)
	if err != nil || len(opened.Topology.Cables) != 2 {
		t.Errorf("Open: %+v, %v", opened, err)
	}
	for _, n := range l.Topology.Nodes {
		pid, ok := l.AgentPID(n.Name)
		if !ok {
			t.Fatalf("no agent runs on %s", n.Name)
		}
		if sid, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || strings.Fields(string(sid))[5] != fmt.Sprint(pid) {
			t.Errorf("%s: %s, %v; want a session of its own", n.Name, sid, err)
		}
	}
	want := fmt.Sprintf("agent --config %s/fabric.yaml --node leaf1 --state %s/leaf1/state --socket %s/leaf1/frond.sock --pki %s/pki\n", l.Dir(), l.Dir(), l.Dir(), l.Dir())
	eventually(t, "the agent's arguments in its log", func() bool {
		log, _ := os.ReadFile(l.Log("leaf1"))
		return string(log) == want
	})

	removed, err := Down(t.Context(), l.Name)
	if err != nil || removed.Namespaces != 4 || removed.Processes < 3 {
		t.Errorf("Down: %+v, %v; want 4 namespaces, at least 3 processes", removed, err)
	}
	if removed, err = Down(t.Context(), l.Name); err != nil || removed != (Removed{}) {
		t.Errorf("second Down: %+v, %v; want nothing", removed, err)
	}
	if _, err := Open(l.Name, ""); err == nil || !strings.Contains(err.Error(), "there is no lab") {
		t.Errorf("Open after Down: %v", err)
	}
	if _, ok := neighbour.AgentPID("node1"); !ok {
		t.Error("another lab was taken down too")
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := poll(ctx, ok, what+": not seen"); err != nil {
		t.Fatal(err)
	}
}

func TestUpLeavesNothingWhenItFails(t *testing.T) {
	t.Parallel()
	name := unused(t, "f")
	topology := SpineLeaf(1, 1)
	l := Lab{Name: name, Topology: topology, Binary: "/nonexistent"}
	if _, err := Up(t.Context(), l, Source{Content: Document(name, topology)}, func(string, int, int) {}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Up without a program: %v; want fs.ErrNotExist", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	interrupt := func(step string, _, _ int) {
		if step == "laying cables" {
			cancel()
		}
	}
	l.Binary = script(t, standIn)
	if _, err := Up(ctx, l, Source{Content: Document(name, topology)}, interrupt); !errors.Is(err, context.Canceled) {
		t.Errorf("Up interrupted: %v; want context.Canceled", err)
	}
	if there, err := exists(name); there || err != nil {
		t.Errorf("something is left: %v", err)
	}
}

// TestDownAfterCrash makes what a lab command leaves that is killed midway.
func TestDownAfterCrash(t *testing.T) {
	t.Parallel()
	name := unused(t, "c")
	if err := makeNode(namespace(name, "leaf1")); err != nil {
		t.Fatal(err)
	}
	ns, err := netns.Open(namespace(name, "leaf1"))
	if err != nil {
		t.Fatal(err)
	}
	orphan := exec.Command(script(t, standIn))
	if err := ns.Start(orphan); err != nil {
		t.Fatal(err)
	}
	if err := ns.Close(); err != nil {
		t.Fatal(err)
	}
	outside := exec.Command("sleep", "1000")
	if err := outside.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = outside.Process.Kill()
		_ = outside.Wait()
	}()
	l := Lab{Name: name, Topology: SpineLeaf(1, 1)}
	_, err = Up(t.Context(), l, Source{Content: Document(name, l.Topology)}, nil)
	if err == nil || !strings.Contains(err.Error(), "left by a crash") {
		t.Errorf("Up over leftovers: %v", err)
	}
	ended := make(chan struct{})
	go func() {
		_ = orphan.Wait()
		close(ended)
	}()
	removed, err := Down(t.Context(), name)
	if err != nil || removed.Namespaces != 1 || removed.Processes < 1 {
		t.Errorf("Down: %+v, %v; want 1 namespace and its processes", removed, err)
	}
	<-ended
	if err := outside.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("a process outside was killed: %v", err)
	}
}

func TestAgentsOfNodes(t *testing.T) {
	t.Parallel()
	l := up(t, "n", Parallel(1), script(t, standIn))
	if err := l.Start("node1"); err == nil {
		t.Error("started twice")
	}
	if err := l.Kill(t.Context(), "node1"); err != nil {
		t.Fatal(err)
	}
	if _, ok := l.AgentPID("node1"); ok {
		t.Error("runs after Kill")
	}
	if err := l.Kill(t.Context(), "node1"); err == nil || !strings.Contains(err.Error(), "frond lab start node1") {
		t.Errorf("killed twice: %v", err)
	}
	l.Binary = script(t, stubborn)
	if err := l.Start("node1"); err != nil {
		t.Fatal(err)
	}
	logs := func(word string) {
		eventually(t, "the word "+word+" in the log of node1", func() bool {
			log, _ := os.ReadFile(l.Log("node1"))
			return strings.Contains(string(log), word)
		})
	}
	logs("trapped")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := l.Stop(ctx, "node1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Stop of one that does not end: %v; want context.DeadlineExceeded", err)
	}
	logs("asked") // two signals at once count as one
	if err := l.Stop(t.Context(), "node1"); err != nil {
		t.Error(err)
	}
	var input InputError
	if err := l.Start("node9"); !errors.As(err, &input) {
		t.Errorf("Start of no node: %v; want an InputError", err)
	}
}

func TestStatusAsksTheAgents(t *testing.T) {
	t.Parallel()
	l := up(t, "s", Parallel(2), script(t, standIn))
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	snapshot := status.Snapshot{Node: "node1", Ready: true, Peers: []status.Peer{{State: "established"}, {State: "connect"}}}
	go func() { served <- api.Serve(ctx, l.Socket("node1"), answers{snapshot}, slog.New(slog.DiscardHandler)) }()
	defer func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	var nodes []NodeStatus
	eventually(t, "an answer of node1", func() bool {
		var err error
		nodes, err = l.Status(t.Context())
		return err == nil && nodes[0].Err == nil
	})
	if n := nodes[0]; n.Established() != 1 || n.Expected != 2 || n.Whole() || n.PID == 0 {
		t.Errorf("node1: %d of %d peers, whole %v, process %d", n.Established(), n.Expected, n.Whole(), n.PID)
	}
	if nodes[1].Err == nil || nodes[1].PID == 0 {
		t.Errorf("node2: %+v; want a process that does not answer", nodes[1])
	}
	if err := l.Cut(End{"node1", "eth2"}, End{Node: "node2"}); err != nil {
		t.Fatal(err)
	}
	if nodes, err := l.Status(t.Context()); err != nil || !nodes[0].Whole() {
		t.Errorf("with one cable cut: %+v, %v; want node1 whole", nodes, err)
	}
	if err := l.Kill(t.Context(), "node2"); err != nil {
		t.Fatal(err)
	}
	nodes, err := l.Settle(t.Context(), func(string, int, int) {})
	if err != nil || nodes[1].PID != 0 || nodes[1].Err == nil || !strings.Contains(nodes[1].Err.Error(), "its log ends with: agent --config") {
		t.Errorf("without an agent: %+v, %v", nodes[1].Err, err)
	}
}

// answers is an agent that says the same all the time.
type answers struct{ snapshot status.Snapshot }

func (a answers) Status() status.Snapshot            { return a.snapshot }
func (a answers) Vitals() status.Vitals              { return status.Vitals{} }
func (a answers) Routes(netip.Prefix) []status.Route { return nil }
func (a answers) Reload(context.Context) error       { return nil }
func (a answers) Down(context.Context) error         { return nil }

// TestCheckReadsTheKernel lays the routes by hand: no agent is needed to be
// right or wrong.
func TestCheckReadsTheKernel(t *testing.T) {
	t.Parallel()
	l := up(t, "k", Parallel(2), script(t, standIn))
	f, err := l.Fabric()
	if err != nil {
		t.Fatal(err)
	}
	for i, node := range f.Nodes {
		n := inside(t, l, node.Name)
		n.run("ip", "address", "add", node.Loopback.String()+"/32", "dev", "lo")
		n.run("ip", "address", "add", node.Loopback6.String()+"/128", "dev", "lo")
		for port := 1; port <= 2; port++ {
			dev := fmt.Sprintf("eth%d", port)
			n.run("ip", "link", "set", dev, "up")
			n.run("ip", "address", "add", fmt.Sprintf("192.168.%d.%d/24", port, i+1), "dev", dev)
			n.run("ip", "address", "add", fmt.Sprintf("fd00:%d::%d/64", port, i+1), "dev", dev, "nodad")
		}
	}
	for i, node := range f.Nodes {
		n, far := inside(t, l, node.Name), f.Nodes[1-i]
		// One family by nexthop objects, the other by the routes themselves.
		for port := 1; port <= 2; port++ {
			n.run("ip", "nexthop", "add", "id", fmt.Sprint(port), "via", fmt.Sprintf("192.168.%d.%d", port, 2-i), "dev", fmt.Sprintf("eth%d", port))
		}
		n.run("ip", "nexthop", "add", "id", "9", "group", "1/2")
		n.run("sysctl", "-qw", "net.ipv4.nexthop_compat_mode=0", "net.ipv4.fib_multipath_hash_policy=1", "net.ipv6.fib_multipath_hash_policy=1")
		n.run("ip", "route", "add", far.Loopback.String(), "nhid", "9", "src", node.Loopback.String())
		n.run("ip", "route", "add", far.Loopback6.String(), "src", node.Loopback6.String(),
			"nexthop", "via", fmt.Sprintf("fd00:1::%d", 2-i), "nexthop", "via", fmt.Sprintf("fd00:2::%d", 2-i))
	}
	check := func(timeout time.Duration, surviving bool) Proof {
		t.Helper()
		proof, err := l.Check(t.Context(), CheckConfig{Timeout: timeout, Surviving: surviving, Duration: 50 * time.Millisecond}, func(string, int, int) {})
		if err != nil {
			t.Fatal(err)
		}
		return proof
	}
	proof := check(20*time.Second, false) // neighbours have to be found
	if len(proof.Failures) > 0 || proof.Routes != 4 || proof.NextHops != 8 || proof.Rounds != 4 || proof.Answered != 4 || proof.ConvergedSeconds < 0 {
		t.Errorf("%+v; want 4 routes over 8 next hops, 4 echoes, no failure", proof)
	}
	if b := proof.Bandwidth; b == nil || b.Direct <= 0 || b.Fabric <= 0 || len(b.Legs) != 2 {
		t.Errorf("bandwidth %+v", proof.Bandwidth)
	}
	if there, _ := netns.List(); slices.Contains(there, l.Name+".direct1") {
		t.Error("the direct cable is still there")
	}

	inside(t, l, "node1").run("ip", "nexthop", "delete", "id", "2")
	proof = check(time.Second, false)
	want := fmt.Sprintf("node1 → node2 (%s): 1 next hop, want 2; missing eth2 to node2", f.Nodes[1].Loopback)
	if len(proof.Failures) != 2 || proof.Failures[0] != want || proof.ConvergedSeconds >= 0 ||
		!strings.HasPrefix(proof.Failures[1], "eth2 to node2 carries nothing") {
		t.Errorf("without a leg: %q; want %q", proof.Failures, want)
	}

	inside(t, l, "node2").run("ip", "address", "delete", f.Nodes[1].Loopback.String()+"/32", "dev", "lo")
	proof = check(time.Second, false)
	if !slices.ContainsFunc(proof.Failures, func(s string) bool { return strings.Contains(s, "loopback cannot be used") }) || proof.Answered == 4 {
		t.Errorf("without a loopback: %q", proof.Failures)
	}

	if err := l.Cut(End{Node: "node1"}, End{Node: "node2"}); err != nil {
		t.Fatal(err)
	}
	if proof = check(time.Second, true); len(proof.Failures) != 1 || !strings.Contains(proof.Failures[0], "nothing to prove") {
		t.Errorf("with all cables cut: %q", proof.Failures)
	}
}

// shell runs commands in a node's namespace.
type shell struct {
	t  *testing.T
	ns *netns.NS
}

func inside(t *testing.T, l *Lab, node string) shell {
	t.Helper()
	ns, err := l.Namespace(node)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	return shell{t, ns}
}

func (s shell) run(argv ...string) string {
	s.t.Helper()
	var out strings.Builder
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := s.ns.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		s.t.Fatalf("%s: %v: %v: %s", s.ns.Name(), argv, err, out.String())
	}
	return out.String()
}

// TestCablesBreakAndMend has no agents; the ports' addresses are all there is.
func TestCablesBreakAndMend(t *testing.T) {
	t.Parallel()
	topology := Parallel(2)
	topology.Nodes = append(topology.Nodes, Node{Name: "node3"})
	l := up(t, "b", topology, script(t, standIn))
	a, b := inside(t, l, "node1"), inside(t, l, "node2")
	if got := a.run("cat", "/proc/self/net/dev"); !strings.Contains(got, "eth1:") || !strings.Contains(got, "eth2:") {
		t.Fatalf("ports are missing:\n%s", got)
	}
	if carrier(a, "eth1") {
		t.Error("a port is up before its node sets it up")
	}
	hosts := make([]probe.Host, 2)
	for i, n := range []shell{a, b} {
		addr := netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 1)})
		n.run("ip", "link", "set", "eth1", "up")
		n.run("ip", "address", "add", addr.String()+"/24", "dev", "eth1")
		hosts[i] = probe.Host{Name: n.ns.Name(), NS: n.ns, Addr: addr}
	}
	answered := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		rounds := probe.Reach(ctx, hosts)
		return rounds[0].Answered && rounds[1].Answered
	}
	reaches := func() bool {
		for range 10 {
			if answered() {
				return true
			}
		}
		return false
	}
	one, two := End{"node1", "eth1"}, End{Node: "node2"}
	step := func(name string, err error, state State, carries, packets bool) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		states, err := l.States()
		if err != nil || states[1] != state || states[2] != (State{}) {
			t.Errorf("%s: states %v, %v; want %v", name, states, err, state)
		}
		for _, n := range []shell{a, b} {
			eventually(t, fmt.Sprintf("%s: carrier %v", name, carries), func() bool { return carrier(n, "eth1") == carries })
		}
		if packets && !reaches() || !packets && answered() {
			t.Errorf("%s: packets pass: %v; want %v", name, !packets, packets)
		}
	}
	step("new", nil, State{}, true, true)
	step("cut", l.Cut(one, two), State{Cut: true}, false, false)
	for _, n := range []shell{a, b} { // as an agent might
		n.run("ip", "link", "set", "eth1", "down")
		n.run("ip", "link", "set", "eth1", "up")
	}
	step("cut, set up", nil, State{Cut: true}, false, false)
	step("mended", l.Mend(one, two), State{}, true, true)
	step("muted", l.Mute(one, two, false), State{MutedAB: true, MutedBA: true}, true, false)
	step("muted again", l.Mute(one, two, false), State{MutedAB: true, MutedBA: true}, true, false)
	step("unmuted", l.Unmute(two, one), State{}, true, true)
	step("muted there", l.Mute(one, two, true), State{MutedAB: true}, true, false)
	step("cut too", l.Cut(one, two), State{Cut: true, MutedAB: true}, false, false)
	step("unmuted, cut", l.Unmute(one, two), State{Cut: true}, false, false)
	step("mended again", l.Mend(one, two), State{}, true, true)
	step("muted back", l.Mute(two, one, true), State{MutedBA: true}, true, false)
	step("mended from mute", l.Mend(one, two), State{}, true, true)

	index := a.run("cat", "/proc/net/igmp") // names the ports with their indices
	if err := l.Recable(one, End{"node3", "eth7"}); err != nil {
		t.Fatal(err)
	}
	if got := b.run("ip", "-br", "link"); strings.Contains(got, "eth1") || !strings.Contains(got, "eth2") {
		t.Errorf("node2 after its cable eth1 was moved:\n%s", got)
	}
	c := inside(t, l, "node3")
	c.run("ip", "link", "set", "eth7", "up")
	c.run("ip", "address", "add", "10.1.0.2/24", "dev", "eth7")
	hosts[1].NS = c.ns
	if !reaches() {
		t.Error("no packets over the moved cable")
	}
	if got := a.run("cat", "/proc/net/igmp"); got != index {
		t.Errorf("the port that stayed is another: %s, was %s", got, index)
	}
	if err := l.Recable(End{"node1", "eth2"}, End{"node3", "eth7"}); err != nil {
		t.Fatal(err)
	}
	if got := a.run("ip", "-br", "link"); strings.Contains(got, "eth1") || !strings.Contains(got, "eth2") {
		t.Errorf("node1 after the other end of its cable eth1 was taken:\n%s", got)
	}
	opened, err := Open(l.Name, "")
	if err != nil || len(opened.Topology.Cables) != 1 || opened.Topology.Cables[0].String() != "node1:eth2–node3:eth7" {
		t.Errorf("lab.json: %+v, %v", opened, err)
	}
}

func carrier(s shell, port string) bool {
	return strings.Contains(s.run("ip", "-br", "link", "show", port), "LOWER_UP")
}

// TestMuteIsCounted lets a probe run while a cable is muted in one direction:
// what is missing is exactly what went that way meanwhile.
func TestMuteIsCounted(t *testing.T) {
	t.Parallel()
	l := up(t, "m", Parallel(1), script(t, standIn))
	a, b := inside(t, l, "node1"), inside(t, l, "node2")
	for i, n := range []shell{a, b} {
		n.run("ip", "link", "set", "eth1", "up")
		n.run("ip", "address", "add", fmt.Sprintf("fd00::%d/64", i+1), "dev", "eth1", "nodad")
	}
	p, err := probe.Start(t.Context(), probe.Config{From: a.ns, To: b.ns,
		FromAddr: netip.MustParseAddr("fd00::1"), ToAddr: netip.MustParseAddr("fd00::2"), Flows: 4, Rate: 500})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	// Muted any earlier, neither end would get the other's link-layer address.
	eventually(t, "packets in both directions", func() bool { return received(t, a) > 20 && received(t, b) > 20 })
	if err := l.Mute(End{Node: "node1"}, End{Node: "node2"}, true); err != nil {
		t.Fatal(err)
	}
	before := received(t, a)
	eventually(t, "packets in the direction that is open", func() bool { return received(t, a) > before+200 })
	if err := l.Mend(End{Node: "node1"}, End{Node: "node2"}); err != nil {
		t.Fatal(err)
	}
	before = received(t, b)
	eventually(t, "packets in the direction that was muted", func() bool { return received(t, b) > before+20 })
	r := p.Stop()
	for i, f := range r.Flows {
		if muted := i%2 == 0; muted != (f.Lost > 0) || f.Lost == f.Sent {
			t.Errorf("flow %d: %s", i, f)
		}
	}
}

func received(t *testing.T, s shell) (packets int) {
	t.Helper()
	for line := range strings.Lines(s.run("cat", "/proc/thread-self/net/snmp6")) {
		if name, value, ok := strings.Cut(line, " "); ok && name == "Udp6InDatagrams" {
			if _, err := fmt.Sscan(value, &packets); err != nil {
				t.Fatal(err)
			}
		}
	}
	return packets
}

func (a answers) Segments() []status.Segment                 { return nil }
func (a answers) MACs(string) []status.MAC                   { return nil }
func (a answers) EVPN() []status.EVPNRoute                   { return nil }
func (a answers) Thaw(context.Context, string, string) error { return nil }
func (a answers) Nodes() []status.Host                       { return nil }
func (a answers) Forwarding(context.Context, status.Destination) (status.Forwarding, error) {
	return status.Forwarding{}, nil
}
func (a answers) Gateways() []status.Gateway                { return nil }
func (a answers) Hypervisor() status.Hypervisor             { return status.Hypervisor{} }
func (a answers) Drain(context.Context, string, bool) error { return nil }

func (a answers) Guard() status.Guard                           { return status.Guard{} }
func (a answers) Leases(context.Context, string) []status.Lease { return nil }
func (a answers) Release(context.Context, netip.Addr) error     { return nil }
