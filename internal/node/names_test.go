package node

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/dhcp"
	"frond/internal/dns"
	"frond/internal/evpn"
	"frond/internal/guest"
)

// fakeNameServer notes what it was told, and reports what a test says.
type fakeNameServer struct {
	desired  dns.Desired
	learnt   []dns.Guest
	sets     int
	problems []dns.Problem
}

func (f *fakeNameServer) Learn(guests []dns.Guest) { f.learnt = append(f.learnt, guests...) }

func (f *fakeNameServer) Report() []dns.Problem { return f.problems }

func (f *fakeNameServer) Set(d dns.Desired) {
	f.desired = d
	f.sets++
}

const guestsDocument = testDocument + `segments:
  blue:
    vni: 100
    nodes: [leaf1, leaf2]
    prefix: 172.16.0.0/24
    prefix6: "fd00:1::/64"
    gateway: {address: 172.16.0.1, address6: "fd00:1::1"}
    dns: [9.9.9.9, "2620:fe::fe"]
  red:
    vni: 200
    nodes: [leaf1, leaf2]
    prefix6: "fd00:2::/64"
    gateway: {address6: "fd00:2::1", mode: elected}
    dns: [9.9.9.9, "2620:fe::fe"]
    dns_names: off
  quiet: {vni: 300, nodes: [leaf1], prefix6: "fd00:3::/64", gateway: {address6: "fd00:3::1"}, ra: off}
  only4: {vni: 400, nodes: [leaf1], prefix: 172.17.0.0/24, gateway: {address: 172.17.0.1}}
`

func TestNamesFollowDocumentAndBridges(t *testing.T) {
	r := began(t, link("eth0", 2))
	r.plan = parse(t, guestsDocument, "leaf1").plan
	r.setLinks(link("eth0", 2), dataplane.Link{Name: "br-blue", Index: 10})
	blue := []netip.Addr{netip.MustParseAddr("172.16.0.1"), netip.MustParseAddr("fd00:1::1")}
	prefixes := []netip.Prefix{netip.MustParsePrefix("172.16.0.0/24"), netip.MustParsePrefix("fd00:1::/64")}
	want := dns.Desired{
		Fabric:   "apollo",
		Prefixes: append(prefixes[:2:2], netip.MustParsePrefix("fd00:3::/64"), netip.MustParsePrefix("172.17.0.0/24")),
		Segments: []dns.Segment{{
			Name: "blue", Bridge: "br-blue", Index: 10, Addresses: blue, Prefixes: prefixes,
			Forwarders: []netip.Addr{netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("2620:fe::fe")},
		}},
		Names: []dns.Name{
			{Name: "gateway", Segment: "blue", Addresses: blue},
			{Name: "gateway", Segment: "quiet", Addresses: []netip.Addr{netip.MustParseAddr("fd00:3::1")}},
			{Name: "gateway", Segment: "only4", Addresses: []netip.Addr{netip.MustParseAddr("172.17.0.1")}},
		},
	}
	if diff := cmp.Diff(want, r.dns.desired, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Error(diff)
	}
	sets := r.dns.sets
	r.step()
	if r.dns.sets != sets {
		t.Error("told again though nothing has changed")
	}
	r.setLinks(link("eth0", 2), dataplane.Link{Name: "br-blue", Index: 30})
	if got := r.dns.desired.Segments; len(got) != 1 || got[0].Index != 30 {
		t.Errorf("the bridge was made anew, but names are answered on %+v", got)
	}
}

func TestGuestsHaveNames(t *testing.T) {
	r := began(t)
	r.plan = parse(t, strings.ReplaceAll(leasingDocument, "web1: {", "gateway: {"), "leaf1").plan
	r.step()
	want := []dns.Name{
		{Name: "gateway", Segment: "blue", Addresses: []netip.Addr{netip.MustParseAddr("172.16.0.1")}},
		{Name: "db1", Segment: "blue", Addresses: []netip.Addr{netip.MustParseAddr("172.16.0.9")}},
	}
	if diff := cmp.Diff(want, r.dns.desired.Names, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error("reserved:", diff)
	}
	client := dhcp.Named{Address: netip.MustParseAddr("172.16.0.11"), Segment: "blue", Name: "app", MAC: dataplane.MAC{2, 0, 0, 0, 0, 1}, Since: time.Unix(1, 0)}
	r.named([]dhcp.Named{client})
	learnt := []dns.Guest{{Address: client.Address, Segment: "blue", Name: "app", Owner: "02:00:00:00:00:01", Since: client.Since}}
	if diff := cmp.Diff(learnt, r.dns.learnt, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error("leased:", diff)
	}
}

func TestConditionsOfNames(t *testing.T) {
	r := began(t, link("eth0", 2))
	r.hear("eth0", "fe80::1")
	r.session("fe80::1%eth0", "established")
	r.dns.problems = []dns.Problem{
		{Segment: "blue", Text: "cannot be heard", Since: time.Unix(1, 0)},
		{Segment: "red", Text: "no answers", Since: time.Unix(1, 0), Dead: true},
	}
	r.wantConditions("with problems", "failure dns-not-heard blue", "failure dns-forwarders-dead red")
	r.dns.problems = nil
	r.wantConditions("without")
}

// TestInstancesAreAnswered has instances of the hypervisor get addresses here
// and elsewhere, and end.
func TestInstancesAreAnswered(t *testing.T) {
	r := hypervisorRig(t)
	c2, ip2 := dataplane.MAC{0, 0x16, 0x3e, 0, 0, 2}, netip.MustParseAddr("172.16.0.12")
	of := func(project, name string, mac dataplane.MAC) guest.Instance {
		return guest.Instance{Key: guest.Key{Project: project, Name: name}, NICs: []guest.NIC{{Device: "eth0", MAC: mac, Parent: "br-blue"}}}
	}
	want := func(when string, all ...dns.Instance) {
		t.Helper()
		if diff := cmp.Diff(all, r.dns.desired.Instances, cmpopts.EquateComparable(netip.Addr{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: %s", when, diff)
		}
	}
	r.hypervisorChanged(guest.State{
		Contact: guest.Connected, Instances: []guest.Instance{of("default", "c1", c1MAC), of("a", "c2", dataplane.MAC{2, 9})},
		Elsewhere: []guest.Instance{of("default", "c2", c2), {Key: guest.Key{Name: "red"}, NICs: []guest.NIC{{MAC: dataplane.MAC{2, 8}, Parent: "br-red"}}}},
	})
	r.step()
	idle := []dns.Instance{{Name: "c1", Segment: "blue", Owner: c1MAC.String()}, {Name: "c2", Segment: "blue", Owner: c2.String()}}
	want("without addresses", idle...)

	r.overlayChanged(dataplane.LocalMACs{{VNI: 100, MAC: c1MAC, Port: "veth1"}})
	r.overlayChanged(dataplane.LocalAddresses{{VNI: 100, MAC: c1MAC, IP: c1IP, Port: "veth1"}, {VNI: 100, MAC: c1MAC, IP: netip.MustParseAddr("192.0.2.1"), Port: "veth1"}})
	at := netip.MustParseAddr("10.0.200.2")
	route := evpn.MACIP{Attributes: evpn.Attributes{RD: evpn.NewRD(at, 100), VNI: 100, ASN: 2, VTEP: at}, MAC: c2, IP: ip2}.Encode()
	r.paths("10.0.200.2/32", "fe80::1%eth0")
	r.heard(bgp.PathsChanged{EVPN: []bgp.EVPNPath{{Key: "c2", Route: route}}})
	r.step()
	want("with addresses", dns.Instance{Name: "c1", Segment: "blue", Owner: c1MAC.String(), Addresses: []netip.Addr{c1IP}},
		dns.Instance{Name: "c2", Segment: "blue", Owner: c2.String(), Addresses: []netip.Addr{ip2}})

	sets := r.dns.sets
	r.overlayChanged(dataplane.LocalMACs{{VNI: 100, MAC: dataplane.MAC{2, 7}, Port: "tap0"}})
	r.overlayChanged(dataplane.LocalAddresses{{VNI: 100, MAC: dataplane.MAC{2, 7}, IP: netip.MustParseAddr("172.16.0.77"), Port: "tap0"}})
	r.step()
	if r.dns.sets != sets {
		t.Error("told again for a guest that is no instance")
	}
	r.overlayChanged(dataplane.LocalPortsGone{{VNI: 100, Port: "veth1"}})
	r.heard(bgp.PathsChanged{EVPN: []bgp.EVPNPath{{Key: "c2", Gone: true}}})
	r.step()
	want("ended", idle...)
	r.say(guest.Connected)
	want("deleted")
}
