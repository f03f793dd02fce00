package bfd

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"frond/internal/netns"

	"golang.org/x/sys/unix"
)

// These tests run the process as it is run for real: by Start, over sockets,
// in namespaces joined by a veth pair. They need root.

// node is a namespace with one port, p0, and a BFD process for it.
type node struct {
	ns     *netns.NS
	peer   netip.Addr // who is at the other end
	socket string
	*Client
	stop func() // the client, as an agent that dies
}

var linkLocal = map[string]netip.Addr{"a": peerA, "b": peerB}

// newNamespaces makes two namespaces and a cable between their ports p0.
func newNamespaces(t *testing.T) (a, b *netns.NS) {
	t.Helper()
	a, b = newNamespace(t, "a"), newNamespace(t, "b")
	layCable(t, a, b)
	return a, b
}

func newNamespace(t *testing.T, suffix string) *netns.NS {
	t.Helper()
	name := fmt.Sprintf("bfd-%d-%s-%x", os.Getpid(), suffix, time.Now().UnixNano()&0xffffff)
	if err := netns.Create(name); err != nil {
		t.Fatal(err)
	}
	ns, err := netns.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = ns.Close()
		if err := netns.Delete(name); err != nil {
			t.Error(err)
		}
	})
	return ns
}

// layCable makes the veth pair; a cable that lay there before is gone.
func layCable(t *testing.T, a, b *netns.NS) {
	t.Helper()
	ip(t, "-n", a.Name(), "link", "add", "p0", "type", "veth", "peer", "name", "p0", "netns", b.Name())
	for suffix, ns := range map[string]*netns.NS{"a": a, "b": b} {
		ip(t, "-n", ns.Name(), "link", "set", "p0", "addrgenmode", "none")
		ip(t, "-n", ns.Name(), "link", "set", "p0", "up")
		ip(t, "-n", ns.Name(), "addr", "add", linkLocal[suffix].String()+"/64", "dev", "p0", "nodad")
	}
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// mute drops what arrives at p0, all of it, with the carrier staying.
func mute(t *testing.T, ns *netns.NS) {
	t.Helper()
	nft(t, ns, "add table netdev mute; add chain netdev mute in { type filter hook ingress device p0 priority 0; policy drop; }")
}

func unmute(t *testing.T, ns *netns.NS) { t.Helper(); nft(t, ns, "delete table netdev mute") }

func nft(t *testing.T, ns *netns.NS, rules string) {
	t.Helper()
	if out, err := exec.Command("ip", "netns", "exec", ns.Name(), "nft", rules).CombinedOutput(); err != nil {
		t.Fatalf("nft %s: %v\n%s", rules, err, out)
	}
}

// newNode runs a client in ns, which starts the process there.
func newNode(t *testing.T, ns *netns.NS, peer netip.Addr) *node {
	t.Helper()
	n := &node{ns: ns, peer: peer, socket: filepath.Join(t.TempDir(), "bfd.sock")}
	n.agent(t)
	t.Cleanup(func() {
		n.stop()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := NewClient(n.socket, nil, testLog(t)).Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return n
}

// agent runs a new client on the node.
func (n *node) agent(t *testing.T) {
	t.Helper()
	n.Client, n.stop = runClient(t, n.socket, n.start(t))
}

func (n *node) start(t *testing.T) func(context.Context) error {
	t.Helper()
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	start := Start(executable, n.socket, os.Stderr)
	return func(ctx context.Context) error {
		return n.ns.Do(func() error { return start(ctx) })
	}
}

func (n *node) watchPeer() { n.Set([]Session{ask(n.peer)}) }

func (n *node) await(t *testing.T, state string) State {
	t.Helper()
	return await(t, n.Client, "state "+state, func(st State) bool { return st.State == state })
}

// newPair is two nodes that are up with each other.
func newPair(t *testing.T) (a, b *node) {
	t.Helper()
	nsA, nsB := newNamespaces(t)
	a, b = newNode(t, nsA, peerB), newNode(t, nsB, peerA)
	a.watchPeer()
	b.watchPeer()
	if st := a.await(t, "up"); !st.RemoteIndependent || !st.EverUp {
		t.Errorf("a %+v", st)
	}
	b.await(t, "up")
	return a, b
}

func TestWireSilence(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	mute(t, a.ns)
	if st := a.await(t, "down"); st.Diagnostic != "control detection time expired" || !st.EverUp {
		t.Errorf("a, which hears nothing: %+v", st)
	}
	if st := b.await(t, "down"); !strings.Contains(st.Diagnostic, "does not hear us") {
		t.Errorf("b, which a does not hear: %+v", st)
	}
	unmute(t, a.ns)
	if st := a.await(t, "up"); st.Flaps != 1 {
		t.Errorf("a %+v, want one flap", st)
	}
}

func TestWireAgentDiesAndReturns(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	before := daemonPID(t, a.socket)
	a.stop()
	b.Set([]Session{ask(peerA), absent(1)}) // b's agent goes on
	await(t, b.Client, "an event of another session", at(absent(1)))

	a.agent(t)
	st := a.await(t, "up")
	if st.Flaps != 0 {
		t.Errorf("a %+v, want the session that went on", st)
	}
	a.watchPeer()
	if now := daemonPID(t, a.socket); now != before {
		t.Errorf("process %d, was %d: it did not outlive the agent", now, before)
	}
	mute(t, a.ns)
	if st := b.await(t, "down"); st.Flaps != 1 {
		t.Errorf("b %+v, want its first flap to be the muted cable", st)
	}
}

func TestWireStopIsNoFailure(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := a.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(a.socket); err == nil {
		t.Error("the socket is still there")
	}
	st := await(t, b.Client, "the next state", func(State) bool { return true })
	if st.State != "admin-down" {
		t.Errorf("b %+v, want admin-down", st)
	}
}

func TestWireProcessKilled(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	before := daemonPID(t, a.socket)
	if err := unix.Kill(before, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// The agent starts another at once: b may find down and up in one.
	await(t, b.Client, "a flap that is over", func(st State) bool { return st.State == "up" && st.Flaps == 1 })
	if st := a.await(t, "up"); st.Flaps != 0 {
		t.Errorf("a %+v", st)
	}
	if now := daemonPID(t, a.socket); now == before {
		t.Error("the same process")
	}
}

func TestWireCableMadeAnew(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	ip(t, "-n", a.ns.Name(), "link", "del", "p0")
	a.await(t, "down")
	b.await(t, "down")
	layCable(t, a.ns, b.ns)
	a.await(t, "up")
	b.await(t, "up")
}

func TestWirePortRenamed(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	ip(t, "-n", a.ns.Name(), "link", "set", "p0", "down")
	ip(t, "-n", a.ns.Name(), "link", "set", "p0", "name", "p1")
	ip(t, "-n", a.ns.Name(), "link", "set", "p1", "up")
	ip(t, "-n", a.ns.Name(), "addr", "replace", peerA.String()+"/64", "dev", "p1", "nodad")
	b.await(t, "down")
	moved := ask(peerB)
	moved.Port = "p1"
	a.Set([]Session{moved})
	b.await(t, "up")
	await(t, a.Client, "the session on its new port", func(st State) bool { return st.Port == "p1" && st.State == "up" })
}

// Garbage and a flood of it leave the session alone.
func TestWireGarbage(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	good, err := hex.DecodeString(golden)
	if err != nil {
		t.Fatal(err)
	}
	spoofed := append([]byte(nil), good...)
	spoofed[1] = byte(down) << 6
	clear(spoofed[8:12])
	packets := [][]byte{nil, {0}, good[:23], make([]byte, 24), make([]byte, 1400), good}
	b.flood(t, hopLimit, packets, 10_000)
	b.flood(t, 254, [][]byte{spoofed}, 1000) // what would end the session, had it not been forwarded

	b.Set([]Session{ask(peerA), absent(1)})
	a.Set([]Session{ask(peerB), absent(1)})
	for _, n := range []*node{a, b} {
		st := await(t, n.Client, "an event", func(State) bool { return true })
		if st.Port != "absent1" {
			t.Errorf("garbage made %+v", st)
		}
	}
	b.flood(t, hopLimit, [][]byte{spoofed}, 1)
	// Else the test shows nothing. It may be up again before it is told of as down.
	await(t, a.Client, "the end that a spoofed packet makes", func(st State) bool { return st.Flaps == 1 })
}

// flood sends count packets from n's port to its peer.
func (n *node) flood(t *testing.T, hops int, packets [][]byte, count int) {
	t.Helper()
	err := n.ns.Do(func() error {
		fd, err := openSocket("p0", 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, hops); err != nil {
			return err
		}
		to := &unix.SockaddrInet6{Port: controlPort, Addr: n.peer.As16()}
		for i := range count {
			if err := unix.Sendto(fd, packets[i%len(packets)], 0, to); err != nil && err != unix.EAGAIN {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSecondProcessRefuses(t *testing.T) {
	t.Parallel()
	n := newNode(t, newNamespace(t, "a"), peerB)
	n.watchPeer()
	await(t, n.Client, "the process", func(State) bool { return true })
	before := daemonPID(t, n.socket)
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, executable, "bfd", "--socket", n.socket).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "another process serves "+n.socket) {
		t.Errorf("second process: error %v, output %s", err, out)
	}
	if now := daemonPID(t, n.socket); now != before {
		t.Errorf("process %d, was %d", now, before)
	}
}

// All of the process runs in real time where root may; mlockall likewise.
func TestProcessRunsRealtime(t *testing.T) {
	t.Parallel()
	n := newNode(t, newNamespace(t, "a"), peerB)
	n.watchPeer()
	await(t, n.Client, "the process", func(State) bool { return true })
	pid := daemonPID(t, n.socket)
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		var id int
		if _, err := fmt.Sscan(thread.Name(), &id); err != nil {
			t.Fatal(err)
		}
		attr, err := unix.SchedGetAttr(id, 0)
		if err != nil {
			t.Fatal(err)
		}
		if attr.Policy != unix.SCHED_RR || attr.Priority != realtimePriority {
			t.Errorf("thread %d of %d: policy %d, priority %d", id, len(threads), attr.Policy, attr.Priority)
		}
	}
	if session, err := unix.Getsid(pid); err != nil || session != pid {
		t.Errorf("session %d of process %d, error %v: it would die with the agent's", session, pid, err)
	}
}

// daemonPID asks the process behind a socket for its id.
func daemonPID(t *testing.T, socket string) int {
	t.Helper()
	c := dialRaw(t, socket)
	defer func() { _ = c.Close() }()
	var pid int
	if _, err := fmt.Sscanf(c.lines.Text(), `{"hello":{"protocol":1,"pid":%d}}`, &pid); err != nil {
		t.Fatal(err)
	}
	return pid
}
