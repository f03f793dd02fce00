package node

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"frond/internal/dataplane"
	"frond/internal/dhcp"
	"frond/internal/dns"
	"frond/internal/status"
	"frond/internal/store"
)

const leasingDocument = testDocument + `segments:
  blue:
    vni: 7
    nodes: [leaf1]
    prefix: 172.16.0.0/24
    gateway: {address: 172.16.0.1, mode: elected}
    dhcp:
      range: 172.16.0.11-172.16.0.99
      lease: 20m
      port_limit: 7
      routes: [{to: 10.1.0.0/16, via: 172.16.0.2}]
      reservations: {web1: {mac: "02:00:00:00:00:01", address: 172.16.0.10}, db1: {client_id: "ff:01", address: 172.16.0.9}}
  bare: {vni: 8, nodes: [leaf1], prefix: 172.17.0.0/24, mtu: 1400, dhcp: {range: 172.17.0.11-172.17.0.99}}
  far: {vni: 9, nodes: [leaf2], prefix: 172.18.0.0/24, dhcp: {range: 172.18.0.11-172.18.0.99}}
  none: {vni: 10, nodes: [leaf1]}
`

func TestGuestsAreAnsweredAsTheDocumentSays(t *testing.T) {
	r := began(t)
	if len(r.dhcp.segments) != 0 || r.filter.segments != nil {
		t.Errorf("without DHCP, asked for is %+v, %+v", r.dhcp.segments, r.filter.segments)
	}
	r.adopt(parse(t, leasingDocument, "leaf1"), nil)
	r.step()
	a, p := netip.MustParseAddr, netip.MustParsePrefix
	want := []dhcp.Segment{
		{
			Name: "blue", VNI: 7, Prefix: p("172.16.0.0/24"), Server: a("172.16.0.1"), MAC: dataplane.MAC{2, 0x68, 0, 0, 0, 7},
			Ranges: []dhcp.Range{{First: a("172.16.0.11"), Last: a("172.16.0.99")}},
			Reservations: []dhcp.Reservation{
				{Client: "\x01\x02\x00\x00\x00\x00\x01", Address: a("172.16.0.10"), Hostname: "web1"},
				{Client: "\xff\x01", Address: a("172.16.0.9"), Hostname: "db1"},
			},
			Lease: 20 * time.Minute, Grace: time.Hour, PortLimit: 7, Router: a("172.16.0.1"),
			DNS: []netip.Addr{netip.MustParseAddr("172.16.0.1")}, Search: []string{"blue.apollo"}, MTU: 1450,
			Routes: []dhcp.Route{{Prefix: p("10.1.0.0/16"), Via: a("172.16.0.2")}},
		},
		{
			Name: "bare", VNI: 8, Prefix: p("172.17.0.0/24"), Server: a("10.0.200.1"), MAC: dataplane.MAC{2, 0x68, 0, 0, 0, 8},
			Ranges: []dhcp.Range{{First: a("172.17.0.11"), Last: a("172.17.0.99")}}, Lease: 10 * time.Minute, Grace: time.Hour, PortLimit: 44, MTU: 1400,
		},
	}
	same := cmp.Comparer(func(x, y netip.Addr) bool { return x == y })
	if diff := cmp.Diff(want, r.dhcp.segments, same, cmp.Comparer(func(x, y netip.Prefix) bool { return x == y })); diff != "" {
		t.Error(diff)
	}
	var filtered []string
	for _, s := range r.filter.segments {
		filtered = append(filtered, s.Name)
	}
	if diff := cmp.Diff([]string{"blue", "bare"}, filtered); diff != "" {
		t.Error("requests are kept here:", diff)
	}
	r.adopt(parse(t, testDocument, "leaf1"), nil)
	r.step()
	if len(r.dhcp.segments) != 0 || len(r.filter.segments) != 0 {
		t.Errorf("without DHCP again, asked for is %+v, %+v", r.dhcp.segments, r.filter.segments)
	}
}

func TestConditionsOfDHCP(t *testing.T) {
	r := began(t)
	r.dhcp.report.Conditions = []status.Condition{
		{Name: dhcp.ConditionPool, Subject: "blue", Severity: status.Warning, Text: "90 of 100"},
		{Name: dhcp.ConditionAway, Subject: "store", Severity: status.Failure, Text: "away"},
	}
	r.filter.problem = "no nf_tables"
	names := func() (list []string) {
		for _, c := range r.snapshot(r.now).Conditions {
			if c.Name == dhcp.ConditionPool || c.Name == dhcp.ConditionAway || c.Name == requestsCross {
				list = append(list, c.Name)
			}
		}
		return list
	}
	if got := names(); got != nil {
		t.Errorf("without DHCP: %q", got)
	}
	r.adopt(parse(t, leasingDocument, "leaf1"), nil)
	r.step()
	if got := names(); len(got) != 3 {
		t.Errorf("with DHCP: %q", got)
	}
	r.store.report = store.ServiceReport{Since: r.now}
	if got := names(); len(got) != 2 {
		t.Errorf("with a store that has just begun: %q", got)
	}
	r.filter.problem = ""
	if got := names(); slices.Contains(got, requestsCross) {
		t.Errorf("when the kernel keeps requests here: %q", got)
	}
}

func TestALeaseIsKnownAtOnce(t *testing.T) {
	r := began(t, link("eth0", 2))
	r.adopt(parse(t, leasingDocument, "leaf1"), nil)
	r.step()
	one, two, at := dataplane.MAC{2, 0, 0, 0, 0, 1}, dataplane.MAC{2, 0, 0, 0, 0, 2}, netip.MustParseAddr("172.16.0.11")
	r.overlayChanged(dataplane.LocalMACs{{VNI: 7, MAC: one, Port: "tap1"}, {VNI: 7, MAC: two, Port: "tap2"}})
	holds := func(when string, want dataplane.MAC) {
		t.Helper()
		r.step()
		if holder, _ := r.segments.stations.Holder(7, at); holder.MAC != want {
			t.Errorf("%s: the fabric is told that %s is at %s, want %s", when, at, holder.MAC, want)
		}
		if want := (dataplane.GuestAddress{MAC: want, IP: at}); !slices.Contains(r.guard.rules.Holders, want) {
			t.Errorf("%s: the guard knows %v, want %v", when, r.guard.rules.Holders, want)
		}
	}
	r.leased([]dataplane.LocalAddress{{VNI: 7, MAC: one, IP: at, Port: "tap1"}})
	holds("leased", one)
	r.plan.Guard.Guests = nil // with the guard off, no other is believed either
	r.leased([]dataplane.LocalAddress{{VNI: 7, MAC: two, IP: at, Port: "tap2"}})
	r.plan = parse(t, leasingDocument, "leaf1").plan
	holds("leased to another while the first is there", one)
	r.overlayChanged(dataplane.LocalMACs{{VNI: 7, MAC: one, Port: "tap1", Aged: true}})
	r.leased([]dataplane.LocalAddress{{VNI: 7, MAC: two, IP: at, Port: "tap2"}})
	holds("leased to another when the first is silent", two)
}

// TestGuestsAreAnsweredByDHCPv6 has guests be answered where routers are
// advertised, and be given addresses where the document asks for it.
func TestGuestsAreAnsweredByDHCPv6(t *testing.T) {
	r := began(t)
	r.adopt(parse(t, testDocument+`segments:
  given:
    vni: 7
    nodes: [leaf1]
    prefix6: "fd00:7::/64"
    gateway: {address6: "fd00:7::1"}
    ntp: [192.0.2.123, "2001:db8::123"]
    dhcp6:
      range: "fd00:7::1:0-fd00:7::1:ff"
      lease: 20m
      reservations: {web1: {mac: "02:00:00:00:00:01", address: "fd00:7::10"}, db1: {duid: "00:03:00:01:02:00:00:00:00:02", address: "fd00:7::11"}}
  made: {vni: 8, nodes: [leaf1], prefix: 172.16.8.0/24, prefix6: "fd00:8::/64", gateway: {address: 172.16.8.1, address6: "fd00:8::1"}}
  silent: {vni: 9, nodes: [leaf1], prefix6: "fd00:9::/64", gateway: {address6: "fd00:9::1"}, ra: off}
`, "leaf1"), nil)
	r.step()
	a, p := netip.MustParseAddr, netip.MustParsePrefix
	want := []dhcp.Segment{
		{
			Name: "given", VNI: 7, Prefix: p("fd00:7::/64"), Server: a("fe80::68:ff:fe00:7"), Router: a("fd00:7::1"), MAC: dataplane.MAC{2, 0x68, 0, 0, 0, 7},
			Ranges: []dhcp.Range{{First: a("fd00:7::1:0"), Last: a("fd00:7::1:ff")}},
			Reservations: []dhcp.Reservation{
				{Client: "\x01\x02\x00\x00\x00\x00\x01", Address: a("fd00:7::10"), Hostname: "web1"},
				{Client: "\x00\x03\x00\x01\x02\x00\x00\x00\x00\x02", Address: a("fd00:7::11"), Hostname: "db1"},
			},
			Lease: 20 * time.Minute, Grace: time.Hour, MTU: 1450,
			DNS: []netip.Addr{a("fd00:7::1")}, Search: []string{"given.apollo"}, NTP: []netip.Addr{a("2001:db8::123")},
		},
		{
			Name: "made", VNI: 8, Prefix: p("fd00:8::/64"), Server: a("fe80::68:ff:fe00:8"), Router: a("fd00:8::1"), MAC: dataplane.MAC{2, 0x68, 0, 0, 0, 8},
			MTU: 1450, DNS: []netip.Addr{a("fd00:8::1")}, Search: []string{"made.apollo"},
		},
	}
	if diff := cmp.Diff(want, r.dhcp.segments, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty()); diff != "" {
		t.Error(diff)
	}
	if got := r.filter.segments; len(got) != 2 || got[0].Name != "given" || got[1].Name != "made" || !got[0].DHCP6 || got[0].DHCP {
		t.Errorf("kept here are the requests of %+v", got)
	}
	managed := map[uint32]bool{}
	for _, s := range r.routers.segments {
		managed[s.VNI] = s.Managed
	}
	if diff := cmp.Diff(map[uint32]bool{7: true, 8: false}, managed); diff != "" {
		t.Error("guests are told to ask for addresses:", diff)
	}
	if names := r.dns.desired.Names; !slices.ContainsFunc(names, func(n dns.Name) bool {
		return n.Name == "web1" && n.Segment == "given" && slices.Equal(n.Addresses, []netip.Addr{a("fd00:7::10")})
	}) {
		t.Errorf("names are %+v", names)
	}
}
