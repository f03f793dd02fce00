package node

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/evpn"
	"frond/internal/gateway"
	"frond/internal/kernel"
	"frond/internal/plan"
	"frond/internal/status"
)

// twoLeafs begin a document with segments of both.
const twoLeafs = `
fabric: apollo
underlay: {loopbacks: [10.0.0.0/16], ports: ["eth*"]}
nodes:
  leaf1: {loopback: 10.0.200.1}
  leaf2: {loopback: 10.0.200.2}
segments:
`

const electedDocument = twoLeafs + `
  blue: {vni: 100, nodes: ["leaf*"], prefix: 172.16.0.0/24, gateway: {address: 172.16.0.1, mode: elected, locality: on}}
  red: {vni: 200, nodes: ["leaf2"], prefix: 172.17.0.0/24, gateway: {address: 172.17.0.1, mode: elected}}
  green: {vni: 300, nodes: ["leaf*"], prefix: 172.18.0.0/24, gateway: {address: 172.18.0.1}}
`

func electedRig(t *testing.T) *rig { return rigOf(t, electedDocument) }

// rigOf is a rig that has begun with a document, as leaf1.
func rigOf(t *testing.T, document string) *rig {
	t.Helper()
	r := newRig(t)
	d := parse(t, document, "leaf1")
	r.loop.plan, r.loop.document = d.plan, d.status
	r.loop.segments.stations = evpn.New(identity(d.plan))
	r.loop.adopted = true
	r.setLinks(link("eth1", 1))
	return r
}

func (r *rig) hold(held map[string]uint32) {
	r.gates.held = held
	r.step()
}

// sequences are the sequence numbers of the unicast routes that BGP tells.
func (r *rig) sequences() map[string]uint32 {
	got := make(map[string]uint32)
	for _, route := range r.bgp.desired.Routes {
		if route.EVPN == nil && route.Prefix.Addr().Is4() && !route.Prefix.IsSingleIP() {
			got[route.Prefix.String()] = route.Sequence
		}
	}
	return got
}

// TestGatewaysOfNode takes part in elections only once it has routes, and
// tells of what it has won for a moment longer than it has it.
func TestGatewaysOfNode(t *testing.T) {
	r := electedRig(t)
	if r.gates.segments != nil {
		t.Errorf("before there are routes, it takes part in %v", r.gates.segments)
	}
	r.heard(bgp.Converged{})
	r.step()
	want := []gateway.Segment{
		{Name: "blue", Nodes: []string{"leaf1", "leaf2"}, Locality: true},
		{Name: "red", Nodes: []string{"leaf2"}},
	}
	if diff := cmp.Diff(want, r.gates.segments); diff != "" {
		t.Errorf("elections (-want +got):\n%s", diff)
	}
	check := func(when string, want map[string]uint32) {
		t.Helper()
		if diff := cmp.Diff(want, r.sequences()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	check("nothing is held", map[string]uint32{"172.18.0.0/24": 0})
	r.hold(map[string]uint32{"blue": 7})
	check("blue is held", map[string]uint32{"172.18.0.0/24": 0, "172.16.0.0/24": 7})
	r.hold(nil)
	check("blue has just gone", map[string]uint32{"172.18.0.0/24": 0, "172.16.0.0/24": 7})
	if due := r.nextDue(); !due.Equal(r.now.Add(lingerTime)) {
		t.Errorf("looks again at %v", due)
	}
	r.hold(map[string]uint32{"blue": 9})
	check("blue is back", map[string]uint32{"172.18.0.0/24": 0, "172.16.0.0/24": 9})
	r.hold(nil)
	r.now = r.now.Add(lingerTime)
	r.step()
	check("blue has gone", map[string]uint32{"172.18.0.0/24": 0})

	r.overlayChanged(dataplane.LocalMACs{{VNI: 100, MAC: dataplane.MAC{2, 0, 0, 0, 0, 1}, Port: "tap1"}})
	r.step()
	if diff := cmp.Diff(map[string]int{"blue": 1}, r.gates.guests); diff != "" {
		t.Errorf("guests that draw a gateway (-want +got):\n%s", diff)
	}
}

// TestGuestsWithoutGateway has the guests of an elected gateway found on the
// bridge for as long as they are looked for here, and elsewhere from then on.
func TestGuestsWithoutGateway(t *testing.T) {
	r := electedRig(t)
	for _, prefix := range []string{"172.16.0.0/24", "172.18.0.0/24"} {
		r.pathsChanged([]bgp.Paths{{Prefix: netip.MustParsePrefix(prefix), Local: true}})
	}
	onBridge := []dataplane.NextHop{{Port: "br-blue", Via: netip.IPv4Unspecified()}}
	blue, green := netip.MustParsePrefix("172.16.0.0/24"), netip.MustParsePrefix("172.18.0.0/24")
	if diff := cmp.Diff(onBridge, r.plane.routes[blue].NextHops, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("elected (-want +got):\n%s", diff)
	}
	if got := r.plane.routes[green].NextHops; len(got) > 0 {
		t.Errorf("what every node is a gateway of has next hops %v", got)
	}
	peer := netip.MustParseAddr("fe80::1%eth1")
	r.pathsChanged([]bgp.Paths{{Prefix: blue, Paths: []bgp.Path{{Peer: peer}}}})
	if diff := cmp.Diff([]dataplane.NextHop{plan.Leg(peer)}, r.plane.routes[blue].NextHops, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("another node has it (-want +got):\n%s", diff)
	}
}

func TestGatewaysInStatus(t *testing.T) {
	r := electedRig(t)
	r.heard(bgp.Converged{})
	r.store.report.Since = r.now.Add(-time.Minute)
	since := r.now.Add(-time.Hour)
	r.gates.report = gateway.Report{
		Gateways:   []gateway.Elected{{Segment: "blue", Holder: "leaf2", Term: 3, Since: since, Why: "first by hash", Next: "leaf2", Left: 1500 * time.Millisecond, Score: 1.5, Weight: 1}},
		Drained:    []string{"leaf1"},
		Conditions: []status.Condition{{Name: gateway.ConditionStoreAway, Subject: "store", Severity: status.Failure}},
	}
	var got []status.Gateway
	for _, s := range r.plan.Gateways() {
		got = append(got, r.describeGateway(s, r.elected.Report()))
	}
	want := []status.Gateway{
		{Segment: "blue", VNI: 100, Mode: "elected", Addresses: []string{"172.16.0.1"}, Holder: "leaf2", Next: "leaf2", Since: &since,
			LeftSeconds: 1.5, Why: "first by hash", Score: 1.5, Weight: 1, Term: 3},
		{Segment: "red", VNI: 200, Mode: "elected", Addresses: []string{"172.17.0.1"}},
		{Segment: "green", VNI: 300, Mode: "anycast", Addresses: []string{"172.18.0.1"}, Here: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("gateways (-want +got):\n%s", diff)
	}
	names := func() (names []string) {
		for _, c := range r.snapshot(r.now).Conditions {
			if slices.Contains(gatewayConditions, c.Name) {
				names = append(names, c.Name)
			}
		}
		return names
	}
	if got := names(); !slices.Equal(got, []string{gateway.ConditionStoreAway, nodeDrained}) {
		t.Errorf("conditions %v", got)
	}
	r.store.report.Since = r.now // it has just begun, and is given time
	if got := names(); !slices.Equal(got, []string{nodeDrained}) {
		t.Errorf("conditions at the beginning %v", got)
	}
	r.gates.report.Conditions = []status.Condition{{Name: gateway.ConditionNotTaken, Subject: "blue", Severity: status.Failure}}
	if got := names(); !slices.Equal(got, []string{gateway.ConditionNotTaken, nodeDrained}) {
		t.Errorf("conditions while nobody takes it %v", got)
	}
	r.gates.report.Conditions = nil
	if got := names(); !slices.Equal(got, []string{nodeDrained}) {
		t.Errorf("conditions when somebody has %v", got)
	}
	if _, err := r.mayDrain("leaf9"); err == nil || err.Error() != `no node "leaf9": there are leaf1, leaf2` {
		t.Errorf("drain of nobody: %v", err)
	}
}

// fakeLeaser notes what the kernel is told.
type fakeLeaser struct {
	known     []dataplane.BridgeAddress
	others    []dataplane.BridgeAddress
	wanted    []kernel.LeasedAddress
	announced []string
	err       error
}

func (f *fakeLeaser) SetLeased(_ context.Context, known, others []dataplane.BridgeAddress, wanted []kernel.LeasedAddress, _ func() time.Duration) error {
	f.known, f.others, f.wanted = known, others, wanted
	return f.err
}

func (f *fakeLeaser) Announce(segments []dataplane.Segment) error {
	for _, s := range segments {
		f.announced = append(f.announced, s.Name)
	}
	return nil
}

func TestLeasedGateways(t *testing.T) {
	k := &fakeLeaser{}
	g := newLeasedGateways(k, make(chan struct{}, 1), slog.New(slog.DiscardHandler))
	blue := dataplane.Segment{Name: "blue", Bridge: "br-blue", VNI: 100, Gateway: dataplane.Gateway{Address: netip.MustParsePrefix("172.16.0.1/24"), Elected: true}}
	address := dataplane.BridgeAddress{Bridge: "br-blue", Prefix: blue.Gateway.Address}
	g.SetSegments([]dataplane.Segment{blue, {Name: "green", Bridge: "br-green", Gateway: dataplane.Gateway{Address: netip.MustParsePrefix("172.18.0.1/24")}}})
	holding := gateway.Holding{Segment: "blue", Lifetime: time.Second, Before: time.Minute, Term: 5}
	others := gateway.Holding{Segment: "red", Lifetime: time.Second, Before: time.Minute, Term: 6}
	changed := func() bool {
		select {
		case <-g.changed:
			return true
		default:
			return false
		}
	}

	k.err = errors.New("no such device")
	if err := g.Set(t.Context(), []gateway.Holding{holding, others}); err == nil {
		t.Error("a refusal of the kernel is kept back")
	}
	if len(k.announced) > 0 {
		t.Errorf("announced %v, which is not there", k.announced)
	}
	if want := []kernel.LeasedAddress{{BridgeAddress: address, Lifetime: time.Second, Before: time.Minute}}; !slices.Equal(k.wanted, want) {
		t.Errorf("wanted %v, want %v", k.wanted, want)
	}
	k.err = nil
	for range 2 {
		must(t, g.Set(t.Context(), []gateway.Holding{holding}))
	}
	if !slices.Equal(k.announced, []string{"blue"}) {
		t.Errorf("announced %v, want blue once", k.announced)
	}
	if diff := cmp.Diff(map[string]uint32{"blue": 5}, g.Held()); diff != "" || !changed() || changed() {
		t.Errorf("held (-want +got):\n%s", diff)
	}

	// What a segment that is no more has left goes.
	g.SetSegments(nil)
	must(t, g.Set(t.Context(), []gateway.Holding{holding}))
	if !slices.Equal(k.known, []dataplane.BridgeAddress{address}) || len(k.wanted) > 0 || len(g.Held()) > 0 || !changed() {
		t.Errorf("known %v, wanted %v, held %v", k.known, k.wanted, g.Held())
	}
	must(t, g.Set(t.Context(), nil))
	if len(k.known) > 0 {
		t.Errorf("%v is still known", k.known)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
