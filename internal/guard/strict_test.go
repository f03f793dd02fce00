package guard

import (
	"net/netip"
	"slices"
	"testing"

	"frond/internal/dataplane"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const strictDocument = `
fabric: apollo
underlay: {loopbacks: [10.0.0.0/16]}
nodes: {leaf1: {loopback: 10.0.0.1}}
segments:
  blue:
    vni: 100
    nodes: [leaf1]
    prefix: 172.16.0.0/24
    prefix6: "fd00:172::/64"
    gateway: {address: 172.16.0.1, address6: "fd00:172::1"}
    dhcp:
      range: 172.16.0.11-172.16.0.99
      reservations:
        web: {mac: "02:00:00:00:00:01", address: 172.16.0.5}
        db: {client_id: "ff:01", address: 172.16.0.6}
    dhcp6:
      range: "fd00:172::1:0-fd00:172::1:ff"
      reservations:
        web: {mac: "02:00:00:00:00:01", address: "fd00:172::5"}
  bare: {vni: 200, nodes: [leaf1]}
guard: {strict: true, broadcast: 50}
`

func TestStrict(t *testing.T) {
	f := parse(t, strictDocument)
	g := GuestsFor(f, f.Nodes[0])
	web, guest, liar := dataplane.MAC{2, 0, 0, 0, 0, 1}, dataplane.MAC{2, 0, 0, 0, 0, 2}, dataplane.MAC{2, 0, 0, 0, 0, 3}
	a := netip.MustParseAddr
	own := func(mac dataplane.MAC, ip string) dataplane.GuestAddress {
		return dataplane.GuestAddress{MAC: mac, IP: a(ip)}
	}
	here := Here{
		Stations: map[string][]Station{"blue": {
			{MAC: guest, IPs: []netip.Addr{a("172.16.0.12"), a("fd00:172::2")}, Port: "vg2", Settled: true},
			{MAC: liar, IPs: []netip.Addr{a("172.16.0.77")}, Port: "vg3", Settled: true},
		}},
		Leases: map[string][]dataplane.GuestAddress{"blue": {own(guest, "172.16.0.12"), own(liar, "172.16.0.1")}},
	}
	rules, _ := g.Rules(here)
	if !rules.Strict || rules.Broadcast != 50 {
		t.Errorf("strict %t, broadcast %d", rules.Strict, rules.Broadcast)
	}
	want := []dataplane.GuestAddress{
		own(web, "172.16.0.5"), own(guest, "172.16.0.12"), own(web, "fd00:172::5"), own(guest, "fd00:172::ff:fe00:2"), own(liar, "fd00:172::ff:fe00:3"),
	}
	if diff := cmp.Diff(want, rules.Holders, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("holders differ (-want +got):\n%s", diff)
	}
	leases := here.Leases["blue"]
	for _, c := range []struct {
		who  dataplane.GuestAddress
		want bool
	}{
		{own(guest, "172.16.0.12"), true},
		{own(liar, "172.16.0.12"), false},
		{own(liar, "172.16.0.77"), false},
		{own(web, "172.16.0.5"), true},
		{own(guest, "172.16.0.5"), false},
		{own(web, "fd00:172::5"), true},
		{own(guest, "fd00:172::5"), false},
		{own(guest, "fd00:172::ff:fe00:2"), true},
		{own(guest, "fd00:172::2"), false},
		{own(liar, "172.16.0.1"), false}, // the gateway's, whoever says otherwise
		{own(guest, "192.0.2.1"), false}, // not the segment's, and none that it was given
		{own(guest, "fe80::2"), true},
	} {
		if got := g.MayClaim("blue", dataplane.LocalAddress{MAC: c.who.MAC, IP: c.who.IP}, nil, leases); got != c.want {
			t.Errorf("%s claims %s: %t", c.who.MAC, c.who.IP, got)
		}
	}

	bare := dataplane.LocalAddress{MAC: guest, IP: a("192.0.2.1")}
	if !g.MayClaim("bare", bare, nil, nil) || !g.MayClaim("bare", bare, nil, []dataplane.GuestAddress{}) {
		t.Error("where no addresses are given, guests are not believed to have any")
	}
	here.Segments = []dataplane.Segment{{Name: "blue", Bridge: "br-blue", VXLAN: "vx-blue"}, {Name: "bare", Bridge: "br-bare", VXLAN: "vx-bare"}}
	here.Links = map[string]dataplane.Link{
		"vg3": {Master: "br-blue"}, "vg2": {Master: "br-blue"}, "vx-blue": {Master: "br-blue"}, "vg9": {Master: "br-bare"}, "vx-bare": {Master: "br-bare"},
	}
	rules, _ = g.Rules(here)
	if !slices.Equal(rules.GuestPorts, []dataplane.GuardedDevice{{Name: "vg2"}, {Name: "vg3"}, {Name: "vg9"}}) || !slices.Equal(rules.BoundPorts, []string{"vg2", "vg3"}) {
		t.Errorf("of the guests' ports %v, %v are bound to what was given", rules.GuestPorts, rules.BoundPorts)
	}

	here.Leases = nil // nothing is known of them yet
	rules, _ = g.Rules(here)
	if rules.Strict || len(rules.BoundPorts) > 0 || len(rules.Holders) != 3 {
		t.Errorf("while nothing is known: strict %t, %v", rules.Strict, rules.Holders)
	}
}
