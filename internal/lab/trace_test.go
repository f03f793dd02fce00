package lab

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"frond/internal/api"
	"frond/internal/status"
	"frond/internal/trace"
)

// way is a trace as its hops, each with the ports that it is left by.
func way(t trace.Trace) string {
	var words []string
	for _, hop := range t.Hops {
		word := hop.Node
		for _, next := range hop.Next {
			if next.Leg != nil {
				word += " " + next.Leg.Port
			}
		}
		if hop.Answer != nil && hop.Answer.Port != "" {
			word += " @" + hop.Answer.Port
		}
		words = append(words, word)
	}
	return strings.Join(append(words, string(t.Outcome)), ", ")
}

// goes waits until the way from one to another is as wanted.
func (w *world) goes(from, to, want string) trace.Trace {
	w.t.Helper()
	var got string
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); time.Sleep(askInterval) {
		found, err := w.Trace(w.t.Context(), from, to)
		if got = fmt.Sprint(way(found), err); got == want+"<nil>" {
			return found
		}
	}
	w.t.Fatalf("from %s to %s:\n got %s\nwant %s", from, to, got, want)
	return trace.Trace{}
}

func TestTrace(t *testing.T) {
	w := populate(t, "trace", SpineLeaf(2, 2), 4) // g1 and g3 are on leaf1, g2 and g4 on leaf2
	w.whole()
	const both = "leaf1, leaf1 eth1 eth2, spine1 eth2, leaf2 @lo, leaf2 @vg2, spine2 eth2, delivered"

	t.Run("guests", func(t *testing.T) {
		w := w.in(t)
		found := w.goes("g1", "g2", both)
		if found.From.Port != "vg1" || found.From.Node != "leaf1" || found.To.Node != "leaf2" {
			t.Errorf("from %+v to %+v", found.From, found.To)
		}
		w.goes("172.16.0.11", "02:67:00:00:00:02", both)
		w.goes("g1", "g3", "leaf1 @vg3, delivered")
	})
	t.Run("nodes", func(t *testing.T) {
		w := w.in(t)
		w.goes("leaf1", "leaf2", "leaf1 eth1 eth2, spine1 eth2, leaf2 @lo, spine2 eth2, delivered")
		w.goes("spine1", w.node("leaf2").Loopback6.String(), "spine1 eth2, leaf2 @lo, delivered")
		w.goes("leaf1", "192.0.2.1", "leaf1, lost")
	})
	t.Run("nobody", func(t *testing.T) {
		w := w.in(t)
		found := w.goes("g1", "02:67:00:00:00:99", "leaf1, lost")
		if last := found.Hops[0]; last.Answer.Action != status.Flood || !strings.Contains(last.Problem, "nobody is known by this MAC") {
			t.Errorf("to nobody: %+v", last)
		}
		if _, err := w.Trace(t.Context(), "02:67:00:00:00:99", "g1"); err == nil || !strings.Contains(err.Error(), "no node that was asked knows 02:67:00:00:00:99") {
			t.Errorf("from nobody: %v", err)
		}
		found = w.goes("g1", "172.16.0.99", "leaf1, lost")
		if last := found.Hops[0]; !strings.Contains(last.Problem, "nobody on segment blue is known to have 172.16.0.99") {
			t.Errorf("to nobody's address: %+v", last)
		}
	})
	t.Run("black hole", func(t *testing.T) {
		w := w.in(t)
		w.inside("spine2", "ip route add blackhole "+w.node("leaf2").Loopback.String()+" metric 1")
		found := w.goes("g1", "g2", "leaf1, leaf1 eth1 eth2, spine1 eth2, leaf2 @lo, leaf2 @vg2, spine2, partly")
		if problem := found.Hops[5].Problem; !strings.Contains(problem, "blackhole") {
			t.Errorf("spine2: %q", problem)
		}
		w.inside("spine2", "ip route del blackhole "+w.node("leaf2").Loopback.String()+" metric 1")
		w.goes("g1", "g2", both)
	})
	t.Run("agent killed", func(t *testing.T) {
		w := w.in(t)
		must(t, w.Kill(t.Context(), "spine1"))
		found := w.goes("g1", "g2", "leaf1, leaf1 eth1 eth2, spine1, spine2 eth2, leaf2 @lo, leaf2 @vg2, unknown")
		if problem := found.Hops[2].Problem; !strings.Contains(problem, "no agent runs") {
			t.Errorf("spine1: %q", problem)
		}
		must(t, w.Start("spine1"))
		w.goes("g1", "g2", both)
	})
	t.Run("cable cut", func(t *testing.T) {
		w := w.in(t)
		must(t, w.Cut(end("spine1"), end("leaf1")))
		w.goes("g1", "g2", "leaf1, leaf1 eth2, spine2 eth2, leaf2 @lo, leaf2 @vg2, delivered")
		must(t, w.Mend(end("spine1"), end("leaf1")))
		w.goes("g1", "g2", both)
	})
	t.Run("guest moved", func(t *testing.T) {
		w := w.in(t)
		must(t, w.MoveGuest(t.Context(), "g2", "leaf1", true))
		w.goes("g1", "g2", "leaf1 @vg2, delivered")
	})
}

// TestTraceBetweenSegments has guests of different segments reach each other
// by the gateway that every node holds.
func TestTraceBetweenSegments(t *testing.T) {
	w := populate(t, "traceroute", SpineLeaf(1, 2), 2)
	w.whole()
	document, err := os.ReadFile(w.Document())
	must(t, err)
	gateways := strings.Replace(string(document), "prefix: 172.16.0.0/16", "prefix: 172.16.0.0/16, gateway: {address: 172.16.0.1}", 1) +
		"  red: {vni: 200, nodes: [leaf1, leaf2], prefix: 172.17.0.0/16, gateway: {address: 172.17.0.1}}\n"
	must(t, os.WriteFile(w.Document(), []byte(gateways), 0o644))
	for _, n := range w.Topology.Nodes {
		must(t, api.NewClient(w.Socket(n.Name)).Reload(t.Context()))
	}
	red, err := w.NextGuest("red", "leaf2")
	must(t, err)
	must(t, w.AddGuest(t.Context(), red))
	w.inside(red.Name, "ping -c 1 -w 10 172.17.0.1")
	w.goes("g1", red.Address.Addr().String(), "leaf1 eth1, spine1 eth2, leaf2 br-red, leaf2 @v"+red.Name+", delivered")
	w.goes("g1", "leaf2", "leaf1 eth1, spine1 eth2, leaf2 @lo, delivered")
}
