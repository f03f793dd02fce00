package lab

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestAnycastGateway has every other node of the segment fail in every way
// under traffic of a guest to the internet: nothing of it is lost.
func TestAnycastGateway(t *testing.T) {
	w := outward(t, "anycast", 1)
	w.whole()
	home, err := w.Guest("g1")
	must(t, err)
	for _, f := range faults[:4] {
		t.Run(f.name, func(t *testing.T) {
			w := w.in(t)
			for _, n := range w.Topology.Nodes {
				// Without cables, a spine or an exit loses what is under way.
				routes := n.Role != "leaf" && (f.name == "isolated" || f.name == "powered off")
				if n.Name == home.Node || routes {
					continue
				}
				stop := w.echoes("g1")
				time.Sleep(200 * time.Millisecond)
				f.do(w, n.Name)
				time.Sleep(500 * time.Millisecond)
				r := stop()
				f.undo(w, n.Name)
				w.steady()
				w.nothingLost(r)
			}
		})
	}
}

// TestAnycastRestarts restarts every agent in turn, that of the guest's own
// node too: nothing is lost.
func TestAnycastRestarts(t *testing.T) {
	w := outward(t, "anyrestart", 1)
	w.whole()
	stop := w.echoes("g1")
	for _, n := range w.Topology.Nodes {
		must(t, w.Stop(t.Context(), n.Name))
		must(t, w.Start(n.Name))
		w.steady()
	}
	w.nothingLost(stop())
}

// TestCheckGateway has a check find what is wrong with gateways.
func TestCheckGateway(t *testing.T) {
	both := func(document string) string {
		return elects(document) + "  red: {vni: 200, nodes: [\"leaf*\"], prefix: 172.17.0.0/24, gateway: {address: 172.17.0.1}}\n"
	}
	w := populate(t, "checkgateway", SpineLeaf(1, 2), 2, both)
	for _, node := range []string{"leaf1", "leaf2"} {
		g, err := w.NextGuest("red", node)
		must(t, err)
		must(t, w.AddGuest(t.Context(), g))
	}
	w.whole()
	check := func() []string {
		t.Helper()
		proof, err := w.Check(t.Context(), CheckConfig{Timeout: time.Second}, silent)
		must(t, err)
		if len(proof.Segments) != 2 || proof.Segments[0].Gateway == nil || proof.Segments[1].Gateway == nil {
			t.Fatalf("%+v; want two segments with gateways", proof)
		}
		if g := proof.Segments[1].Gateway; g.Rounds != 4 {
			t.Errorf("%+v; want each of two guests to ask the other segment and a node", g)
		}
		return proof.Failures
	}
	names := func(want string) {
		t.Helper()
		if failures := check(); !slices.ContainsFunc(failures, func(f string) bool { return strings.Contains(f, want) }) {
			t.Errorf("%q; want %q", failures, want)
		}
	}
	if failures := check(); len(failures) > 0 {
		t.Fatal(failures)
	}

	holder := w.gatewayOf("leaf1", "blue").Holder
	other := map[string]string{"leaf1": "leaf2", "leaf2": "leaf1"}[holder]
	w.inside(other, "ip addr add 172.16.0.1/16 dev br-blue")
	names("the gateway of segment blue is on several nodes: leaf1, leaf2")
	w.inside(other, "ip addr del 172.16.0.1/16 dev br-blue")

	// Nothing mends what follows as long as no agent runs there.
	must(t, w.Kill(t.Context(), "leaf1"))
	w.inside("leaf1", "ip addr del 172.17.0.1/24 dev br-red")
	w.inside("leaf1", "ip link set br-red address 02:00:00:00:00:99")
	g, err := w.Guest("g3")
	must(t, err)
	w.inside("leaf1", "bridge fdb replace 02:68:00:00:00:c8 dev vx-red dst "+w.node("leaf2").Loopback.String()+" self")
	w.inside("leaf1", "bridge fdb replace 02:68:00:00:00:c8 dev vx-red master static")
	failures := check()
	for _, want := range []string{"to or from the gateway of segment red crossed the fabric"} {
		if !slices.ContainsFunc(failures, func(f string) bool { return strings.Contains(f, want) }) {
			t.Errorf("%s sends by leaf2: %q; want %q", g.Name, failures, want)
		}
	}
	must(t, w.Start("leaf1"))
	w.whole()
}
