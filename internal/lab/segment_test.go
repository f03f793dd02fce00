package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"frond/internal/api"
	"frond/internal/probe"
	"frond/internal/status"
)

// populate is a world with a segment and n guests on it. What change makes of
// the document is what counts.
func populate(t testing.TB, name string, topology Topology, n int, change ...func(document string) string) *world {
	t.Helper()
	document := WithSegment(Document(name, topology), topology, false)
	for _, f := range change {
		document = []byte(f(string(document)))
	}
	w := raise(t, name, topology, Source{Content: document})
	f, err := w.Fabric()
	must(t, err)
	guests, err := Guests(f, n)
	must(t, err)
	for _, g := range guests {
		must(t, w.AddGuest(t.Context(), g))
	}
	return w
}

// guestTraffic is traffic between two guests.
func (w *world) guestTraffic(from, to string) func() probe.Result {
	w.t.Helper()
	config := probe.Config{Flows: 4, Rate: 1000}
	for i, name := range []string{from, to} {
		g, err := w.Guest(name)
		must(w.t, err)
		ns, err := w.Host(name)
		must(w.t, err)
		w.t.Cleanup(func() { must(w.t, ns.Close()) })
		if i == 0 {
			config.From, config.FromAddr = ns, g.Address.Addr()
		} else {
			config.To, config.ToAddr = ns, g.Address.Addr()
		}
	}
	p, err := probe.Start(w.t.Context(), config)
	must(w.t, err)
	enough := time.After(500 * time.Millisecond)
	return func() probe.Result {
		<-enough
		return p.Stop()
	}
}

// knows waits until a node knows a guest's MAC to be at a VTEP.
func (w *world) knows(node, guest, at string) {
	w.t.Helper()
	g, err := w.Guest(guest)
	must(w.t, err)
	vtep := w.node(at).Loopback.String()
	var last []status.MAC
	limit := time.Now().Add(20 * time.Second)
	for time.Now().Before(limit) {
		last, err = api.NewClient(w.Socket(node)).MACs(w.t.Context(), g.Segment)
		for _, m := range last {
			if err == nil && m.MAC == g.MAC && m.VTEP == vtep {
				return
			}
		}
		time.Sleep(askInterval)
	}
	w.t.Fatalf("%s never knows %s at %s: %+v", node, guest, at, last)
}

// forwarding is what a node's kernel sends to other nodes of segment blue.
func (w *world) forwarding(node string) []string {
	w.t.Helper()
	entries := strings.Split(strings.TrimSpace(w.inside(node, "bridge fdb show dev vx-blue")), "\n")
	entries = slices.DeleteFunc(entries, func(e string) bool { return !strings.Contains(e, "extern_learn") })
	slices.Sort(entries)
	if len(entries) == 0 {
		w.t.Fatalf("%s sends to nobody", node)
	}
	return entries
}

func TestSegment(t *testing.T) {
	w := populate(t, "segment", SpineLeaf(2, 3), 6)
	w.whole()

	t.Run("moves", func(t *testing.T) {
		w := w.in(t)
		for i, to := range []string{"leaf2", "leaf3", "leaf1"} {
			must(t, w.MoveGuest(t.Context(), "g1", to, i%2 == 0))
			w.whole()
			for _, node := range []string{"leaf1", "leaf2", "leaf3"} {
				w.knows(node, "g1", to)
			}
		}
	})
	t.Run("guests come and go", func(t *testing.T) {
		w := w.in(t)
		g, err := w.NextGuest("", "leaf2")
		must(t, err)
		must(t, w.AddGuest(t.Context(), g))
		w.whole()
		must(t, w.RemoveGuest(t.Context(), g.Name))
		w.whole()
	})
	t.Run("an address outlives its guest", func(t *testing.T) {
		w := w.in(t)
		address := netip.MustParsePrefix("172.16.0.200/16")
		has := func(guest string) Guest {
			w.inside(guest, "ip address add "+address.String()+" dev eth0")
			g, err := w.Guest(guest)
			must(t, err)
			g.Address = address
			return g
		}
		first, err := w.NextGuest("", "leaf2")
		must(t, err)
		must(t, w.AddGuest(t.Context(), first))
		must(t, w.announce(has(first.Name)))
		w.inside("g3", "ping -c 1 -W 5 "+address.Addr().String())
		must(t, w.RemoveGuest(t.Context(), first.Name))
		second := has("g1")
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		must(t, poll(ctx, func() bool {
			must(t, w.announce(second)) // until the guard knows that the first is gone
			return strings.Contains(w.inside("g3", "ip neigh show "+address.Addr().String()), second.MAC)
		}, "g3 is not told where the address is now"))
		w.inside("g1", "ip address del "+address.String()+" dev eth0")
	})
	t.Run("agent killed", func(t *testing.T) {
		w := w.in(t)
		stop := w.guestTraffic("g1", "g3")
		before := w.forwarding("leaf1")
		for _, node := range []string{"leaf1", "spine1"} {
			must(t, w.Kill(t.Context(), node))
			time.Sleep(300 * time.Millisecond)
			must(t, w.Start(node))
			w.eventually(node, "ready", func(s status.Snapshot) bool {
				if now := w.forwarding("leaf1"); !slices.Equal(now, before) {
					t.Errorf("entries of leaf1 are %q, were %q", now, before)
				}
				return s.Ready && len(s.Conditions) == 0
			})
		}
		w.whole()
		if now := w.forwarding("leaf1"); !slices.Equal(now, before) {
			t.Errorf("at last, entries of leaf1 are %q, were %q", now, before)
		}
		w.nothingLost(stop())
	})
	t.Run("device deleted", func(t *testing.T) {
		w := w.in(t)
		must(t, w.namespace("leaf1").Do(func() error { return exec.Command("ip", "link", "del", "vx-blue").Run() }))
		w.whole()
	})
	t.Run("uplink cut", func(t *testing.T) {
		w := w.in(t)
		must(t, w.Cut(end("spine1"), end("leaf1")))
		w.whole()
		must(t, w.Mend(end("spine1"), end("leaf1")))
		w.whole()
	})
	t.Run("node drops out", func(t *testing.T) {
		w := w.in(t)
		must(t, api.NewClient(w.Socket("leaf3")).Down(t.Context()))
		limit := time.Now().Add(20 * time.Second)
		for {
			segments, err := api.NewClient(w.Socket("leaf1")).Segments(t.Context())
			must(t, err)
			if len(segments) == 1 && fmt.Sprint(segments[0].VTEPs) == "["+w.node("leaf2").Loopback.String()+"]" && segments[0].RemoteMACs == 2 {
				return
			}
			if time.Now().After(limit) {
				t.Fatalf("leaf3 is still there: %+v", segments)
			}
			time.Sleep(askInterval)
		}
	})
}

// TestSegmentsReload adds, changes and removes a segment under running agents.
func TestSegmentsReload(t *testing.T) {
	w := populate(t, "segreload", SpineLeaf(1, 2), 2)
	w.whole()
	good, err := os.ReadFile(w.Document())
	must(t, err)
	load := func(document string) {
		t.Helper()
		must(t, os.WriteFile(w.Document(), []byte(document), 0o644))
		for _, n := range w.Topology.Nodes {
			must(t, api.NewClient(w.Socket(n.Name)).Reload(t.Context()))
		}
	}
	segments := func(want string) {
		t.Helper()
		var got string
		for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); time.Sleep(askInterval) {
			all, err := api.NewClient(w.Socket("leaf1")).Segments(t.Context())
			must(t, err)
			got = ""
			for _, s := range all {
				got += fmt.Sprintf("%s/%d/%v ", s.Name, s.MTU, s.Ready)
			}
			if strings.TrimSpace(got) == want {
				return
			}
		}
		t.Fatalf("segments are %q, want %q", got, want)
	}
	segments("blue/8950/true")
	devices := w.bridgeIndexes("leaf1")
	untouched := func(when string) {
		t.Helper()
		if now := w.bridgeIndexes("leaf1"); now != devices {
			t.Errorf("%s: devices of blue are %s, were %s", when, now, devices)
		}
	}
	stop := w.guestTraffic("g1", "g2")
	load(string(good) + "  red: {vni: 200, nodes: [leaf1, leaf2], prefix: 172.17.0.0/24}\n")
	segments("blue/8950/true red/8950/true")
	untouched("red is added")
	load(string(good) + "  red: {vni: 200, nodes: [leaf2], prefix: 172.17.0.0/24}\n")
	segments("blue/8950/true")
	untouched("leaf1 leaves red")
	load(string(good) + "  red: {vni: 200, nodes: [leaf1, leaf2], prefix: 172.17.0.0/24}\n")
	segments("blue/8950/true red/8950/true")
	load(string(good))
	segments("blue/8950/true")
	untouched("red is removed")
	w.nothingLost(stop())
	load(strings.Replace(string(good), "vni: 100,", "vni: 100, mtu: 1500,", 1))
	segments("blue/1500/true")
	untouched("its MTU is changed")
	w.whole()
}
