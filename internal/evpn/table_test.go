package evpn

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"frond/internal/bgp"
	"frond/internal/dataplane"
)

// rig is a table of a node with VTEP A, on a clock of its own, and what the
// kernel would hold if it had done all that was asked.
type rig struct {
	*testing.T
	*Table
	now     time.Time
	macs    map[dataplane.MACKey]netip.Addr
	arp     map[dataplane.NeighborKey]dataplane.MAC
	flooded map[uint32][]netip.Addr
	told    []string // notations of the routes originated
	hosts   []string // host routes originated
	wire    map[string]bgp.EVPNRoute
}

func newRig(t *testing.T, vtep netip.Addr, vnis ...uint32) *rig {
	r := &rig{
		T:       t,
		now:     time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		macs:    make(map[dataplane.MACKey]netip.Addr),
		arp:     make(map[dataplane.NeighborKey]dataplane.MAC),
		flooded: make(map[uint32][]netip.Addr),
	}
	r.Table = New(Config{ASN: 64000, RouterID: vtep, VTEP: vtep, Now: func() time.Time { return r.now }})
	r.segments(vnis...)
	return r
}

func (r *rig) segments(vnis ...uint32) {
	var segments []dataplane.Segment
	for _, vni := range vnis {
		segments = append(segments, dataplane.Segment{Name: fmt.Sprint("s", vni), VNI: vni, MACLimit: 10})
	}
	r.SetSegments(segments)
	r.take()
}

func (r *rig) appears(vni uint32, mac dataplane.MAC, port string) {
	r.Observe(dataplane.LocalMACs{{VNI: vni, MAC: mac, Port: port}})
}

func (r *rig) sticks(vni uint32, mac dataplane.MAC, port string) {
	r.Observe(dataplane.LocalMACs{{VNI: vni, MAC: mac, Port: port, Sticky: true}})
}

func (r *rig) ages(vni uint32, mac dataplane.MAC, port string) {
	r.Observe(dataplane.LocalMACs{{VNI: vni, MAC: mac, Port: port, Aged: true}})
}

func (r *rig) speaks(vni uint32, mac dataplane.MAC, ip netip.Addr) {
	r.Observe(dataplane.LocalAddresses{{VNI: vni, MAC: mac, IP: ip}})
}

func (r *rig) unplug(vni uint32, port string) {
	r.Observe(dataplane.LocalPortsGone{{VNI: vni, Port: port}})
}

// take applies the changes.
func (r *rig) take() {
	c := r.Changes()
	overlay, changed := c.Overlay, c.Routes
	for key, vtep := range overlay.MACs {
		if r.macs[key] = vtep; !vtep.IsValid() {
			delete(r.macs, key)
		}
	}
	for key, mac := range overlay.Neighbors {
		if r.arp[key] = mac; mac == (dataplane.MAC{}) {
			delete(r.arp, key)
		}
	}
	for vni, vteps := range overlay.Flood {
		if r.flooded[vni] = vteps; len(vteps) == 0 {
			delete(r.flooded, vni)
		}
	}
	if !changed {
		return
	}
	r.told, r.hosts, r.wire = nil, nil, make(map[string]bgp.EVPNRoute)
	for _, route := range r.Originated() {
		if route.EVPN == nil {
			r.hosts = append(r.hosts, route.Prefix.String())
			continue
		}
		decoded, err := Decode(*route.EVPN)
		if err != nil {
			r.Fatalf("originated what cannot be read: %v", err)
		}
		text := decoded.String()
		if m, ok := decoded.(MACIP); ok {
			text += fmt.Sprint(" ", m.Sequence)
			if m.Sticky {
				text += " sticky"
			}
		}
		r.told = append(r.told, text)
		r.wire[route.EVPN.NLRI] = *route.EVPN
	}
	slices.Sort(r.told)
	slices.Sort(r.hosts)
}

// path is a route as the speaker tells it.
func path(route Route) bgp.EVPNPath {
	wire := route.Encode()
	return bgp.EVPNPath{Key: keyOf(route), Route: wire}
}

func gone(route Route) bgp.EVPNPath { return bgp.EVPNPath{Key: keyOf(route), Gone: true} }

func keyOf(route Route) string { return route.attributes().RD.String() + route.String() }

func macip(vtep netip.Addr, mac dataplane.MAC, ip string, sequence uint32) MACIP {
	r := MACIP{Attributes: attributesFor(vtep, 100), MAC: mac, Sequence: sequence}
	if ip != "" {
		r.IP = netip.MustParseAddr(ip)
	}
	return r
}

func flood(vtep netip.Addr, vni uint32) Multicast {
	return Multicast{Attributes: attributesFor(vtep, vni), Originator: vtep}
}

func (r *rig) learn(routes ...Route) {
	for _, route := range routes {
		r.Learn([]bgp.EVPNPath{path(route)})
	}
}

// wantMAC checks the forwarding entry of a MAC; the zero Addr wants none.
func (r *rig) wantMAC(mac dataplane.MAC, vtep netip.Addr) {
	r.Helper()
	r.take()
	if got := r.macs[dataplane.MACKey{VNI: 100, MAC: mac}]; got != vtep {
		r.Errorf("entry of %s leads to %v, want %v", mac, got, vtep)
	}
}

func (r *rig) wantARP(ip netip.Addr, mac dataplane.MAC) {
	r.Helper()
	r.take()
	if got := r.arp[dataplane.NeighborKey{VNI: 100, IP: ip}]; got != mac {
		r.Errorf("%s is at %s, want %s", ip, got, mac)
	}
}

// wantTold checks the type 2 routes that the node originates.
func (r *rig) wantTold(want ...string) {
	r.Helper()
	r.take()
	var got []string
	for _, text := range r.told {
		if text[1] == '2' {
			got = append(got, text)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		r.Errorf("routes (-want +got):\n%s", diff)
	}
}

// wantProblem checks that a problem holds all words; none at all wants none.
func (r *rig) wantProblem(words ...string) {
	r.Helper()
	problems := r.Problems()
	if len(words) == 0 && len(problems) > 0 {
		r.Errorf("problems: %v, want none", problems)
	}
	for _, word := range words {
		if !slices.ContainsFunc(problems, func(p Problem) bool { return strings.Contains(p.Text, word) }) {
			r.Errorf("problems: %v, want one that says %q", problems, word)
		}
	}
}

const told1 = "[2]:[0]:[48]:[02:00:00:00:00:01]"

var nowhere netip.Addr

func TestFloodLists(t *testing.T) {
	r := newRig(t, vtepA, 100)
	r.learn(flood(vtepC, 100), flood(vtepB, 100), flood(vtepB, 200))
	r.take()
	want := map[uint32][]netip.Addr{100: {vtepB, vtepC}}
	if diff := cmp.Diff(want, r.flooded, addresses); diff != "" {
		t.Errorf("flood lists (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"[3]:[0]:[32]:[10.0.200.1]"}, r.told); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
	r.Learn([]bgp.EVPNPath{gone(flood(vtepC, 100))})
	r.segments(100, 200)
	want = map[uint32][]netip.Addr{100: {vtepB}, 200: {vtepB}}
	if diff := cmp.Diff(want, r.flooded, addresses); diff != "" {
		t.Errorf("flood lists with another segment (-want +got):\n%s", diff)
	}
}

func TestSegmentLeavesNothing(t *testing.T) {
	r := newRig(t, vtepA, 100)
	r.appears(100, mac1, "g1")
	r.speaks(100, mac1, ip4)
	r.gateway(gateway)
	r.learn(macip(vtepB, mac2, "172.16.0.12", 0), flood(vtepB, 100))
	r.wantMAC(mac2, vtepB)
	if len(r.told) != 5 {
		t.Errorf("originated: %v", r.told)
	}
	r.segments()
	if len(r.macs)+len(r.arp)+len(r.flooded)+len(r.told) > 0 {
		t.Errorf("left behind: %v %v %v %v", r.macs, r.arp, r.flooded, r.told)
	}
	r.segments(100)
	r.wantMAC(mac2, vtepB) // the route was remembered
	r.wantTold()
}

func TestDistinguishersStayApart(t *testing.T) {
	r := newRig(t, vtepA, 100, 100+1<<16, 1<<16, 101)
	seen := make(map[RD]bool)
	for _, s := range r.Table.segments {
		seen[s.rd] = true
	}
	if len(seen) != 4 || r.Table.segments[100].rd.String() != "10.0.200.1:100" {
		t.Errorf("distinguishers: %v", seen)
	}
	if got := r.Table.segments[1<<16].rd.String(); got != "10.0.200.1:1" {
		t.Errorf("the segment whose number would be 0 has %s", got)
	}
	before := r.Table.segments[101].rd
	r.segments(101, 7)
	if r.Table.segments[101].rd != before {
		t.Error("a segment that stays has got another distinguisher")
	}
}

func TestMobility(t *testing.T) {
	for name, test := range map[string]struct {
		do    func(*rig)
		entry netip.Addr
		told  []string
	}{
		"seen here": {func(r *rig) { r.appears(100, mac1, "g1") }, nowhere, []string{told1 + " 0"}},
		"seen here twice": {func(r *rig) {
			r.appears(100, mac1, "g1")
			r.appears(100, mac1, "g1")
		}, nowhere, []string{told1 + " 0"}},
		"told by another":          {func(r *rig) { r.learn(macip(vtepB, mac1, "", 0)) }, vtepB, nil},
		"of a segment not ours":    {func(r *rig) { r.appears(200, mac1, "g1") }, nowhere, nil},
		"multicast MAC seen":       {func(r *rig) { r.appears(100, dataplane.MAC{1}, "g1") }, nowhere, nil},
		"zero MAC seen":            {func(r *rig) { r.appears(100, dataplane.MAC{}, "g1") }, nowhere, nil},
		"our own route comes back": {func(r *rig) { r.learn(macip(vtepA, mac1, "", 5)) }, nowhere, nil},
		"lowest VTEP of equals":    {func(r *rig) { r.learn(macip(vtepC, mac1, "", 1), macip(vtepB, mac1, "", 1)) }, vtepB, nil},
		"highest sequence":         {func(r *rig) { r.learn(macip(vtepC, mac1, "", 2), macip(vtepB, mac1, "", 1)) }, vtepC, nil},
		"sticky before sequence":   {func(r *rig) { r.learn(sticky(macip(vtepC, mac1, "", 0)), macip(vtepB, mac1, "", 9)) }, vtepC, nil},
		"the best one is withdrawn": {func(r *rig) {
			r.learn(macip(vtepC, mac1, "", 2), macip(vtepB, mac1, "", 1))
			r.Learn([]bgp.EVPNPath{gone(macip(vtepC, mac1, "", 2))})
		}, vtepB, nil},
		"moves here": {func(r *rig) {
			r.learn(macip(vtepB, mac1, "", 4))
			r.appears(100, mac1, "g1")
		}, nowhere, []string{told1 + " 5"}},
		"moves here with its address": {func(r *rig) {
			r.learn(macip(vtepB, mac1, "", 4), macip(vtepB, mac1, "172.16.0.11", 4))
			r.appears(100, mac1, "g1")
			r.Learn([]bgp.EVPNPath{gone(macip(vtepB, mac1, "", 0)), gone(macip(vtepB, mac1, "172.16.0.11", 0))})
		}, nowhere, []string{told1 + " 5", told1 + ":[32]:[172.16.0.11] 5"}},
		"moves away": {func(r *rig) {
			r.appears(100, mac1, "g1")
			r.speaks(100, mac1, ip4)
			r.learn(macip(vtepB, mac1, "", 1))
		}, vtepB, nil},
		"moves away and back": {func(r *rig) {
			r.appears(100, mac1, "g1")
			r.learn(macip(vtepB, mac1, "", 1))
			r.appears(100, mac1, "g1")
		}, nowhere, []string{told1 + " 2"}},
		"another claims as much, with a higher VTEP": {func(r *rig) {
			r.appears(100, mac1, "g1")
			r.learn(macip(vtepB, mac1, "", 0))
		}, nowhere, []string{told1 + " 0"}},
		"another claims as much, with a lower VTEP": {func(r *rig) {
			r.appears(100, mac1, "g1")
			lower := netip.MustParseAddr("10.0.100.1")
			r.learn(macip(lower, mac1, "", 0))
			r.learn(macip(vtepB, mac1, "", 0)) // more than ours, less than the lower one's
		}, netip.MustParseAddr("10.0.100.1"), nil},
		"an older claim": {func(r *rig) {
			r.learn(macip(vtepB, mac1, "", 4))
			r.appears(100, mac1, "g1")
			r.learn(macip(vtepC, mac1, "", 3))
		}, nowhere, []string{told1 + " 5"}},
		"sticky elsewhere": {func(r *rig) {
			r.learn(sticky(macip(vtepB, mac1, "", 0)))
			r.appears(100, mac1, "g1")
		}, vtepB, nil},
		"sticky elsewhere, then gone": {func(r *rig) {
			r.learn(sticky(macip(vtepB, mac1, "", 0)))
			r.appears(100, mac1, "g1")
			r.Learn([]bgp.EVPNPath{gone(macip(vtepB, mac1, "", 0))})
		}, nowhere, []string{told1 + " 0"}},
		"sticky elsewhere, then both gone": {func(r *rig) {
			r.learn(sticky(macip(vtepB, mac1, "", 0)))
			r.appears(100, mac1, "g1")
			r.unplug(100, "g1")
			r.Learn([]bgp.EVPNPath{gone(macip(vtepB, mac1, "", 0))})
		}, nowhere, nil},
		"sticky elsewhere, then no more": {func(r *rig) {
			r.learn(sticky(macip(vtepB, mac1, "", 0)))
			r.appears(100, mac1, "g1")
			r.learn(macip(vtepB, mac1, "", 0))
		}, nowhere, []string{told1 + " 1"}},
		"sticky here": {func(r *rig) {
			r.sticks(100, mac1, "g1")
			r.learn(macip(vtepB, mac1, "", 9))
		}, nowhere, []string{told1 + " 0 sticky"}},
		"sticky here, then no more": {func(r *rig) {
			r.sticks(100, mac1, "g1")
			r.learn(macip(vtepB, mac1, "", 9))
			r.ages(100, mac1, "g1")
		}, vtepB, nil},
		"sticky here, then learned": {func(r *rig) {
			r.sticks(100, mac1, "g1")
			r.appears(100, mac1, "g1")
		}, nowhere, []string{told1 + " 0"}},
		"the last sequence number": {func(r *rig) {
			r.learn(macip(vtepB, mac1, "", 1<<32-1))
			r.appears(100, mac1, "g1")
		}, nowhere, []string{told1 + " 4294967295"}},
		"silent": {func(r *rig) {
			r.appears(100, mac1, "g1")
			r.ages(100, mac1, "g1")
		}, nowhere, []string{told1 + " 0"}},
		"port gone": {func(r *rig) {
			r.appears(100, mac1, "g1")
			r.speaks(100, mac1, ip4)
			r.unplug(100, "g1")
		}, nowhere, nil},
		"another port gone": {func(r *rig) {
			r.appears(100, mac1, "g1")
			r.unplug(100, "g2")
			r.appears(100, mac2, "g2")
			r.appears(100, mac1, "g2")
			r.unplug(100, "g1")
			r.appears(100, mac2, "g1")
			r.unplug(100, "g1")
		}, nowhere, []string{told1 + " 0"}},
		"malformed in place of a route": {func(r *rig) {
			r.learn(macip(vtepB, mac1, "", 0))
			bad := path(macip(vtepB, mac1, "", 0))
			bad.Route.NextHop = netip.Addr{}
			r.Learn([]bgp.EVPNPath{bad})
		}, nowhere, nil},
		"to another segment by its label": {func(r *rig) {
			r.learn(macip(vtepB, mac1, "", 0))
			other := macip(vtepB, mac1, "", 0)
			moved := path(Route(MACIP{Attributes: attributesFor(vtepB, 200), MAC: mac1}))
			moved.Key = keyOf(other)
			r.Learn([]bgp.EVPNPath{moved})
		}, nowhere, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, vtepA, 100)
			test.do(r)
			r.check()
			r.wantMAC(mac1, test.entry)
			r.wantTold(test.told...)
		})
	}
}

func sticky(r MACIP) MACIP {
	r.Sticky = true
	return r
}

// The kernel forgets an entry as soon as it sees the MAC on a port: that of a
// sticky one has to be asked for again.
func TestStickyEntryIsPutBack(t *testing.T) {
	r := newRig(t, vtepA, 100)
	r.learn(sticky(macip(vtepB, mac1, "", 0)))
	r.take()
	r.appears(100, mac1, "g1")
	overlay := r.Changes().Overlay
	want := map[dataplane.MACKey]netip.Addr{{VNI: 100, MAC: mac1}: vtepB}
	if diff := cmp.Diff(want, overlay.MACs, addresses); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	r.wantProblem("02:00:00:00:00:01 was seen at port g1, but 10.0.200.2 says that it never moves")
	r.ages(100, mac1, "g1")
	r.wantProblem()
}

func TestOverflowIsNamed(t *testing.T) {
	r := newRig(t, vtepA, 100)
	r.Observe(dataplane.LocalOverflows{{VNI: 100, Port: "g1", Limit: 10, Over: true}, {VNI: 200, Port: "g1", Over: true}})
	r.wantProblem("port g1 has brought 10 MACs")
	r.Observe(dataplane.LocalOverflows{{VNI: 100, Port: "g1", Limit: 10}})
	r.wantProblem()
	r.Observe(dataplane.LocalOverflows{{VNI: 100, Port: "g1", Limit: 10, Over: true}})
	r.unplug(100, "g1")
	r.wantProblem()
}

func TestMoveSeenWhole(t *testing.T) {
	r := newRig(t, vtepA, 100)
	r.learn(macip(vtepB, mac1, "172.16.0.11", 0))
	r.take()
	// One batch holds the withdrawal by one node and the news of the other.
	r.Learn([]bgp.EVPNPath{gone(macip(vtepB, mac1, "172.16.0.11", 0)), path(macip(vtepC, mac1, "172.16.0.11", 1))})
	c := r.Changes()
	overlay, changed := c.Overlay, c.Routes
	want := dataplane.OverlayUpdate{MACs: map[dataplane.MACKey]netip.Addr{{VNI: 100, MAC: mac1}: vtepC}}
	if diff := cmp.Diff(want, overlay, addresses); diff != "" || changed {
		t.Errorf("the move has changed (-want +got), routes %v:\n%s", changed, diff)
	}
}

func TestUnreachableVTEP(t *testing.T) {
	r := newRig(t, vtepA, 100)
	r.learn(flood(vtepB, 100), macip(vtepB, mac1, "172.16.0.11", 3), macip(vtepC, mac1, "", 1))
	r.wantMAC(mac1, vtepB)
	up := map[netip.Addr]bool{vtepC: true}
	r.SetReachable(func(a netip.Addr) bool { return up[a] })
	r.wantMAC(mac1, vtepC)
	r.wantARP(ip4, dataplane.MAC{})
	if len(r.flooded) > 0 {
		t.Errorf("flooded to %v", r.flooded)
	}
	delete(up, vtepC)
	r.SetReachable(func(a netip.Addr) bool { return up[a] })
	r.wantMAC(mac1, nowhere)

	r.appears(100, mac1, "g1")
	r.wantTold(told1 + " 4") // what cannot be reached may come back: it has to be outdone
	up[vtepB] = true
	r.SetReachable(func(a netip.Addr) bool { return up[a] })
	r.wantMAC(mac1, nowhere)
	r.wantARP(ip4, mac1)
	r.SetReachable(nil)
	r.unplug(100, "g1")
	r.wantMAC(mac1, vtepB)
}

func TestAddresses(t *testing.T) {
	r := newRig(t, vtepA, 100)
	r.speaks(100, mac1, ip4) // before its MAC
	r.wantTold()
	r.appears(100, mac1, "g1")
	r.speaks(100, mac1, ip6)
	r.speaks(100, mac1, netip.MustParseAddr("fe80::1%g1"))
	for _, no := range []string{"0.0.0.0", "224.0.0.1", "::", "ff02::1", "127.0.0.1", "255.255.255.255"} {
		r.speaks(100, mac1, netip.MustParseAddr(no))
	}
	r.speaks(100, mac1, netip.Addr{})
	r.wantTold(told1+" 0", told1+":[128]:[fd00:172:16::11] 0", told1+":[128]:[fe80::1] 0", told1+":[32]:[172.16.0.11] 0")
	r.wantARP(ip4, mac1)

	r.appears(100, mac2, "g2")
	r.speaks(100, mac2, ip4) // a new guest has got the address
	r.wantARP(ip4, mac2)
	r.unplug(100, "g1")
	r.wantTold("[2]:[0]:[48]:[02:00:00:00:00:02] 0", "[2]:[0]:[48]:[02:00:00:00:00:02]:[32]:[172.16.0.11] 0")
	r.unplug(100, "g2")
	r.wantARP(ip4, dataplane.MAC{})
	if s := r.Table.segments[100]; len(s.macs)+len(s.addresses)+len(s.unlearned)+len(s.ports) > 0 {
		t.Errorf("left behind: %+v", s)
	}
}

// An address that a guest elsewhere had is taken over by a claim that all
// nodes find stronger, and lost to a stronger one.
func TestAddressMovesBetweenMACs(t *testing.T) {
	r := newRig(t, vtepA, 100)
	r.learn(macip(vtepB, mac2, "172.16.0.11", 3))
	r.appears(100, mac1, "g1")
	r.speaks(100, mac1, ip4)
	r.wantTold(told1+" 4", told1+":[32]:[172.16.0.11] 4")
	r.wantARP(ip4, mac1)
	r.learn(macip(vtepC, mac2, "172.16.0.11", 5))
	r.wantTold(told1 + " 4")
	r.wantARP(ip4, mac2)
}

func TestDuplicateMACFreezes(t *testing.T) {
	r := newRig(t, vtepA, 100)
	r.appears(100, mac1, "g1")
	for sequence := uint32(1); sequence < 5; sequence += 2 {
		r.learn(macip(vtepB, mac1, "", sequence))
		r.wantMAC(mac1, vtepB)
		r.appears(100, mac1, "g1")
		r.wantMAC(mac1, nowhere)
	}
	r.learn(macip(vtepB, mac1, "", 5)) // the fifth move
	r.wantMAC(mac1, vtepB)
	r.wantProblem()
	r.appears(100, mac1, "g1") // one too many
	r.wantMAC(mac1, vtepB)
	r.wantTold()
	r.wantProblem("02:00:00:00:00:01 has moved more than 5 times", "frozen at 10.0.200.2 (seen at port g1 too)")
	if until := r.Table.Deadline(); until != r.now.Add(freezeTime) {
		t.Errorf("thaws at %v", until)
	}

	r.learn(macip(vtepB, mac1, "", 6)) // still elsewhere
	r.now = r.now.Add(freezeTime)
	r.wantMAC(mac1, nowhere) // thawed, and it is here as well
	r.wantTold(told1 + " 7")
	r.wantProblem()
	if until := r.Table.Deadline(); !until.IsZero() {
		t.Errorf("something thaws at %v", until)
	}
}

func TestFrozenHereStaysHere(t *testing.T) {
	r := newRig(t, vtepA, 100)
	r.learn(macip(vtepB, mac1, "", 0))
	for sequence := uint32(2); sequence < 8; sequence += 2 {
		r.appears(100, mac1, "g1")
		r.learn(macip(vtepB, mac1, "", sequence))
	}
	r.wantMAC(mac1, nowhere)
	r.wantTold(told1 + " 5")
	r.wantProblem("frozen at port g1")
	if r.Thaw(100, mac2) || r.Thaw(200, mac1) {
		t.Error("thawed what is not frozen")
	}
	if !r.Thaw(100, mac1) {
		t.Error("not thawed by command")
	}
	r.wantMAC(mac1, vtepB)
	r.wantTold()
	r.wantProblem()
}

func TestFrozenThawsWhenTheOtherLeaves(t *testing.T) {
	r := newRig(t, vtepA, 100)
	r.appears(100, mac1, "g1")
	for sequence := uint32(1); sequence < 7; sequence += 2 {
		r.learn(macip(vtepB, mac1, "", sequence))
		r.appears(100, mac1, "g1")
	}
	r.wantMAC(mac1, vtepB)
	r.wantProblem("frozen")
	r.Learn([]bgp.EVPNPath{gone(macip(vtepB, mac1, "", 0))})
	r.wantMAC(mac1, nowhere)
	r.wantTold(told1 + " 0")
	r.wantProblem()
}

func TestSlowMovesAreNoDuplicate(t *testing.T) {
	r := newRig(t, vtepA, 100)
	for sequence := uint32(0); sequence < 100; sequence += 2 {
		r.learn(macip(vtepB, mac1, "", sequence))
		r.wantMAC(mac1, vtepB)
		r.now = r.now.Add(moveWindow / maxMoves)
		r.appears(100, mac1, "g1")
		r.wantMAC(mac1, nowhere)
		r.now = r.now.Add(moveWindow / maxMoves)
	}
	r.wantProblem()
}

func TestLoopBetweenPortsIsNamed(t *testing.T) {
	r := newRig(t, vtepA, 100)
	for range 50 {
		r.appears(100, mac1, "loop0")
		r.appears(100, mac1, "loop1")
	}
	r.wantTold(told1 + " 0")
	r.wantProblem("02:00:00:00:00:01 has moved", "port loop")
}

// What a loop has moved about counts for nothing once the loop is found.
func TestLoopIsFound(t *testing.T) {
	r := newRig(t, vtepA, 100)
	r.learn(macip(vtepB, mac2, "", 0))
	for i := range 50 {
		port := fmt.Sprint("loop", i%2)
		r.appears(100, mac1, "g1")
		r.appears(100, mac1, port)
		r.appears(100, mac2, port)
		r.learn(macip(vtepB, mac2, "", uint32(2*i)))
	}
	r.wantProblem("02:00:00:00:00:01 has moved", "02:00:00:00:00:02 has moved")
	r.unplug(100, "loop0")
	r.unplug(100, "loop1")
	r.Observe(dataplane.LocalLoops{{VNI: 100, Port: "loop1", Other: "loop0", Looped: true}, {VNI: 7, Port: "loop1", Looped: true}})
	r.wantProblem("port loop1 loops to port loop0")
	r.wantMAC(mac2, vtepB)
	r.appears(100, mac1, "g1")
	r.wantTold(told1 + " 0")
	r.check()
	r.Observe(dataplane.LocalLoops{{VNI: 100, Port: "loop1"}})
	r.wantProblem()
	r.Observe(dataplane.LocalLoops{{VNI: 100, Port: "loop1", Other: "loop0", Looped: true}})
	r.unplug(100, "loop1")
	r.wantProblem()
}

func TestDuplicateAddressFreezes(t *testing.T) {
	r := newRig(t, vtepA, 100)
	r.appears(100, mac1, "g1")
	r.appears(100, mac2, "g2")
	for range 10 {
		r.speaks(100, mac1, ip4)
		r.speaks(100, mac2, ip4)
	}
	r.wantARP(ip4, mac2) // the fifth move brought it there
	r.wantProblem("172.16.0.11 has changed its MAC more than 5 times")
	if !r.ThawAddress(100, ip4) || r.ThawAddress(100, ip4) {
		t.Error("not thawed just once")
	}
	r.speaks(100, mac1, ip4)
	r.wantARP(ip4, mac1)
	r.wantProblem()

	for range 10 {
		r.speaks(100, mac1, ip4)
		r.speaks(100, mac2, ip4)
	}
	r.wantProblem("172.16.0.11 has changed")
	r.unplug(100, "g1")
	r.unplug(100, "g2")
	r.check() // nobody has the address, so nothing is frozen
	r.wantProblem()
}

func testMAC(n int) dataplane.MAC {
	return dataplane.MAC{2, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)}
}

// A guest that floods its port with MACs harms itself only.
func TestPortIsFull(t *testing.T) {
	r := newRig(t, vtepA, 100)
	for n := range 50_000 {
		r.appears(100, testMAC(n), "g1")
		r.speaks(100, testMAC(n), netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n) | 1}))
	}
	r.appears(100, testMAC(60_000), "g2")
	r.take()
	s := r.Table.segments[100]
	if len(r.told) > 1+2*10+1 || len(s.macs) > 10+1+maxUnlearned {
		t.Errorf("%d routes told, %d stations known", len(r.told), len(s.macs))
	}
	r.wantProblem("port g1 has brought 10 MACs, which is its limit: 49990 further sightings refused")

	r.now = r.now.Add(time.Minute)
	r.ages(100, testMAC(3), "g1")
	r.now = r.now.Add(time.Minute)
	r.ages(100, testMAC(4), "g1")
	r.appears(100, testMAC(70_000), "g1") // takes the place of the longest silent
	r.take()
	if _, there := s.macs[testMAC(3)]; there && s.macs[testMAC(3)].local != nil {
		t.Error("the longest silent station has kept its place")
	}
	if m := s.macs[testMAC(70_000)]; m == nil || m.local == nil || s.macs[testMAC(4)].local == nil {
		t.Error("the newcomer has no place, or took the wrong one")
	}
	r.wantProblem()
}

func TestMalformedRoutesAreNamed(t *testing.T) {
	r := newRig(t, vtepA, 100)
	r.Learn([]bgp.EVPNPath{
		{Key: "a", Route: bgp.EVPNRoute{NLRI: "\x02\x00", NextHop: vtepB}},
		{Key: "b", Route: bgp.EVPNRoute{NLRI: "\x02\x00", NextHop: vtepB}},
		{Key: "c", Route: bgp.EVPNRoute{NLRI: "\x04\x00", NextHop: vtepB}}, // fine, of no use
		{Key: "d", Route: bgp.EVPNRoute{NLRI: "\x03\x00", NextHop: vtepB}, Peer: vtepC},
		{Key: "d", Route: bgp.EVPNRoute{NLRI: "\x03\x01-", NextHop: vtepB}, Peer: vtepC},
	})
	r.wantProblem("2 EVPN routes from invalid IP malformed", "0 bytes are too few", "1 EVPN route from 10.0.200.3 malformed")
	if n := r.MalformedFrom(vtepC); n != 2 {
		t.Errorf("%d counted, want every one", n)
	}
	first := r.FirstMalformed()
	if len(first) != 2 || first[0].Type != 2 || first[1].Type != 3 || first[1].Peer != vtepC {
		t.Errorf("to be logged: %+v", first)
	}
	r.Learn([]bgp.EVPNPath{{Key: "a", Gone: true}, {Key: "b", Gone: true}, path(flood(vtepB, 100))})
	r.Learn([]bgp.EVPNPath{{Key: "d", Route: flood(vtepB, 100).Encode(), Peer: vtepC}})
	r.wantProblem()
	if first := r.FirstMalformed(); len(first) != 0 || r.MalformedFrom(vtepC) != 2 {
		t.Errorf("later: %+v to be logged, %d counted", first, r.MalformedFrom(vtepC))
	}
	r.ForgetPeer(vtepC)
	r.Learn([]bgp.EVPNPath{{Key: "d", Route: bgp.EVPNRoute{NLRI: "\x03\x00", NextHop: vtepB}, Peer: vtepC}})
	if first := r.FirstMalformed(); len(first) != 1 || r.MalformedFrom(vtepC) != 1 {
		t.Errorf("of a session that is new: %+v to be logged, %d counted", first, r.MalformedFrom(vtepC))
	}
}

// The same route by another session is no news but to status.
func TestRouteComesByAnotherPeer(t *testing.T) {
	r := newRig(t, vtepA)
	for _, peer := range []string{"fe80::1%eth0", "fe80::2%eth1"} {
		p := path(flood(vtepB, 100))
		p.Peer = netip.MustParseAddr(peer)
		r.Learn([]bgp.EVPNPath{p})
		if routes := r.Routes(); len(routes) != 1 || routes[0].Peer != p.Peer {
			t.Errorf("routes by %s: %+v", peer, routes)
		}
	}
}

func TestStatus(t *testing.T) {
	r := newRig(t, vtepA, 100)
	r.appears(100, mac1, "g1")
	r.speaks(100, mac1, ip4)
	since := r.now
	r.now = r.now.Add(time.Minute)
	foreign := macip(vtepB, mac2, "", 2)
	foreign.VNI = 200
	r.learn(macip(vtepB, mac2, "172.16.0.12", 2), flood(vtepB, 100), foreign)
	want := []MACStatus{
		{VNI: 100, MAC: mac1, IPs: []netip.Addr{ip4}, Local: true, Port: "g1", VTEP: vtepA, Since: since, Plugged: since},
		{VNI: 100, MAC: mac2, IPs: []netip.Addr{netip.MustParseAddr("172.16.0.12")}, VTEP: vtepB, Sequence: 2, Since: r.now},
	}
	if diff := cmp.Diff(want, r.MACs(100), addresses); diff != "" {
		t.Errorf("MACs (-want +got):\n%s", diff)
	}
	r.now = r.now.Add(time.Minute)
	r.appears(100, mac1, "g1")
	if m := r.MACs(100)[0]; m.Plugged != since {
		t.Errorf("heard again where it was: %+v", m)
	}
	r.appears(100, mac1, "g2")
	if m := r.MACs(100)[0]; m.Plugged != r.now || m.Since != since {
		t.Errorf("heard at another port: %+v", m)
	}
	if r.MACs(200) != nil {
		t.Error("MACs of a segment that is not ours")
	}
	if diff := cmp.Diff([]netip.Addr{vtepB}, r.VTEPs(100), addresses); diff != "" {
		t.Errorf("VTEPs (-want +got):\n%s", diff)
	}
	var routes []string
	for _, route := range r.Routes() {
		routes = append(routes, fmt.Sprintf("%d %s %s %s %d local=%v used=%v", route.VNI, route.Notation, route.RD, route.VTEP, route.Sequence, route.Local, route.Used))
	}
	if diff := cmp.Diff([]string{
		"100 [2]:[0]:[48]:[02:00:00:00:00:01] 10.0.200.1:100 10.0.200.1 0 local=true used=true",
		"100 [2]:[0]:[48]:[02:00:00:00:00:01]:[32]:[172.16.0.11] 10.0.200.1:100 10.0.200.1 0 local=true used=true",
		"100 [2]:[0]:[48]:[02:00:00:00:00:02]:[32]:[172.16.0.12] 10.0.200.2:100 10.0.200.2 2 local=false used=true",
		"100 [3]:[0]:[32]:[10.0.200.1] 10.0.200.1:100 10.0.200.1 0 local=true used=true",
		"100 [3]:[0]:[32]:[10.0.200.2] 10.0.200.2:100 10.0.200.2 0 local=false used=true",
		"200 [2]:[0]:[48]:[02:00:00:00:00:02] 10.0.200.2:100 10.0.200.2 2 local=false used=false",
	}, routes); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}
