package lab

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"frond/internal/api"
	"frond/internal/probe"
	"frond/internal/status"
)

// fault is what happens to a node, and how that is undone.
type fault struct {
	name string
	do   func(w *world, node string)
	undo func(w *world, node string)
}

// drain asks as an operator would: again, and elsewhere, while the store does not
// take it. Its members may be just beginning.
func (w *world) drain(node string, drained bool) {
	w.t.Helper()
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); time.Sleep(askInterval) {
		for _, n := range w.Topology.Nodes {
			if n.Name == node {
				continue
			}
			if err := api.NewClient(w.Socket(n.Name)).Drain(w.t.Context(), node, drained); err == nil {
				return
			}
		}
	}
	w.t.Fatalf("nobody takes the drain of %s", node)
}

var faults = []fault{
	{"killed",
		func(w *world, node string) { must(w.t, w.Kill(w.t.Context(), node)) },
		func(w *world, node string) { must(w.t, w.Start(node)) }},
	{"frozen",
		func(w *world, node string) { must(w.t, w.Freeze(node)) },
		func(w *world, node string) { must(w.t, w.Thaw(node)) }},
	{"isolated",
		func(w *world, node string) { must(w.t, w.Mute(end(node), End{}, false)) },
		func(w *world, node string) { must(w.t, w.Mend(end(node), End{})) }},
	{"powered off",
		func(w *world, node string) { must(w.t, w.Cut(end(node), End{})) },
		func(w *world, node string) { must(w.t, w.Mend(end(node), End{})) }},
	{"drained",
		func(w *world, node string) { w.drain(node, true) },
		func(w *world, node string) { w.drain(node, false) }},
	{"stopped",
		func(w *world, node string) { must(w.t, w.Stop(w.t.Context(), node)) },
		func(w *world, node string) { must(w.t, w.Start(node)) }},
}

// throughGateway is traffic between a guest and a spine's loopback, so many flows
// of so many packets a second; what it returns stops it.
func (w *world) throughGateway(guest string, flows, rate int) func() probe.Result {
	w.t.Helper()
	g, err := w.Guest(guest)
	must(w.t, err)
	ns, err := w.Host(guest)
	must(w.t, err)
	w.t.Cleanup(func() { must(w.t, ns.Close()) })
	p, err := probe.Start(w.t.Context(), probe.Config{
		From: ns, To: w.namespace("spine1"), FromAddr: g.Address.Addr(), ToAddr: w.node("spine1").Loopback,
		Flows: flows, Rate: rate,
	})
	must(w.t, err)
	return p.Stop
}

// throughGateways is traffic of each of several guests; what it returns stops it,
// and tells the longest outage.
func (w *world) throughGateways(guests []string, flows, rate int) func() time.Duration {
	w.t.Helper()
	var stops []func() probe.Result
	for _, guest := range guests {
		stops = append(stops, w.throughGateway(guest, flows, rate))
	}
	return func() time.Duration {
		var worst time.Duration
		for _, stop := range stops {
			worst = max(worst, stop().Worst().Outage)
		}
		return worst
	}
}

// reachOut waits until each guest reaches a spine through its gateway.
func (w *world) reachOut(guests []string) {
	w.t.Helper()
	for _, guest := range guests {
		w.reachesOut(guest)
	}
}

// reachesOut waits until a guest reaches a spine through its gateway.
func (w *world) reachesOut(guest string) {
	w.t.Helper()
	ns, err := w.Host(guest)
	must(w.t, err)
	defer func() { must(w.t, ns.Close()) }()
	loopback := w.node("spine1").Loopback.String()
	var out []byte
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); {
		if ns.Do(func() (err error) {
			out, err = exec.Command("ping", "-c", "1", "-W", "1", loopback).CombinedOutput()
			return err
		}) == nil {
			return
		}
	}
	w.t.Fatalf("%s never reaches %s:\n%s", guest, loopback, out)
}

// guestsBesides are a guest of each node but this one.
func (w *world) guestsBesides(node string) []string {
	var guests []string
	seen := map[string]bool{node: true}
	for _, g := range w.Topology.Guests {
		if !seen[g.Node] {
			guests, seen[g.Node] = append(guests, g.Name), true
		}
	}
	return guests
}

// knowsGateway waits until guests have been told that a node has the gateway:
// they send nothing meanwhile, so they do not ask either.
func (w *world) knowsGateway(holder string, guests ...string) {
	w.t.Helper()
	mac := strings.Fields(strings.SplitAfter(w.inside(holder, "ip -o link show br-blue"), "link/ether ")[1])[0]
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	for _, guest := range guests {
		must(w.t, poll(ctx, func() bool {
			return strings.Contains(w.inside(guest, "ip neigh show "+electedAddress.String()), mac)
		}, fmt.Sprintf("%s is not told that %s has the gateway", guest, holder)))
	}
}

// TestElectedGateway has the holder fail in every way that there is: another
// node takes the gateway, never two have it, and guests of others reach out.
func TestElectedGateway(t *testing.T) {
	w := electedWorld(t, "elected", SpineLeaf(2, 3), 6)
	holder := w.watchHolders(electedAddress)
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			w := w.in(t)
			w.steady()
			before := holder.one(t, 20*time.Second)
			guests := w.guestsBesides(before)
			w.reachOut(guests)
			f.do(w, before)
			after := holder.one(t, 20*time.Second, before)
			w.knowsGateway(after, guests...)
			w.reachOut(guests)
			f.undo(w, before)
			w.steady()
			for _, g := range w.Topology.Guests {
				w.reachesOut(g.Name)
			}
			if now := holder.one(t, time.Second); now != after {
				t.Errorf("the gateway has moved on from %s to %s though nothing happened", after, now)
			}
			for _, node := range []string{"leaf1", "spine1"} {
				w.says(node, "who has the gateway", func(g status.Gateway) bool {
					return g.Holder == after && g.Mode == "elected" && g.Term > 0
				})
			}
			holder.never(t)
		})
	}
}

// TestElectedWithoutStore has two of three members away: the gateway's address
// goes with its lease, anycast gateways and forwarding do not care, and all
// comes back by itself.
func TestElectedWithoutStore(t *testing.T) {
	both := func(document string) string {
		return elects(document) + "  red: {vni: 200, nodes: [\"leaf*\"], prefix: 172.17.0.0/24, gateway: {address: 172.17.0.1}}\n"
	}
	w := populate(t, "nostore", SpineLeaf(2, 3), 3, both)
	holder := w.watchHolders(electedAddress)
	w.steady()
	holder.one(t, 20*time.Second)
	stop := w.traffic("leaf2", "leaf3")
	for _, spine := range []string{"spine1", "spine2"} {
		must(t, w.Kill(t.Context(), spine))
	}
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		now, _ := holder.state()
		if len(now) == 0 {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("without a store, %s still has the gateway", now)
		}
	}
	w.eventually("leaf2", "says that the store is away", func(s status.Snapshot) bool {
		return strings.Contains(fmt.Sprint(s.Conditions), "store-away")
	})
	for _, node := range []string{"leaf1", "leaf2", "leaf3"} {
		if !strings.Contains(w.inside(node, "ip -4 addr show dev br-red"), "172.17.0.1/24") {
			t.Errorf("%s has lost its anycast gateway", node)
		}
	}
	for _, spine := range []string{"spine1", "spine2"} {
		must(t, w.Start(spine))
	}
	w.nothingLost(stop())
	w.steady()
	holder.one(t, 20*time.Second)
	holder.never(t)
}

// TestElectedRestarts restarts every agent in turn: each restart moves the
// gateway once at the most, and never back.
func TestElectedRestarts(t *testing.T) {
	w := electedWorld(t, "restarts", SpineLeaf(2, 3), 3)
	holder := w.watchHolders(electedAddress)
	w.steady()
	holder.one(t, 20*time.Second)
	for _, n := range w.Topology.Nodes {
		before, moves := holder.one(t, 5*time.Second), holder.handovers()
		must(t, w.Stop(t.Context(), n.Name))
		must(t, w.Start(n.Name))
		w.steady()
		after := holder.one(t, 5*time.Second)
		if moved := holder.handovers() - moves; moved > 1 || after != before && before != n.Name {
			t.Errorf("the restart of %s moved the gateway %d times, from %s to %s", n.Name, moved, before, after)
		}
	}
	holder.never(t)
}

// BenchmarkElected is the outage between guests and a spine when the node with
// the gateway fails, or gives it away in order: the longest of a guest of each
// other node, whether the gateway comes there or not.
func BenchmarkElected(b *testing.B) {
	w := electedWorld(b, "bench", SpineLeaf(2, 3), 6)
	holder := w.watchHolders(electedAddress)
	for _, f := range faults {
		b.Run(f.name, func(b *testing.B) {
			w := w.in(b)
			var outage []float64
			for range 10 {
				w.steady()
				before := holder.one(b, 20*time.Second)
				guests := w.guestsBesides(before)
				w.reachOut(guests)
				stop := w.throughGateways(guests, 4, 1000)
				time.Sleep(200 * time.Millisecond)
				f.do(w, before)
				holder.one(b, 20*time.Second, before)
				time.Sleep(700 * time.Millisecond)
				outage = append(outage, milliseconds(stop()))
				f.undo(w, before)
			}
			report(b, "ms-outage", outage)
			holder.never(b)
		})
	}
}
