package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"frond/internal/api"
	"frond/internal/fabric"
	"frond/internal/netns"
	"frond/internal/probe"
	"frond/internal/status"
)

// built is where program leaves its result.
var built = filepath.Join(os.TempDir(), fmt.Sprintf("frond-scenario-%d", os.Getpid()))

func TestMain(m *testing.M) {
	code := m.Run()
	if err := os.Remove(built); err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// program builds frond once for all scenarios: what is tested is the program.
var program = sync.OnceValues(func() (string, error) {
	cmd := exec.Command("go", "build", "-o", built, "frond/cmd/frond")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build frond: %w\n%s", err, out)
	}
	return built, nil
})

// world is a running lab as a scenario uses it: everything either works or
// ends the test.
type world struct {
	*Lab
	t testing.TB
}

// bring brings up a lab of this topology until the end of the test. extra
// lines are put into the document's underlay.
func bring(t testing.TB, name string, topology Topology, extra ...string) *world {
	t.Helper()
	dir := t.TempDir()
	document := string(Document(name, topology))
	for _, line := range extra {
		document = strings.Replace(document, "nodes:\n", "  "+line+"\nnodes:\n", 1)
	}
	if strings.Contains(document, "bgp.key") {
		must(t, os.WriteFile(filepath.Join(dir, "bgp.key"), []byte("correct-horse\n"), 0o600))
	}
	return raise(t, name, topology, Source{[]byte(document), dir})
}

// raise brings up a lab of this document until the end of the test.
func raise(t testing.TB, name string, topology Topology, document Source) *world {
	t.Helper()
	path, err := program()
	must(t, err)
	l, err := Up(t.Context(), Lab{Name: name, Topology: topology, Binary: path}, document, silent)
	must(t, err)
	w := &world{l, t}
	t.Cleanup(func() {
		if t.Failed() {
			w.showLogs()
		}
		_, err := Down(context.Background(), name)
		must(t, err)
	})
	return w
}

// in is the same world for a subtest.
func (w *world) in(t testing.TB) *world { return &world{w.Lab, t} }

func silent(string, int, int) {}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// showLogs shows the last lines of every agent and the interfaces of its node,
// for the one who has to find out.
func (w *world) showLogs() {
	for _, n := range w.Topology.Nodes {
		if s, err := api.NewClient(w.Socket(n.Name)).Status(context.Background()); err == nil {
			for _, p := range s.Peers {
				w.t.Logf("%s: %s %s %s, BFD %s: %s", n.Name, p.Port, p.Name, p.State, p.BFD, p.Reason)
			}
		}
		data, err := os.ReadFile(w.Log(n.Name))
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(data)), "\n")
		w.t.Logf("%s:\n%s", n.Name, strings.Join(lines[max(0, len(lines)-40):], "\n"))
		if links, err := exec.Command("ip", "-n", w.Name+"-"+n.Name, "-brief", "address").CombinedOutput(); err == nil {
			w.t.Logf("%s", links)
		}
	}
}

// whole checks that all routes and echoes are as the cables that are left
// give them.
func (w *world) whole() {
	w.t.Helper()
	proof, err := w.Check(w.t.Context(), CheckConfig{Timeout: 20 * time.Second, Surviving: true}, silent)
	must(w.t, err)
	if len(proof.Failures) > 0 {
		w.t.Fatal(strings.Join(proof.Failures, "\n"))
	}
}

// addressed waits until a node has its loopbacks, which a check takes for
// granted: it waits for routes alone.
func (w *world) addressed(node string) {
	w.t.Helper()
	f, err := w.Fabric()
	must(w.t, err)
	n, err := f.Find(node)
	must(w.t, err)
	ns := w.namespace(node)
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	for _, loopback := range []netip.Addr{n.Loopback, n.Loopback6} {
		must(w.t, poll(ctx, func() bool {
			return ns.Do(func() error {
				conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
				if err != nil {
					return err
				}
				return conn.Close()
			}) == nil
		}, node+" never has "+loopback.String()))
	}
}

func (w *world) namespace(node string) *netns.NS {
	w.t.Helper()
	ns, err := w.Namespace(node)
	must(w.t, err)
	w.t.Cleanup(func() { must(w.t, ns.Close()) })
	return ns
}

func (w *world) node(name string) fabric.Node {
	w.t.Helper()
	f, err := w.Fabric()
	must(w.t, err)
	n, err := f.Find(name)
	must(w.t, err)
	return n
}

// traffic starts flows of 1,000 packets/s between two nodes' loopbacks, both
// ways; what it returns stops them.
func (w *world) traffic(from, to string) func() probe.Result {
	w.t.Helper()
	p, err := probe.Start(w.t.Context(), probe.Config{
		From: w.namespace(from), To: w.namespace(to),
		FromAddr: w.node(from).Loopback, ToAddr: w.node(to).Loopback,
		Flows: 8, Rate: 1000,
	})
	must(w.t, err)
	enough := time.After(500 * time.Millisecond)
	return func() probe.Result {
		<-enough
		return p.Stop()
	}
}

// nothingLost fails if traffic lost packets.
func (w *world) nothingLost(r probe.Result) {
	w.t.Helper()
	if r.Sent() < 1000 {
		w.t.Fatalf("only %d packets were sent: that proves nothing", r.Sent())
	}
	if r.Lost() > 0 {
		w.t.Errorf("lost %d of %d packets; worst: %s", r.Lost(), r.Sent(), r.Worst())
	}
}

func (w *world) snapshot(node string) status.Snapshot {
	w.t.Helper()
	s, err := api.NewClient(w.Socket(node)).Status(w.t.Context())
	must(w.t, err)
	return s
}

// eventually waits until a node's status satisfies ok.
func (w *world) eventually(node, what string, ok func(status.Snapshot) bool) {
	w.t.Helper()
	limit := time.Now().Add(20 * time.Second)
	for {
		// An agent that has just been started does not answer yet.
		s, err := api.NewClient(w.Socket(node)).Status(w.t.Context())
		if err == nil && ok(s) {
			return
		}
		if time.Now().After(limit) {
			w.t.Fatalf("%s never: %s\npeers: %+v\nconditions: %+v", node, what, s.Peers, s.Conditions)
		}
		time.Sleep(askInterval)
	}
}

func end(text string) End {
	e, err := ParseEnd(text)
	if err != nil {
		panic(err)
	}
	return e
}

func TestShapes(t *testing.T) {
	for _, shape := range []string{"spine-leaf:2x3", "chain:6", "ring:6", "hub:4", "parallel:2", "spine-leaf:4x12"} {
		t.Run(shape, func(t *testing.T) {
			topology, err := ParseShape(shape)
			must(t, err)
			bring(t, "shape", topology).whole()
		})
	}
}

func TestLeafToLeaf(t *testing.T) {
	topology := SpineLeaf(2, 3)
	topology.connect(End{Node: "leaf1"}, End{Node: "leaf2"})
	bring(t, "leafleaf", topology).whole()
}

// TestCables cuts, mends, mutes and moves cables under one fabric.
func TestCables(t *testing.T) {
	w := bring(t, "cables", SpineLeaf(2, 3))
	w.whole()
	spine1, leaf1 := end("spine1"), end("leaf1")

	t.Run("flaps", func(t *testing.T) {
		w := w.in(t)
		for range 5 {
			must(t, w.Cut(spine1, leaf1))
			w.whole()
			stop := w.traffic("leaf1", "leaf3")
			must(t, w.Mend(spine1, leaf1))
			w.whole()
			w.nothingLost(stop())
		}
	})
	t.Run("reason", func(t *testing.T) {
		w := w.in(t)
		must(t, w.Cut(spine1, leaf1))
		w.eventually("leaf1", "no carrier", func(s status.Snapshot) bool {
			return s.Peers[0].State == "down" && strings.Contains(s.Peers[0].Reason, "carrier") && len(s.Conditions) > 0
		})
		must(t, w.Mend(spine1, leaf1))
		w.eventually("leaf1", "healthy", func(s status.Snapshot) bool { return len(s.Conditions) == 0 })
	})
	t.Run("mute", func(t *testing.T) {
		w := w.in(t)
		for _, oneWay := range []bool{false, true} {
			must(t, w.Mute(spine1, leaf1, oneWay))
			w.whole()
			w.eventually("leaf1", "BFD down", func(s status.Snapshot) bool { return s.Peers[0].BFD == "down" })
			must(t, w.Mend(spine1, leaf1))
			w.whole()
		}
	})
	t.Run("recable", func(t *testing.T) {
		w := w.in(t)
		// Two leafs swap their cables to spine1: nothing between others suffers.
		stop := w.traffic("leaf2", "spine2")
		must(t, w.Recable(end("leaf1:eth1"), end("leaf3:eth3")))
		w.whole()
		must(t, w.Recable(end("leaf3:eth1"), end("spine1:eth1")))
		w.whole()
		w.nothingLost(stop())
	})
}

// TestAgentsComeAndGo kills, stops and restarts agents under traffic.
func TestAgentsComeAndGo(t *testing.T) {
	w := bring(t, "agents", SpineLeaf(2, 3))
	w.whole()
	for _, node := range []string{"spine1", "leaf1"} {
		t.Run("kill "+node, func(t *testing.T) {
			stop := w.traffic("leaf1", "leaf3")
			must(t, w.Kill(t.Context(), node))
			time.Sleep(500 * time.Millisecond) // traffic has to go on meanwhile
			must(t, w.Start(node))
			w.whole()
			w.eventually(node, "no restart under way", func(s status.Snapshot) bool { return s.Ready && len(s.Conditions) == 0 })
			w.nothingLost(stop())
		})
		t.Run("restart "+node, func(t *testing.T) {
			stop := w.traffic("leaf1", "leaf3")
			must(t, w.Stop(t.Context(), node))
			must(t, w.Start(node))
			w.whole()
			w.eventually(node, "no restart under way", func(s status.Snapshot) bool { return s.Ready && len(s.Conditions) == 0 })
			w.nothingLost(stop())
		})
	}
	t.Run("down and up", func(t *testing.T) {
		w := w.in(t)
		ns := w.namespace("spine1")
		stop := w.traffic("leaf1", "leaf3")
		must(t, api.NewClient(w.Socket("spine1")).Down(t.Context()))
		table, err := readFIB(ns)
		must(t, err)
		for prefix := range table {
			if w.node("leaf1").Loopback == prefix.Addr() {
				t.Errorf("route to %s is left behind", prefix)
			}
		}
		for range 100 {
			if _, running := w.AgentPID("spine1"); !running {
				break
			}
			time.Sleep(askInterval)
		}
		must(t, w.Start("spine1"))
		w.whole()
		w.nothingLost(stop())
	})
}

// TestRecableInRestart moves a cable of a node that has just been restarted:
// what it waits for does not come.
func TestRecableInRestart(t *testing.T) {
	w := bring(t, "recable", SpineLeaf(2, 3))
	w.whole()
	must(t, w.Stop(t.Context(), "spine1"))
	must(t, w.Start("spine1"))
	must(t, w.Recable(end("leaf1:eth1"), end("spine2:eth9")))
	w.whole()
	w.eventually("spine1", "converged", func(s status.Snapshot) bool { return s.Ready && time.Since(s.Started) < 12*time.Second })
}

func TestReload(t *testing.T) {
	w := bring(t, "reload", SpineLeaf(2, 2))
	w.whole()
	client := api.NewClient(w.Socket("leaf1"))
	good, err := os.ReadFile(w.Document())
	must(t, err)

	must(t, os.WriteFile(w.Document(), append(good, "  leaf3: {loopback: 10.0.200.3}\n"...), 0o644))
	for _, n := range w.Topology.Nodes {
		must(t, api.NewClient(w.Socket(n.Name)).Reload(t.Context()))
	}
	w.whole()
	for _, n := range w.Topology.Nodes {
		for _, p := range w.snapshot(n.Name).Peers {
			if p.Flaps != 0 || p.State != "established" {
				t.Errorf("%s: adding a node disturbed port %s: %+v", n.Name, p.Port, p)
			}
		}
	}

	must(t, os.WriteFile(w.Document(), []byte("nodes: [\n"), 0o644))
	if err := client.Reload(t.Context()); err == nil {
		t.Error("a broken document was taken")
	}
	if s := w.snapshot("leaf1"); s.Document.Error == "" || s.Peers[0].State != "established" {
		t.Errorf("status after a refused document: %+v", s)
	}

	changed := strings.Replace(string(good), "leaf1: {", "leaf1: {advertise: [192.0.2.0/24], anycast: [10.0.222.1/32], ", 1)
	w.reload(changed)
	w.reaches("leaf2", "192.0.2.0/24", 2)
	w.reaches("spine1", "10.0.222.1/32", 1)
	shared := strings.Replace(changed, "leaf2: {", "leaf2: {anycast: [10.0.222.1/32], ", 1)
	w.reload(shared)
	w.reaches("spine1", "10.0.222.1/32", 2) // one way to each of its homes
	w.reaches("leaf2", "10.0.222.1/32", 0)  // its own: on lo, not in the main table
	w.reload(string(good))
	w.reaches("leaf2", "192.0.2.0/24", 0)
	w.reaches("spine1", "10.0.222.1/32", 0)
	if s := w.snapshot("leaf1"); s.Document.Error != "" || s.Peers[0].Flaps != 0 {
		t.Errorf("status after a good document: %+v", s)
	}
}

// reaches waits until a node's kernel has a route with that many next hops.
func (w *world) reaches(node, prefix string, hops int) {
	w.t.Helper()
	ns := w.namespace(node)
	limit := time.Now().Add(20 * time.Second)
	for {
		table, err := readFIB(ns)
		must(w.t, err)
		got := table[netip.MustParsePrefix(prefix)]
		if len(got) == hops {
			return
		}
		if time.Now().After(limit) {
			w.t.Fatalf("%s reaches %s over %v, want %d next hops", node, prefix, got, hops)
		}
		time.Sleep(askInterval)
	}
}

func TestPassword(t *testing.T) {
	w := bring(t, "password", SpineLeaf(2, 2), "password_file: bgp.key")
	w.whole()
	for _, n := range w.Topology.Nodes {
		w.eventually(n.Name, "the BFD process", func(s status.Snapshot) bool { return s.Peers[0].BFD == "up" })
	}
	w.nobodyTells("correct-horse")
}

// TestStandstill stops agents for longer than the hold timer: the kernels
// forward on, BFD says so, and nobody is given up.
func TestStandstill(t *testing.T) {
	w := bring(t, "standstill", SpineLeaf(2, 3))
	w.whole()
	stop := w.traffic("leaf1", "leaf3")
	for _, node := range []string{"spine1", "leaf1"} {
		pid, ok := w.AgentPID(node)
		if !ok {
			t.Fatal("no agent")
		}
		must(t, unix.Kill(pid, unix.SIGSTOP))
		peer, port := "leaf2", "eth1"
		if node == "leaf1" {
			peer = "spine2"
		}
		w.eventually(peer, "hold timer of "+node, func(s status.Snapshot) bool {
			p := peerOn(s, port)
			return p.Restarting && strings.Contains(p.Reason, "hold timer")
		})
		must(t, unix.Kill(pid, unix.SIGCONT))
		w.eventually(peer, node+" back", func(s status.Snapshot) bool {
			p := peerOn(s, port)
			return p.State == "established" && !p.Restarting
		})
	}
	w.whole()
	w.nothingLost(stop())
}

// TestOperator has somebody else change what is frond's: it is repaired, and
// what is his stays.
func TestOperator(t *testing.T) {
	w := bring(t, "operator", SpineLeaf(2, 2))
	w.whole()
	ip := func(args ...string) {
		t.Helper()
		var out []byte
		must(t, w.namespace("leaf1").Do(func() (err error) {
			out, err = exec.Command("ip", args...).CombinedOutput()
			return err
		}))
		if len(out) > 0 {
			t.Logf("ip %s: %s", strings.Join(args, " "), out)
		}
	}
	ip("route", "add", "198.51.100.0/24", "dev", "lo", "metric", "7")
	ip("address", "add", "198.51.100.1/32", "dev", "lo")
	for _, damage := range [][]string{
		{"route", "flush", "proto", "102"},
		{"nexthop", "flush"},
		{"address", "del", "10.0.200.1/32", "dev", "lo"},
		{"link", "set", "eth1", "down"},
		{"link", "set", "eth1", "name", "eth7"},
	} {
		t.Run(strings.Join(damage, " "), func(t *testing.T) {
			ip(damage...)
			if damage[len(damage)-1] == "eth7" { // the lab knows ports by their names
				w.in(t).eventually("leaf1", "its renamed port", func(s status.Snapshot) bool {
					return peerOn(s, "eth7").State == "established"
				})
				ip("link", "set", "eth7", "name", "eth1")
			}
			w.in(t).addressed("leaf1")
			w.in(t).whole()
		})
	}
	table, err := readFIB(w.namespace("leaf1"))
	must(t, err)
	if len(table[netip.MustParsePrefix("198.51.100.0/24")]) != 1 {
		t.Error("the operator's route is gone")
	}
	ip("link", "set", "lo", "down")
	w.addressed("leaf1")
	w.whole()
}
