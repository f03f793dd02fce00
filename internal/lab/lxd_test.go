package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"frond/internal/api"
	"frond/internal/fabric"
	"frond/internal/status"
)

// hypervisors is a world of three leafs with one LXD cluster, and an exit.
func hypervisors(t testing.TB, name string) *world {
	t.Helper()
	topology, err := SpineLeaf(2, 3).WithExits(1)
	must(t, err)
	document := WithSegment(Document(name, topology), topology, true)
	f, err := fabric.Parse("fabric.yaml", document, ".")
	must(t, err)
	topology, err = topology.WithInternet(f)
	must(t, err)
	w := raise(t, name, topology, Source{Content: document})
	w.steady()
	must(t, w.UpLXD(t.Context(), silent))
	return w
}

// lxc runs LXD's client on leaf1.
func (w *world) lxc(words string) string {
	w.t.Helper()
	out, err := w.LXC(w.t.Context(), "leaf1", strings.Fields(words)...)
	must(w.t, err)
	return out
}

// pings wants an instance to reach an address.
func (w *world) pings(from, to string) {
	w.t.Helper()
	if out, err := w.LXC(w.t.Context(), "leaf1", "exec", from, "--", "ping", "-c", "1", "-W", "5", to); err != nil {
		w.t.Errorf("%s does not reach %s: %v\n%s", from, to, err, out)
	}
}

// station waits until a node says of a MAC what is wanted.
func (w *world) station(node, mac, what string, ok func(status.MAC) bool) (m status.MAC) {
	w.t.Helper()
	client := api.NewClient(w.Socket(node))
	ctx, cancel := context.WithTimeout(w.t.Context(), 50*time.Second)
	defer cancel()
	err := poll(ctx, func() bool {
		all, err := client.MACs(ctx, "")
		i := slices.IndexFunc(all, func(m status.MAC) bool { return m.MAC == mac })
		if err != nil || i < 0 {
			m = status.MAC{}
			return err == nil && ok(m)
		}
		m = all[i]
		return ok(m)
	}, node+" says of "+mac+": "+what)
	if err != nil {
		w.t.Fatalf("%v: %+v", err, m)
	}
	return m
}

// hypervisor waits until a node's agent says of its hypervisor what is wanted.
func (w *world) hypervisor(node, what string, ok func(status.Hypervisor) bool) {
	w.t.Helper()
	var h status.Hypervisor
	ctx, cancel := context.WithTimeout(w.t.Context(), 40*time.Second)
	defer cancel()
	err := poll(ctx, func() bool {
		said, err := api.NewClient(w.Socket(node)).Hypervisor(ctx)
		if err == nil {
			h = said
		}
		return err == nil && ok(h)
	}, node+": "+what)
	if err != nil {
		w.t.Fatalf("%v: %+v", err, h)
	}
}

func gone(m status.MAC) bool { return m.MAC == "" }

// TestHypervisors is the story of racks of hypervisors: three of them in one
// cluster, whose instances get addresses, reach each other and the internet,
// and are not harmed by what their hypervisor goes through.
func TestHypervisors(t *testing.T) {
	w := hypervisors(t, "lxd")
	within := netip.MustParsePrefix("172.16.0.0/16")
	var all []Instance
	for n := range 4 { // LXD chooses the nodes
		i, err := w.Launch(t.Context(), fmt.Sprintf("c%d", n+1), "")
		must(t, err)
		if !within.Contains(i.Address) || slices.ContainsFunc(all, func(o Instance) bool { return o.Address == i.Address }) {
			t.Errorf("%+v has a wrong address", i)
		}
		all = append(all, i)
	}
	var nodes []string
	listed := w.lxc("list --format csv -c n4L")
	for _, i := range all {
		nodes = append(nodes, i.Node)
		if line := i.Name + "," + i.Address.String() + " (eth0)," + i.Node; !strings.Contains(listed, line) {
			t.Errorf("lxc list has no %q:\n%s", line, listed)
		}
		for _, far := range append([]Instance{{Name: "the gateway", Address: netip.MustParseAddr("172.16.0.1")}, {Name: "the internet", Address: FarAway()[0]}}, all...) {
			w.pings(i.Name, far.Address.String())
		}
		for _, node := range w.LXDNodes() {
			m := w.station(node, i.MAC, "has name and address", func(m status.MAC) bool {
				return m.Name == i.Name && slices.Contains(m.IPs, i.Address.String())
			})
			if m.Local != (node == i.Node) {
				t.Errorf("%s says of %+v: %+v", node, i, m)
			}
		}
	}
	slices.Sort(nodes)
	if len(slices.Compact(nodes)) != 3 {
		t.Fatalf("the instances are on %v", nodes)
	}
	first := all[0]
	other := all[slices.IndexFunc(all, func(i Instance) bool { return i.Node != first.Node })]
	found, err := w.Trace(t.Context(), first.Name, other.Name)
	if err != nil || found.Outcome != "delivered" {
		t.Errorf("trace from %+v to %+v: %v, %+v", first, other, err, found)
	}

	t.Run("named", func(t *testing.T) { w.in(t).names(first, other) })
	t.Run("set up", func(t *testing.T) { w.in(t).setsUp() })
	t.Run("stopped and started", func(t *testing.T) { w.in(t).knownBeforeItsFirstFrame(first) })
	t.Run("moved", func(t *testing.T) { w.in(t).moves(first.Name) })
	t.Run("held", func(t *testing.T) { w.in(t).holds(first) })
	t.Run("carrying", func(t *testing.T) { w.in(t).carries(first.Name, other.Name) })
	t.Run("without LXD", func(t *testing.T) { w.in(t).outlivesLXD(other) })
	t.Run("frozen", func(t *testing.T) { w.in(t).outlivesFreeze(other) })
	t.Run("impostor", func(t *testing.T) { w.in(t).outlivesImpostor(other) })
	t.Run("certificate", func(t *testing.T) { w.in(t).outlivesCertificate(other) })
	t.Run("removed", func(t *testing.T) { w.in(t).outlivesRemoval(all) })
	t.Run("nothing is left", func(t *testing.T) { w.in(t).leavesNothing() })
}

// names has instances be known by name: to each other, and to who asks an agent.
func (w *world) names(from, to Instance) {
	for _, i := range []Instance{from, to} {
		name := i.Name + ".blue." + w.Name
		for question, want := range map[string]string{name: i.Address.String(), i.Address.String(): name} {
			out, err := w.LXC(w.t.Context(), "leaf1", "exec", from.Name, "--", "nslookup", question)
			if err != nil || !strings.Contains(out, want) {
				w.t.Errorf("%s is no answer to %s: %v\n%s", want, question, err, out)
			}
		}
		for _, node := range w.LXDNodes() {
			leases, err := api.NewClient(w.Socket(node)).Leases(w.t.Context(), "blue")
			if err != nil || !slices.ContainsFunc(leases, func(l status.Lease) bool { return l.Address == i.Address.String() && l.Name == i.Name }) {
				w.t.Errorf("%s has no lease with the name of %+v: %v, %+v", node, i, err, leases)
			}
		}
	}
	trace := exec.CommandContext(w.t.Context(), w.Binary, "trace", from.Name, to.Name, "--socket", w.Socket(from.Node))
	if out, _ := trace.CombinedOutput(); !strings.Contains(string(out), to.Name) || !strings.Contains(string(out), to.Node) {
		w.t.Errorf("a trace by names says\n%s", out)
	}
}

// setsUp has a profile without an interface get one, and an instance land on the
// segment by it.
func (w *world) setsUp() {
	setup := func(more ...string) string {
		words := append([]string{"lxd", "setup", "--profile", "bare", "--socket", w.Socket("leaf1")}, more...)
		out, err := exec.CommandContext(w.t.Context(), w.Binary, words...).CombinedOutput()
		if err != nil {
			out = fmt.Appendf(out, "%v", err)
		}
		return string(out)
	}
	w.lxc("profile create bare")
	w.lxc("profile device add bare root disk path=/ pool=default")
	for _, step := range []struct{ out, want string }{
		{setup(), "nothing is changed"},
		{w.lxc("profile device list bare"), "root"},
		{setup("--yes"), "device eth0 is added: name=eth0, nictype=bridged, parent=br-blue, type=nic"},
		{setup("--yes"), "Nothing is to be changed"},
		{w.lxc("profile device get bare eth0 parent"), "br-blue"},
	} {
		if !strings.Contains(step.out, step.want) {
			w.t.Errorf("%q is not in: %s", step.want, step.out)
		}
	}
	w.lxc("launch " + ImageAlias + " bare --profile bare --quiet")
	_, err := w.Addressed(w.t.Context(), "bare")
	must(w.t, err)
	w.pings("bare", "172.16.0.1")
	w.lxc("delete -f bare")
}

// knownBeforeItsFirstFrame has an instance end and start, and wants the other
// nodes to have learned that before it sends anything.
func (w *world) knownBeforeItsFirstFrame(i Instance) {
	far := w.elsewhere(i.Node)
	w.lxc("stop -f " + i.Name)
	w.station(far, i.MAC, "is gone", gone)
	node, err := w.Host(i.Node)
	must(w.t, err)
	defer func() { must(w.t, node.Close()) }()
	listen := exec.CommandContext(w.t.Context(), "tcpdump", "-tt", "-lnni", "br-blue", "-c", "1", "ether", "src", i.MAC)
	stdout, err := listen.StdoutPipe()
	must(w.t, err)
	stderr, err := listen.StderrPipe()
	must(w.t, err)
	must(w.t, node.Start(listen))
	begun := make([]byte, 1<<10)
	_, err = stderr.Read(begun) // that it listens
	must(w.t, err)
	w.lxc("start " + i.Name)
	frame, err := io.ReadAll(stdout)
	must(w.t, err)
	_, _ = io.Copy(io.Discard, stderr)
	must(w.t, listen.Wait())
	stamp, _, _ := bytes.Cut(frame, []byte(" "))
	seconds, err := strconv.ParseFloat(string(stamp), 64)
	if err != nil {
		w.t.Fatalf("tcpdump says %q", frame)
	}
	first := time.UnixMicro(int64(seconds * 1e6))
	known := w.station(far, i.MAC, "is back", func(m status.MAC) bool { return !gone(m) })
	if !known.Since.Before(first) {
		w.t.Errorf("%s knows it since %s, its first frame was sent at %s", far, known.Since, first)
	}
	w.t.Logf("%s knew it %s before its first frame", far, first.Sub(known.Since))
	again, err := w.Addressed(w.t.Context(), i.Name)
	must(w.t, err)
	if again.Address != i.Address {
		w.t.Errorf("it had %s and has %s", i.Address, again.Address)
	}
}

// elsewhere is a node with LXD that is another one.
func (w *world) elsewhere(node string) string {
	nodes := w.LXDNodes()
	return nodes[slices.IndexFunc(nodes, func(n string) bool { return n != node })]
}

// moves has an instance stop, move to another member and start there.
func (w *world) moves(name string) {
	before, err := w.Instance(w.t.Context(), name)
	must(w.t, err)
	to := w.elsewhere(before.Node)
	w.lxc("stop -f " + name)
	w.lxc("move " + name + " --target " + to)
	w.lxc("start " + name)
	after, err := w.Addressed(w.t.Context(), name)
	must(w.t, err)
	if after.Node != to || after.MAC != before.MAC || after.Address != before.Address {
		w.t.Errorf("it was %+v and is %+v", before, after)
	}
	for _, node := range w.LXDNodes() {
		w.station(node, after.MAC, "is there", func(m status.MAC) bool { return m.Name == name && m.Local == (node == to) })
	}
	w.pings(name, "172.16.0.1")
}

// leavesNothing takes the lab down.
func (w *world) leavesNothing() {
	_, err := Down(w.t.Context(), w.Name)
	must(w.t, err)
	left, err := filepath.Glob("/sys/fs/cgroup/*/" + cgroupOf(w.Name, "*"))
	must(w.t, err)
	if _, err := os.Stat(filepath.Join(lxdRoot, w.Name)); !os.IsNotExist(err) || len(left) > 0 {
		w.t.Errorf("left are %s (%v) and cgroups %v", filepath.Join(lxdRoot, w.Name), err, left)
	}
}
