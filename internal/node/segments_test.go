package node

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/evpn"
)

// fakeOverlay notes what it was told.
type fakeOverlay struct {
	segments []dataplane.Segment
	updates  []dataplane.OverlayUpdate
	complete bool
}

func (f *fakeOverlay) SetSegments(s []dataplane.Segment) { f.segments = s }
func (f *fakeOverlay) Update(u dataplane.OverlayUpdate)  { f.updates = append(f.updates, u) }
func (f *fakeOverlay) Observe(dataplane.OverlayEvent)    {}
func (f *fakeOverlay) Complete()                         { f.complete = true }
func (f *fakeOverlay) Report() dataplane.OverlayReport   { return dataplane.OverlayReport{} }
func (f *fakeOverlay) Withdraw(context.Context) error    { return nil }

type fakeWatch struct{ segments []dataplane.Segment }

func (f *fakeWatch) SetSegments(s []dataplane.Segment)     { f.segments = s }
func (f *fakeWatch) Events() <-chan dataplane.OverlayEvent { return nil }

const segmentDocument = testDocument + "segments:\n  blue: {vni: 100, nodes: [leaf1, leaf2], prefix: 172.16.0.0/24}\n"

func TestSegmentsFollowDocumentAndPorts(t *testing.T) {
	wide, narrow := link("eth0", 2), link("eth1", 3)
	wide.MTU, narrow.MTU = 9000, 1600
	r := began(t, wide, narrow)
	if len(r.over.segments) != 0 || !r.over.complete {
		t.Fatalf("without a segment: %+v, complete %v", r.over.segments, r.over.complete)
	}
	d := parse(t, segmentDocument, "leaf1")
	r.plan = d.plan
	r.step()
	want := []dataplane.Segment{{
		Name: "blue", Bridge: "br-blue", VXLAN: "vx-blue", VNI: 100, Local: netip.MustParseAddr("10.0.200.1"),
		MTU: 1550, MACLimit: 1000,
	}}
	same := cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})
	if diff := cmp.Diff(want, r.over.segments, same); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, r.watch.segments, same); diff != "" {
		t.Error(diff)
	}
}

// TestStationsTravel has a guest appear here and another one elsewhere.
func TestStationsTravel(t *testing.T) {
	r := began(t, link("eth0", 2))
	r.plan = parse(t, segmentDocument, "leaf1").plan
	r.step()
	here, there := dataplane.MAC{2, 0, 0, 0, 0, 1}, dataplane.MAC{2, 0, 0, 0, 0, 2}
	r.overlayChanged(dataplane.LocalMACs{{VNI: 100, MAC: here, Port: "tap0"}})
	r.step()
	told := 0
	for _, route := range r.bgp.desired.Routes {
		if route.EVPN == nil {
			continue
		}
		decoded, err := evpn.Decode(*route.EVPN)
		if err != nil {
			t.Fatal(err)
		}
		if mac, ok := decoded.(evpn.MACIP); ok && mac.MAC == here {
			told++
		}
	}
	if told != 1 {
		t.Errorf("the guest is told %d times in %+v", told, r.bgp.desired.Routes)
	}

	other := evpn.New(evpn.Config{ASN: 65002, RouterID: netip.MustParseAddr("10.0.200.2"), VTEP: netip.MustParseAddr("10.0.200.2")})
	other.SetSegments(r.over.segments)
	other.Observe(dataplane.LocalMACs{{VNI: 100, MAC: there, Port: "tap0"}})
	routes := other.Originated()
	var learned bgp.PathsChanged
	for _, route := range routes {
		learned.EVPN = append(learned.EVPN, bgp.EVPNPath{Key: route.EVPN.NLRI, Route: *route.EVPN})
	}
	r.heard(learned)
	r.step()
	if macs := r.segments.stations.MACs(100); len(macs) != 1 {
		t.Errorf("a station counts though there is no way to its VTEP: %+v", macs)
	}
	r.hear("eth0", "fe80::1")
	r.session("fe80::1%eth0", bgp.Established)
	r.paths("10.0.200.2/32", "fe80::1%eth0")
	last := r.over.updates[len(r.over.updates)-1]
	if got := last.MACs[dataplane.MACKey{VNI: 100, MAC: there}]; got != netip.MustParseAddr("10.0.200.2") {
		t.Errorf("the other guest is at %v; updates %+v", got, r.over.updates)
	}
}

// A node whose loopback or AS changes tells its stations in its new name, on
// the same devices.
func TestStationsFollowTheNodesName(t *testing.T) {
	r := began(t, link("eth0", 2))
	r.adopt(parse(t, segmentDocument, "leaf1"), nil)
	r.step()
	r.overlayChanged(dataplane.LocalMACs{{VNI: 100, MAC: dataplane.MAC{2, 0, 0, 0, 0, 1}, Port: "tap0"}})
	r.step()
	for _, test := range []struct{ line, loopback string }{
		{"leaf1: {loopback: 10.0.200.9}", "10.0.200.9"},
		{"leaf1: {loopback: 10.0.200.9, asn: 65000}", "10.0.200.9"},
	} {
		d := parse(t, strings.Replace(segmentDocument, "leaf1: {loopback: 10.0.200.1}", test.line, 1), "leaf1")
		r.adopt(d, nil)
		r.step()
		want := netip.MustParseAddr(test.loopback)
		if len(r.over.segments) != 1 || r.over.segments[0].Local != want {
			t.Errorf("%s: devices of %+v", test.line, r.over.segments)
		}
		told := make(map[string]int)
		for _, route := range r.bgp.desired.Routes {
			if route.EVPN == nil {
				continue
			}
			decoded, err := evpn.Decode(*route.EVPN)
			if err != nil {
				t.Fatal(err)
			}
			told[decoded.String()]++
			if route.EVPN.NextHop != want || !strings.Contains(route.EVPN.NLRI, string(want.AsSlice())) ||
				uint16(route.EVPN.ExtendedCommunities[0]>>32) != uint16(d.plan.Node.ASN) {
				t.Errorf("%s: %s is told with %+v", test.line, decoded, route.EVPN)
			}
		}
		if len(told) != 2 || told["[2]:[0]:[48]:[02:00:00:00:00:01]"] != 1 {
			t.Errorf("%s: told is %v", test.line, told)
		}
	}
}

// What a peer tells that cannot be read is counted at that peer, logged once
// of each kind, and named for as long as it stands.
func TestMalformedEVPN(t *testing.T) {
	var log bytes.Buffer
	r := began(t, link("eth0", 2))
	r.log = slog.New(slog.NewTextHandler(&log, nil))
	r.hear("eth0", "fe80::1")
	r.session("fe80::1%eth0", bgp.Established)
	spine := netip.MustParseAddr("fe80::1%eth0")
	bad := func(key string) bgp.EVPNPath {
		return bgp.EVPNPath{Key: key, Peer: spine, Route: bgp.EVPNRoute{NLRI: "\x02\x01-", NextHop: netip.MustParseAddr("10.0.200.2")}}
	}
	r.heard(bgp.PathsChanged{EVPN: []bgp.EVPNPath{bad("a"), bad("b"), bad("a")}})
	r.step()
	if n := r.peerOn("eth0", r.now).MalformedEVPN; n != 3 {
		t.Errorf("%d counted", n)
	}
	if n := strings.Count(log.String(), "malformed EVPN route"); n != 1 || !strings.Contains(log.String(), "peer=fe80::1%eth0 type=2") {
		t.Errorf("logged %d times: %s", n, &log)
	}
	r.wantConditions("with malformed routes", "warning segment-trouble evpn")
	r.heard(bgp.PathsChanged{EVPN: []bgp.EVPNPath{{Key: "a", Gone: true}, {Key: "b", Gone: true}}})
	r.wantConditions("without")
	r.gone("fe80::1%eth0")
	if n := r.segments.stations.MalformedFrom(spine); n != 0 {
		t.Errorf("a session that is gone has brought %d", n)
	}
}
