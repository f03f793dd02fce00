package lab

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"frond/internal/api"
	"frond/internal/status"
)

// elects has a segment's gateway be on one node.
func elects(document string) string {
	return strings.Replace(document, "prefix: 172.16.0.0/16", "prefix: 172.16.0.0/16, gateway: {address: 172.16.0.1, mode: elected}", 1)
}

var electedAddress = netip.MustParseAddr("172.16.0.1")

// holders watches from outside, by what the kernels hold, which nodes have an
// elected gateway's address.
type holders struct {
	address netip.Addr
	names   []string
	kernels []*netlink.Handle

	mu    sync.Mutex
	now   []string
	since time.Time // that now is so
	looks int
	twice []string // two at once
	moves int
	last  string // who held it last
}

// watchHolders looks each 2 ms until the test ends.
func (w *world) watchHolders(address netip.Addr) *holders {
	w.t.Helper()
	h := &holders{address: address, since: time.Now()}
	for _, n := range w.Topology.Nodes {
		nl, err := handleIn(w.namespace(n.Name))
		must(w.t, err)
		h.names, h.kernels = append(h.names, n.Name), append(h.kernels, nl)
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			h.look()
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	}()
	w.t.Cleanup(func() {
		cancel()
		<-done
		for _, nl := range h.kernels {
			nl.Close()
		}
	})
	return h
}

// look asks all kernels, and once more if two have it: whoever had it before
// and after another one did, had it together with that one.
func (h *holders) look() {
	found := h.ask()
	var twice string
	if len(found) > 1 {
		again := h.ask()
		for i, early := range found[:len(found)-1] {
			if slices.Contains(again, early) {
				twice = fmt.Sprintf("%s: %s had it while %s did", time.Now().Format("15:04:05.000"), early, found[i+1])
			}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.looks++
	if twice != "" {
		h.twice = append(h.twice, twice)
	}
	if !slices.Equal(found, h.now) {
		h.now, h.since = found, time.Now()
		if len(found) == 1 && found[0] != h.last {
			h.last = found[0]
			h.moves++
		}
	}
}

// ask returns who has it, in the order of asking.
func (h *holders) ask() (found []string) {
	for i, nl := range h.kernels {
		addresses, err := nl.AddrList(nil, netlink.FAMILY_V4)
		if err != nil {
			continue // the dump was interrupted by a change
		}
		if slices.ContainsFunc(addresses, func(a netlink.Addr) bool { return a.IP.Equal(h.address.AsSlice()) }) {
			found = append(found, h.names[i])
		}
	}
	return found
}

func (h *holders) state() (now []string, since time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.now, h.since
}

// handovers counts how often the gateway has come to another node.
func (h *holders) handovers() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.moves
}

// one waits until exactly one node has it, and returns that one.
func (h *holders) one(t testing.TB, within time.Duration, but ...string) string {
	t.Helper()
	for limit := time.Now().Add(within); time.Now().Before(limit); time.Sleep(2 * time.Millisecond) {
		if now, _ := h.state(); len(now) == 1 && !slices.Contains(but, now[0]) {
			return now[0]
		}
	}
	now, since := h.state()
	t.Fatalf("the gateway is on %q for %s, not on one node other than %q", now, time.Since(since).Round(time.Millisecond), but)
	return ""
}

// never checks that it was never on two nodes at once.
func (h *holders) never(t testing.TB) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.looks < 100 {
		t.Errorf("only %d looks: that proves nothing", h.looks)
	}
	for _, twice := range h.twice {
		t.Error("two at once: " + twice)
	}
}

// electedWorld is a fabric with an elected gateway and n guests that know it.
func electedWorld(t testing.TB, name string, topology Topology, n int) *world {
	t.Helper()
	w := populate(t, name, topology, n, elects)
	for _, g := range w.Topology.Guests {
		w.inside(g.Name, "ip route replace default via "+electedAddress.String())
	}
	return w
}

// steady waits until the store has all its members and the fabric its routes.
func (w *world) steady() {
	w.t.Helper()
	for _, n := range w.Topology.Nodes {
		w.eventually(n.Name, "without problems", func(s status.Snapshot) bool { return s.Ready && len(s.Conditions) == 0 })
	}
}

// gatewayOf is what a node says of the gateway of a segment.
func (w *world) gatewayOf(node, segment string) status.Gateway {
	w.t.Helper()
	all, err := api.NewClient(w.Socket(node)).Gateways(w.t.Context())
	must(w.t, err)
	i := slices.IndexFunc(all, func(g status.Gateway) bool { return g.Segment == segment })
	if i < 0 {
		w.t.Fatalf("%s tells of gateways %+v, want one of %s", node, all, segment)
	}
	return all[i]
}

// says waits until what a node says of the gateway of segment blue is as it
// should be: it hears of a hand-over a moment after it has happened.
func (w *world) says(node, what string, ok func(status.Gateway) bool) {
	w.t.Helper()
	var last status.Gateway
	for limit := time.Now().Add(5 * time.Second); time.Now().Before(limit); time.Sleep(askInterval) {
		if last = w.gatewayOf(node, "blue"); ok(last) {
			return
		}
	}
	w.t.Errorf("%s does not say %s: %+v", node, what, last)
}

// guestOn is a guest on that node, or on any other one.
func (w *world) guestOn(node string, there bool) string {
	w.t.Helper()
	for _, g := range w.Topology.Guests {
		if (g.Node == node) == there {
			return g.Name
		}
	}
	w.t.Fatalf("no guest on %s (%t)", node, there)
	return ""
}
