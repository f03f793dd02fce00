package node

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"frond/internal/advertise"
	"frond/internal/bfd"
	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/dhcp"
	"frond/internal/fabric"
	"frond/internal/gateway"
	"frond/internal/plan"
	"frond/internal/quorum"
	"frond/internal/ra"
	"frond/internal/status"
	"frond/internal/store"
	"frond/internal/uplink"
)

const testDocument = `
fabric: apollo
underlay: {loopbacks: [10.0.0.0/16, "fd00:10::/48"], ports: ["eth*"]}
nodes:
  leaf1: {loopback: 10.0.200.1}
  leaf2: {loopback: 10.0.200.2}
`

func parse(t *testing.T, text, node string) document {
	t.Helper()
	f, err := fabric.Parse("fabric.yaml", []byte(text), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.For(f, node)
	if err != nil {
		t.Fatal(err)
	}
	return document{p, status.Document{Path: "fabric.yaml"}}
}

// rig is a loop between fakes that note what they are told last, and in
// which order.
type rig struct {
	*loop
	t       *testing.T
	now     time.Time
	plane   *fakePlane
	ra      *fakeDiscovery
	bfd     *fakeLiveness
	bgp     *fakeSpeaker
	over    *fakeOverlay
	watch   *fakeWatch
	store   *fakeStore
	gates   *fakeGateways
	voting  *fakeQuorum
	routers *fakeAdvertiser
	way     *fakeUplink
	nat     *fakeNAT
	guard   *fakeGuard
	dhcp    *fakeAddresses
	filter  *fakeRequests
	network *fakeNetwork
	dns     *fakeNameServer
	hyper   *fakeHypervisor
	order   []string
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, now: time.Unix(1_000_000_000, 0)}
	r.plane = &fakePlane{rig: r, adopted: make(chan struct{}), routes: make(map[netip.Prefix]dataplane.RouteUpdate)}
	r.ra = &fakeDiscovery{events: make(chan ra.Neighbors)}
	r.bfd = &fakeLiveness{events: make(chan bfd.State)}
	r.bgp = &fakeSpeaker{rig: r, events: make(chan bgp.Event)}
	r.over, r.watch, r.store = &fakeOverlay{}, &fakeWatch{}, &fakeStore{}
	r.routers, r.dns = &fakeAdvertiser{}, &fakeNameServer{}
	r.gates, r.voting = &fakeGateways{changed: make(chan struct{}, 1)}, &fakeQuorum{}
	r.way, r.nat, r.guard, r.dhcp, r.filter = &fakeUplink{}, &fakeNAT{}, &fakeGuard{rig: r}, &fakeAddresses{}, &fakeRequests{}
	r.network, r.hyper = &fakeNetwork{}, &fakeHypervisor{}
	p := parts{
		plane: r.plane, discovery: r.ra, liveness: r.bfd, speaker: r.bgp, overlay: r.over, watch: r.watch,
		store: r.store, elected: r.gates, quorum: r.voting, held: fakeHeld{r.gates}, lease: newAddressStore(nil),
		way: r.way, nat: r.nat, guard: r.guard, advertiser: r.routers, addresses: r.dhcp, requests: r.filter,
		network: r.network, nameServer: r.dns, hypervisor: r.hyper,
	}
	r.loop = newLoop(p, parse(t, testDocument, "leaf1"), "/pki", slog.New(slog.DiscardHandler))
	return r
}

// began is a rig whose loop knows these links and no earlier run, and has converged.
func began(t *testing.T, links ...dataplane.Link) *rig {
	r := newRig(t)
	r.loop.adopted = true
	r.setLinks(links...)
	r.heard(bgp.Converged{})
	r.step()
	return r
}

func (r *rig) step() { r.apply(r.now) }

func (r *rig) setLinks(links ...dataplane.Link) {
	all := make(map[string]dataplane.Link)
	for _, l := range links {
		all[l.Name] = l
	}
	r.linksChanged(dataplane.LinksChanged{Links: all})
	r.step()
}

func (r *rig) hear(port string, addrs ...string) {
	n := ra.Neighbors{Port: port}
	for _, a := range addrs {
		n.Neighbors = append(n.Neighbors, ra.Neighbor{Addr: netip.MustParseAddr(a)})
	}
	r.neighborsChanged(n)
	r.step()
}

func (r *rig) live(zoned, state string, everUp bool) {
	leg := plan.Leg(netip.MustParseAddr(zoned))
	r.cableChanged(bfd.State{Port: leg.Port, Peer: leg.Via, State: state, EverUp: everUp, Diagnostic: "detection time expired"}, r.now)
	r.step()
}

func (r *rig) session(zoned string, state bgp.State) {
	r.heard(bgp.PeerChanged{Peer: bgp.PeerStatus{
		Addr: netip.MustParseAddr(zoned), State: state, Since: r.now,
		Hostname: "spine1", ASN: 65001, RouterID: netip.MustParseAddr("10.0.254.1"),
	}})
	r.step()
}

func (r *rig) gone(zoned string) {
	r.heard(bgp.PeerChanged{Peer: bgp.PeerStatus{Addr: netip.MustParseAddr(zoned)}, Gone: true})
	r.step()
}

func (r *rig) paths(prefix string, via ...string) {
	p := bgp.Paths{Prefix: netip.MustParsePrefix(prefix)}
	for _, v := range via {
		p.Paths = append(p.Paths, bgp.Path{Peer: netip.MustParseAddr(v), ASPath: []uint32{65001}})
	}
	r.heard(bgp.PathsChanged{Unicast: []bgp.Paths{p}})
	r.step()
}

// wantPeers checks whom BGP and BFD were told to have sessions with.
func (r *rig) wantPeers(when string, zoned ...string) {
	r.t.Helper()
	var got []string
	for _, p := range r.bgp.desired.Peers {
		got = append(got, p.Addr.String())
	}
	if !slices.Equal(got, zoned) {
		r.t.Errorf("%s: BGP peers are %v, want %v", when, got, zoned)
	}
}

func (r *rig) wantLive(when string, zoned ...string) {
	r.t.Helper()
	var got []string
	for _, s := range r.bfd.sessions {
		got = append(got, s.Peer.String()+"%"+s.Port)
	}
	if !slices.Equal(got, zoned) {
		r.t.Errorf("%s: BFD sessions are %v, want %v", when, got, zoned)
	}
}

func (r *rig) wantFailed(when string, zoned ...string) {
	r.t.Helper()
	var got []string
	for _, leg := range r.plane.failed {
		got = append(got, leg.String())
	}
	slices.Sort(got)
	if !slices.Equal(got, zoned) {
		r.t.Errorf("%s: failed legs are %v, want %v", when, got, zoned)
	}
}

func (r *rig) wantPeer(when, port, state, reason string) {
	r.t.Helper()
	if p := r.peerOn(port, r.now); p.State != state || p.Reason != reason {
		r.t.Errorf("%s: %s is %q because %q, want %q because %q", when, port, p.State, p.Reason, state, reason)
	}
}

func (r *rig) wantConditions(when string, want ...string) {
	r.t.Helper()
	var got []string
	for _, c := range r.snapshot(r.now).Conditions {
		got = append(got, string(c.Severity)+" "+c.Name+" "+c.Subject)
	}
	if !slices.Equal(got, want) {
		r.t.Errorf("%s: conditions are %q, want %q", when, got, want)
	}
}

// link is a port with carrier; its own address ends in its index.
func link(name string, index int) dataplane.Link {
	own := netip.MustParseAddr("fe80::a00").As16()
	own[15] = byte(index)
	return dataplane.Link{Name: name, Index: index, Up: true, Carrier: true,
		LinkLocal: netip.AddrFrom16(own), MAC: "02:00:00:00:00:01"}
}

func noCarrierOn(l dataplane.Link) dataplane.Link {
	l.Carrier = false
	return l
}

type fakePlane struct {
	rig      *rig
	adopted  chan struct{}
	before   []dataplane.NextHop
	desired  dataplane.Desired
	failed   []dataplane.NextHop
	routes   map[netip.Prefix]dataplane.RouteUpdate
	updates  int
	sets     int
	complete bool
	report   dataplane.Report
	kernel   map[netip.Prefix][]dataplane.NextHop
}

func (p *fakePlane) Adopted() <-chan struct{}             { return p.adopted }
func (p *fakePlane) AdoptedNextHops() []dataplane.NextHop { return p.before }
func (p *fakePlane) Observe(dataplane.Event)              {}
func (p *fakePlane) Complete()                            { p.complete = true }
func (p *fakePlane) Report() dataplane.Report             { return p.report }
func (p *fakePlane) Withdraw(context.Context) error       { return nil }

func (p *fakePlane) Then(done func()) { done() }

func (p *fakePlane) Set(d dataplane.Desired) {
	p.desired = d
	p.sets++
}

func (p *fakePlane) SetFailed(legs []dataplane.NextHop) {
	if !slices.Equal(legs, p.failed) {
		p.rig.order = append(p.rig.order, "failed")
	}
	p.failed = legs
}

func (p *fakePlane) UpdateRoutes(updates []dataplane.RouteUpdate) {
	for _, u := range updates {
		p.routes[u.Prefix] = u
		p.updates++
	}
}

func (p *fakePlane) Installed(prefix netip.Prefix) ([]dataplane.NextHop, bool) {
	legs, ok := p.kernel[prefix]
	return legs, ok
}

type fakeDiscovery struct {
	ports  []ra.Port
	events chan ra.Neighbors
}

func (d *fakeDiscovery) SetPorts(ports []ra.Port)    { d.ports = ports }
func (d *fakeDiscovery) Events() <-chan ra.Neighbors { return d.events }

type fakeLiveness struct {
	sessions []bfd.Session
	sets     int
	events   chan bfd.State
}

func (l *fakeLiveness) Events() <-chan bfd.State   { return l.events }
func (l *fakeLiveness) Stop(context.Context) error { return nil }

func (l *fakeLiveness) Set(sessions []bfd.Session) {
	l.sessions = sessions
	l.sets++
}

type fakeSpeaker struct {
	rig     *rig
	desired bgp.Desired
	sets    int
	applied int
	events  chan bgp.Event
}

func (s *fakeSpeaker) Events() <-chan bgp.Event { return s.events }

func (s *fakeSpeaker) Applied() { s.applied++ }

func (s *fakeSpeaker) Set(d bgp.Desired) error {
	s.desired = d
	s.sets++
	s.rig.order = append(s.rig.order, "bgp")
	return nil
}

// fakeStore notes what is desired and reports what a test says.
type fakeStore struct {
	desired store.Desired
	report  store.ServiceReport
}

func (f *fakeStore) Set(d store.Desired)         { f.desired = d }
func (f *fakeStore) Report() store.ServiceReport { return f.report }

// fakeGateways notes what elections are about, and says what was won.
type fakeGateways struct {
	segments []gateway.Segment
	guests   map[string]int
	report   gateway.Report
	leave    chan struct{} // Leave waits for it; nil: it does not

	changed chan struct{}
	here    []dataplane.Segment
	byLXD   map[string]bool
	held    map[string]uint32
}

func (f *fakeGateways) SetSegments(s []gateway.Segment) { f.segments = s }
func (f *fakeGateways) SetGuests(g map[string]int)      { f.guests = g }
func (f *fakeGateways) Report() gateway.Report          { return f.report }

func (f *fakeGateways) Leave(ctx context.Context) error {
	if f.leave == nil {
		return nil
	}
	select {
	case <-f.leave:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fakeQuorum notes what LXD's cluster decides about, and says what it decided.
type fakeQuorum struct {
	place    quorum.Place
	segments []gateway.Segment
	spread   quorum.Spread
	names    map[string]string
	drained  bool
	left     bool
	report   gateway.Report
}

func (f *fakeQuorum) SetPlace(p quorum.Place)         { f.place = p }
func (f *fakeQuorum) SetSegments(s []gateway.Segment) { f.segments = s }
func (f *fakeQuorum) SetSpread(s quorum.Spread)       { f.spread = s }
func (f *fakeQuorum) SetNames(n map[string]string)    { f.names = n }
func (f *fakeQuorum) Drain(drained bool)              { f.drained = drained }
func (f *fakeQuorum) Report() gateway.Report          { return f.report }

func (f *fakeQuorum) Leave(context.Context) error {
	f.left = true
	return nil
}

type fakeHeld struct{ *fakeGateways }

func (f fakeHeld) SetSegments(s []dataplane.Segment, byLXD map[string]bool) {
	f.here, f.byLXD = s, byLXD
}
func (f fakeHeld) Held() map[string]uint32  { return f.held }
func (f fakeHeld) Changed() <-chan struct{} { return f.changed }

// fakeUplink notes what is watched.
type fakeUplink struct{ desired uplink.Desired }

func (f *fakeUplink) Set(d uplink.Desired)        { f.desired = d }
func (f *fakeUplink) Events() <-chan uplink.State { return nil }

// fakeNAT notes what is desired and reports what a test says.
type fakeNAT struct {
	desired   dataplane.Masquerade
	problem   string
	refreshed int
}

func (f *fakeNAT) Set(m dataplane.Masquerade)     { f.desired = m }
func (f *fakeNAT) Withdraw(context.Context) error { return nil }
func (f *fakeNAT) Refresh()                       { f.refreshed++ }
func (f *fakeNAT) Problem() (string, time.Time)   { return f.problem, time.Time{} }

// fakeGuard notes the rules.
type fakeGuard struct {
	rig   *rig
	rules dataplane.Guard
	sets  int
	drops []dataplane.GuardDrop
}

func (f *fakeGuard) Set(g dataplane.Guard) {
	f.rules, f.sets = g, f.sets+1
	f.rig.order = append(f.rig.order, "guard")
}

func (f *fakeGuard) Problem() (string, time.Time)          { return "", time.Time{} }
func (f *fakeGuard) Withdraw(context.Context) error        { return nil }
func (f *fakeGuard) Drops() ([]dataplane.GuardDrop, error) { return f.drops, nil }

// fakeAddresses notes which guests are answered.
type fakeAddresses struct {
	segments []dhcp.Segment
	remote   map[dataplane.NeighborKey]dataplane.MAC
	report   dhcp.Report
	leases   []dhcp.Lease
}

func (f *fakeAddresses) SetSegments(s []dhcp.Segment)                      { f.segments = s }
func (f *fakeAddresses) Observe(n map[dataplane.NeighborKey]dataplane.MAC) { f.remote = n }
func (f *fakeAddresses) Kept() <-chan []dataplane.LocalAddress             { return nil }
func (f *fakeAddresses) Bound() <-chan []dataplane.LocalAddress            { return nil }
func (f *fakeAddresses) Named() <-chan []dhcp.Named                        { return nil }
func (f *fakeAddresses) Report() dhcp.Report                               { return f.report }
func (f *fakeAddresses) Leases(context.Context, string) []dhcp.Lease       { return f.leases }
func (f *fakeAddresses) Release(context.Context, netip.Addr) error         { return nil }

// fakeRequests notes whose guests' requests are kept on the node.
type fakeRequests struct {
	segments []dataplane.Segment
	problem  string
}

func (f *fakeRequests) Set(s []dataplane.Segment)      { f.segments = s }
func (f *fakeRequests) Problem() (string, time.Time)   { return f.problem, time.Time{} }
func (f *fakeRequests) Withdraw(context.Context) error { return nil }

// fakeAdvertiser notes which routers guests are told of.
type fakeAdvertiser struct{ segments []advertise.Segment }

func (f *fakeAdvertiser) SetSegments(s []advertise.Segment) { f.segments = s }
func (f *fakeAdvertiser) Withdraw(context.Context) error    { return nil }
