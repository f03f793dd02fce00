package node

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/fabric"
	"frond/internal/gateway"
	"frond/internal/guest"
	"frond/internal/kv"
	"frond/internal/quorum"
	"frond/internal/status"
)

const votedDocument = twoLeafs + `
  blue: {vni: 100, nodes: ["leaf*"], prefix: 172.16.0.0/24, gateway: {address: 172.16.0.1, mode: elected, election: lxd}}
  red: {vni: 200, nodes: ["leaf*"], prefix: 172.17.0.0/24, gateway: {address: 172.17.0.1, mode: elected}}
`

// TestGatewaysByEither has each election know of its own gateways alone, and
// says of both in one.
func TestGatewaysByEither(t *testing.T) {
	r := rigOf(t, votedDocument)
	r.heard(bgp.Converged{})
	r.step()
	both := []string{"leaf1", "leaf2"}
	if diff := cmp.Diff([]gateway.Segment{{Name: "red", Nodes: both}}, r.gates.segments); diff != "" {
		t.Errorf("the store decides about (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]gateway.Segment{{Name: "blue", Nodes: both}}, r.voting.segments); diff != "" {
		t.Errorf("LXD decides about (-want +got):\n%s", diff)
	}
	if r.voting.spread != quorum.OnLeader || r.voting.names["10.0.200.2"] != "leaf2" || !r.gates.byLXD["blue"] || r.gates.byLXD["red"] {
		t.Errorf("spread %q, names %v, not the store's %v", r.voting.spread, r.voting.names, r.gates.byLXD)
	}
	r.hypervisorChanged(guest.State{Contact: guest.Connected, Socket: "/var/lib/lxd/unix.socket",
		Server: guest.Server{Product: "LXD", Member: "leaf1", Cluster: true, Address: "10.0.200.1:8443"}})
	r.step()
	if want := (quorum.Place{Dir: "/var/lib/lxd", Address: "10.0.200.1:8443"}); r.voting.place != want {
		t.Errorf("its member is at %+v", r.voting.place)
	}
	r.gates.report = gateway.Report{Gateways: []gateway.Elected{{Segment: "red", Holder: "leaf2"}}}
	r.voting.report = gateway.Report{
		Gateways: []gateway.Elected{{Segment: "blue", Holder: "leaf1", Why: "database leader"}}, Drained: []string{"leaf1"},
		Conditions: []status.Condition{{Name: quorum.ConditionAway, Subject: "lxd", Severity: status.Failure}},
	}
	for _, s := range r.plan.Gateways() {
		if g := r.describeGateway(s, r.electionReport()); g.Holder != map[string]string{"blue": "leaf1", "red": "leaf2"}[s.Name] {
			t.Errorf("%+v", g)
		}
	}
	r.voting.report.Gateways[0].Holder = "" // it is elsewhere
	r.pathsChanged([]bgp.Paths{{Prefix: netip.MustParsePrefix("172.16.0.0/24"), Paths: []bgp.Path{
		{Peer: netip.MustParseAddr("fe80::1%eth1"), ASPath: []uint32{4200000009, 4200051202}},
	}}})
	if g := r.describeGateway(r.plan.Gateways()[0], r.electionReport()); g.Holder != "leaf2" {
		t.Errorf("leaf2 announces it: %+v", g)
	}
	names := func() (names []string) {
		for _, c := range r.board.Conditions() {
			names = append(names, c.Name)
		}
		return names
	}
	r.adoptedAt = r.now.Add(-time.Minute)
	r.judgeGateways(r.now)
	if got := names(); !slices.Contains(got, quorum.ConditionAway) || !slices.Contains(got, nodeDrained) {
		t.Errorf("conditions %v", got)
	}
	r.adoptedAt = r.now
	if r.judgeGateways(r.now); slices.Contains(names(), quorum.ConditionAway) {
		t.Error("an agent that has just begun is given no time")
	}
	if _, err := r.mayDrain("leaf2"); err == nil || !strings.Contains(err.Error(), "ask the agent on leaf2 itself") {
		t.Errorf("drain of another node: %v", err)
	}
	elections, err := r.mayDrain("leaf1")
	if want := map[fabric.Election]bool{fabric.ByStore: true, fabric.ByLXD: true}; err != nil || !maps.Equal(elections, want) {
		t.Errorf("drain of this node: %v, %v", elections, err)
	}
	r.handOver()
	<-r.handing
	if !r.voting.left {
		t.Error("what LXD decides about is not handed over")
	}
}

func TestPlaceOf(t *testing.T) {
	server := guest.Server{Cluster: true, Address: "10.0.200.1:8443"}
	for _, test := range []struct {
		state guest.State
		want  quorum.Place
	}{
		{guest.State{}, quorum.Place{}},
		{guest.State{Socket: "/var/lib/lxd/unix.socket", Server: guest.Server{Address: "10.0.200.1:8443"}}, quorum.Place{}},
		{guest.State{Contact: guest.Away, Socket: "/var/lib/lxd/unix.socket", Server: server}, quorum.Place{Dir: "/var/lib/lxd", Address: "10.0.200.1:8443"}},
		{guest.State{Socket: "/run/incus/unix.socket", Server: server}, quorum.Place{Dir: "/var/lib/incus", Address: "10.0.200.1:8443"}},
	} {
		if got := placeOf(test.state); got != test.want {
			t.Errorf("%+v is at %+v, want %+v", test.state, got, test.want)
		}
	}
}

// TestHeldByEither has each election's gateways be put into the kernel without
// those of the other.
func TestHeldByEither(t *testing.T) {
	k := &fakeLeaser{}
	h := newHeldByEither(k, slog.New(slog.DiscardHandler))
	segment := func(name, prefix string) dataplane.Segment {
		return dataplane.Segment{Name: name, Bridge: "br-" + name, Gateway: dataplane.Gateway{Address: netip.MustParsePrefix(prefix), Elected: true}}
	}
	h.SetSegments([]dataplane.Segment{segment("blue", "172.16.0.1/24"), segment("red", "172.17.0.1/24")}, map[string]bool{"blue": true})
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(h.byLXD.Set(t.Context(), []gateway.Holding{{Segment: "blue", Lifetime: time.Second, Term: 5}}))
	if len(k.known) != 1 || k.known[0].Bridge != "br-blue" || len(k.wanted) != 1 || len(k.others) != 1 || k.others[0].Bridge != "br-red" {
		t.Errorf("of LXD's, known are %v, wanted %v, and left alone %v", k.known, k.wanted, k.others)
	}
	<-h.Changed()
	must(h.byStore.Set(t.Context(), []gateway.Holding{{Segment: "red", Lifetime: time.Second, Term: 6}}))
	if len(k.known) != 1 || k.known[0].Bridge != "br-red" || len(k.others) != 1 || k.others[0].Bridge != "br-blue" {
		t.Errorf("of the store's, known are %v, and left alone %v", k.known, k.others)
	}
	<-h.Changed()
	if held := h.Held(); !maps.Equal(held, map[string]uint32{"blue": 5, "red": 6}) {
		t.Errorf("held are %v", held)
	}
}

func TestDrainedIsNoted(t *testing.T) {
	n := &Node{cfg: Config{StateDir: t.TempDir()}}
	for _, drained := range []bool{false, true, true, false, false} {
		if err := n.noteDrained(drained); err != nil || n.wasDrained() != drained {
			t.Errorf("drained is %t, want %t: %v", n.wasDrained(), drained, err)
		}
	}
}

// TestAddressStore keeps leases in the fabric's store, or in memory where there
// is none, and begins with the whole after each change.
func TestAddressStore(t *testing.T) {
	lent := kv.NewMemory()
	s := newAddressStore(lent)
	ctx, cancel := context.WithCancel(t.Context())
	changes := s.Watch(ctx, "")
	put := func(key string, modified int64) kv.Outcome {
		o, err := s.Commit(ctx, kv.Txn{If: []kv.Condition{kv.Unchanged(key, modified)}, Then: []kv.Operation{kv.Put(key, []byte("x"))}})
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	known, wholes := map[string]bool{}, 0
	keys := func(want ...string) {
		t.Helper()
		for c := range changes {
			if c.Whole {
				wholes++
				clear(known)
			}
			for _, key := range c.Deleted {
				delete(known, key)
			}
			for _, r := range c.Records {
				known[r.Key] = true
			}
			if slices.Equal(slices.Sorted(maps.Keys(known)), want) {
				return
			}
		}
		t.Errorf("records %v, want %v", known, want)
	}
	keys()
	if o := put("a", 0); !o.Done {
		t.Error("the first is refused")
	}
	keys("a")
	if o := put("a", 0); o.Done {
		t.Error("the same again is not refused")
	}
	s.SetAlone(true)
	keys()
	put("b", 0)
	keys("b")
	if o, err := s.Commit(ctx, kv.Txn{Then: []kv.Operation{kv.Delete("b")}}); err != nil || !o.Done {
		t.Errorf("a deletion: %+v, %v", o, err)
	}
	keys()
	s.SetAlone(false)
	keys("a")
	if wholes < 3 {
		t.Errorf("the whole was told %d times, of three stores", wholes)
	}
	cancel()
	for range changes {
	}
}
