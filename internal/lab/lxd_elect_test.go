package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"frond/internal/api"
	"frond/internal/status"
)

// lxdDecides has the cluster of LXD decide about the elected gateway, without a
// store.
func lxdDecides(document string) string { return elects(document) + "store: {lxd: {}}\n" }

// votingWorld is a fabric with a real LXD cluster on its leafs that decides
// about its elected gateway, and n guests that know it.
func votingWorld(t testing.TB, name string, leafs, n int) *world {
	t.Helper()
	w := populate(t, name, SpineLeaf(2, leafs), n, lxdDecides)
	for _, g := range w.Topology.Guests {
		w.inside(g.Name, "ip route replace default via "+electedAddress.String())
	}
	must(t, w.UpLXD(t.Context(), silent))
	return w
}

// signalLXD has a node's LXD get a signal.
func (w *world) signalLXD(node string, sig syscall.Signal) {
	w.t.Helper()
	daemons, err := w.lxdDaemons(node)
	must(w.t, err)
	if len(daemons) == 0 {
		w.t.Fatalf("no LXD runs on %s", node)
	}
	for _, pid := range daemons {
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			w.t.Fatal(err)
		}
	}
}

// awaitLXD waits until a node's LXD has ended.
func (w *world) awaitLXD(node string) {
	w.t.Helper()
	must(w.t, poll(w.t.Context(), func() bool {
		daemons, err := w.lxdDaemons(node)
		return err == nil && len(daemons) == 0
	}, "LXD has not ended on "+node))
}

func (w *world) drainItself(node string, drained bool) {
	w.t.Helper()
	must(w.t, api.NewClient(w.Socket(node)).Drain(w.t.Context(), node, drained))
}

// votingFaults are what may happen to the node of the database's leader.
// orderly ones hand over.
var votingFaults = []struct {
	fault
	orderly bool
}{
	{fault{"node dies",
		func(w *world, node string) {
			must(w.t, w.StopLXD(w.t.Context(), node))
			must(w.t, w.Kill(w.t.Context(), node))
		},
		func(w *world, node string) {
			must(w.t, w.Start(node))
			must(w.t, w.StartLXD(w.t.Context(), node))
		}}, false},
	{fault{"cables cut",
		func(w *world, node string) { must(w.t, w.Cut(end(node), End{})) },
		func(w *world, node string) { must(w.t, w.Mend(end(node), End{})) }}, false},
	{fault{"cables muted",
		func(w *world, node string) { must(w.t, w.Mute(end(node), End{}, false)) },
		func(w *world, node string) { must(w.t, w.Mend(end(node), End{})) }}, false},
	{fault{"node frozen",
		func(w *world, node string) {
			w.signalLXD(node, unix.SIGSTOP)
			must(w.t, w.Freeze(node))
		},
		func(w *world, node string) {
			w.signalLXD(node, unix.SIGCONT)
			must(w.t, w.Thaw(node))
		}}, false},
	{fault{"LXD killed",
		func(w *world, node string) { must(w.t, w.StopLXD(w.t.Context(), node)) },
		func(w *world, node string) { must(w.t, w.StartLXD(w.t.Context(), node)) }}, true},
	{fault{"LXD frozen",
		func(w *world, node string) { w.signalLXD(node, unix.SIGSTOP) },
		func(w *world, node string) { w.signalLXD(node, unix.SIGCONT) }}, true},
	{fault{"LXD stopped",
		func(w *world, node string) { w.signalLXD(node, unix.SIGTERM) },
		func(w *world, node string) {
			w.awaitLXD(node)
			must(w.t, w.StartLXD(w.t.Context(), node))
		}}, true},
	{fault{"agent killed",
		func(w *world, node string) { must(w.t, w.Kill(w.t.Context(), node)) },
		func(w *world, node string) { must(w.t, w.Start(node)) }}, false},
	{fault{"agent stopped",
		func(w *world, node string) { must(w.t, w.Stop(w.t.Context(), node)) },
		func(w *world, node string) { must(w.t, w.Start(node)) }}, true},
	{fault{"drained: leadership transferred",
		func(w *world, node string) { w.drainItself(node, true) },
		func(w *world, node string) { w.drainItself(node, false) }}, true},
}

// voting waits until every member of the cluster has a vote: LXD gives it back
// to one that was away at its next heartbeats, and until then the loss of a
// second one is that of the majority.
func (w *world) voting() {
	w.t.Helper()
	nodes := w.LXDNodes()
	var last string
	for limit := time.Now().Add(2 * time.Minute); time.Now().Before(limit); time.Sleep(200 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
		out, err := w.LXC(ctx, nodes[0], "query", "/1.0/cluster/members?recursion=1")
		cancel()
		var members []struct {
			Status string   `json:"status"`
			Roles  []string `json:"roles"`
		}
		if last = out; err != nil || json.Unmarshal([]byte(out), &members) != nil {
			continue
		}
		voters := 0
		for _, m := range members {
			if m.Status == "Online" && slices.Contains(m.Roles, "database") {
				voters++
			}
		}
		if voters == len(nodes) {
			return
		}
	}
	w.t.Fatalf("not all members of the cluster have a vote: %s", last)
}

// settled waits until all members of the cluster vote and all agents agree on
// who has the gateway.
func (w *world) settled() string {
	w.t.Helper()
	w.voting()
	return w.agree(w.LXDNodes()...)
}

// agree waits until the agents of these nodes agree on who has the gateway: by what
// the database tells each of them, and by what is announced.
func (w *world) agree(nodes ...string) string {
	w.t.Helper()
	var last string
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); time.Sleep(50 * time.Millisecond) {
		said := map[string]bool{}
		for _, node := range nodes {
			all, err := api.NewClient(w.Socket(node)).Gateways(w.t.Context())
			if err != nil || len(all) != 1 || all[0].Next != all[0].Holder {
				said["?"] = true
				last = fmt.Sprint(node, err, all)
				continue
			}
			said[all[0].Holder] = true
		}
		if len(said) == 1 && !said["?"] && !said[""] {
			for holder := range said {
				return holder
			}
		}
	}
	w.t.Fatalf("the agents do not agree on who has the gateway: %s, and last of all %s", strings.Join(nodes, ", "), last)
	return ""
}

// TestElectedByLXD has the node of the database's leader fail in every way that
// there is: another one takes the gateway, and never do two have it.
func TestElectedByLXD(t *testing.T) {
	w := votingWorld(t, "voting", 3, 6)
	holder := w.watchHolders(electedAddress)
	for _, f := range votingFaults {
		t.Run(f.name, func(t *testing.T) {
			w := w.in(t)
			before := w.settled()
			if now := holder.one(t, 20*time.Second); now != before {
				t.Fatalf("the agents say that %s has it, it is on %s", before, now)
			}
			guests := w.guestsBesides(before)
			w.reachOut(guests)
			mend := sync.OnceFunc(func() { f.undo(w, before) })
			defer mend() // also after a failure, for what follows
			f.do(w, before)
			after := holder.one(t, 40*time.Second, before)
			w.knowsGateway(after, guests...)
			w.reachOut(guests)
			mend()
			if said := w.settled(); said != after {
				t.Errorf("it is on %s, and the agents say on %s", after, said)
			}
			w.says(after, "why", func(g status.Gateway) bool {
				return g.Here && g.Why == "database leader" && g.LeftSeconds > 0 && g.Term > 0
			})
			holder.never(t)
		})
	}
	t.Run("the agent starts again", func(t *testing.T) {
		w := w.in(t)
		before, moves := w.settled(), holder.handovers()
		stop := w.throughGateway(w.guestOn(before, false), 4, 1000)
		must(t, w.Kill(t.Context(), before))
		must(t, w.Start(before))
		w.eventually(before, "is ready", func(s status.Snapshot) bool { return s.Ready })
		if said := w.settled(); said != before || holder.handovers() != moves {
			t.Errorf("it moved from %s to %s", before, said)
		}
		w.nothingLost(stop())
	})
	t.Run("LXD is away everywhere", func(t *testing.T) {
		w := w.in(t)
		nodes := w.LXDNodes()
		for _, node := range nodes {
			must(t, w.StopLXD(t.Context(), node))
		}
		must(t, poll(t.Context(), func() bool { now, _ := holder.state(); return len(now) == 0 }, "the gateway does not go"))
		w.eventually(nodes[0], "says why", func(s status.Snapshot) bool {
			return slices.ContainsFunc(s.Conditions, func(c status.Condition) bool {
				return c.Name == "gateway-election-away" && strings.Contains(c.Text, "refused")
			})
		})
		for _, node := range nodes {
			w.beginLXD(node)
		}
		w.settled()
		holder.never(t)
	})
}

// beginLXD starts a node's LXD and does not wait until it answers, which takes
// a majority.
func (w *world) beginLXD(node string) {
	w.t.Helper()
	cmd, err := w.inLXDMachine(context.Background(), node, "lxd", "--group", "root")
	must(w.t, err)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	must(w.t, cmd.Start())
	go func() { _ = cmd.Wait() }() // Down ends it
}

// TestLXDStopsOnANode has the LXD of a node end that does not lead: its guests
// lose nothing, and the node is no candidate any more.
func TestLXDStopsOnANode(t *testing.T) {
	w := votingWorld(t, "lxdstop", 3, 6)
	holder := w.watchHolders(electedAddress)
	before := w.settled()
	other := w.elsewhere(before)
	within, out := w.guestTraffic(w.guestOn(other, true), w.guestOn(before, true)), w.throughGateway(w.guestOn(other, true), 4, 1000)
	must(t, w.StopLXD(t.Context(), other))
	time.Sleep(3 * time.Second)
	w.nothingLost(within())
	w.nothingLost(out())
	w.drainItself(before, true)
	if after := holder.one(t, 40*time.Second, before); after == other {
		t.Errorf("the gateway is on %s, whose LXD is away", after)
	}
	holder.never(t)
}

// hashed is a document with four elected gateways that LXD's cluster spreads.
func hashed(document string) string {
	document = elects(document)
	for n := range 3 {
		document += fmt.Sprintf("  s%d: {vni: %d, nodes: [\"leaf*\"], prefix: 172.%d.0.0/24, gateway: {address: 172.%d.0.1, mode: elected}}\n", n+1, 200+n, 17+n, 17+n)
	}
	return document + "store: {lxd: {gateways: hash}}\n"
}

// TestElectedByLXDSpread has gateways be where the database says that members
// are online, those too that have no vote in it: they leave a node that is cut
// off, and come back, and are never on two.
func TestElectedByLXDSpread(t *testing.T) {
	w := populate(t, "spread", SpineLeaf(2, 5), 3, hashed)
	must(t, w.UpLXD(t.Context(), silent))
	nodes := w.LXDNodes()
	var all []*holders
	for n := range 4 {
		all = append(all, w.watchHolders(netip.AddrFrom4([4]byte{172, byte(16 + n), 0, 1})))
	}
	homes := func(but ...string) (nodes []string) {
		for _, h := range all {
			nodes = append(nodes, h.one(t, 60*time.Second, but...))
		}
		return nodes
	}
	before := []string{"leaf4", "leaf1", "leaf5", "leaf4"} // as rendezvous hashing prefers, by these names
	atHome := func() {                                     // which takes until all members are online, by heartbeats each 10 s
		for n, h := range all {
			others := slices.DeleteFunc(slices.Clone(nodes), func(node string) bool { return node == before[n] })
			h.one(t, 60*time.Second, others...)
		}
	}
	atHome()
	must(t, w.Cut(end(before[0]), End{}))
	after := homes(before[0])
	for n := range all {
		if before[n] != before[0] && after[n] != before[n] {
			t.Errorf("gateway %d was on %s, which lives, and is on %s", n, before[n], after[n])
		}
	}
	must(t, w.Mend(end(before[0]), End{}))
	atHome()
	w.drainItself(before[0], true)
	homes(before[0])
	if out := w.lxc("cluster show " + before[0]); !strings.Contains(out, "user.frond.gateways: drained") {
		t.Errorf("it is not noted on the member:\n%s", out)
	}
	w.drainItself(before[0], false)
	atHome()
	must(t, w.Kill(t.Context(), before[0])) // and LXD lives
	homes(before[0])
	must(t, w.Start(before[0]))
	atHome()
	w.says(before[0], "why", func(g status.Gateway) bool { return g.Here && g.Why == "first by hash" && g.LeftSeconds > 0 })
	for _, h := range all {
		h.never(t)
	}
}
