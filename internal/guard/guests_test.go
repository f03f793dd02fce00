package guard

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"frond/internal/dataplane"
)

var (
	mac1, mac2 = dataplane.MAC{2, 0, 0, 0, 0, 1}, dataplane.MAC{2, 0, 0, 0, 0, 2}
	ip1, ip2   = netip.MustParseAddr("172.16.0.11"), netip.MustParseAddr("172.16.0.12")
	gateway    = netip.MustParseAddr("172.16.0.1")
	foreign    = netip.MustParseAddr("192.0.2.1")
	loopback   = netip.MustParseAddr("10.0.0.7")
)

func blueGuests() *Guests {
	return &Guests{
		segments: []guestSegment{{name: "blue", prefixes: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/24")}, gateways: []netip.Addr{gateway}}},
		fabric:   []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")},
		local:    netip.MustParseAddr("10.0.0.1"),
		vteps:    []netip.Addr{netip.MustParseAddr("10.0.0.2")},
	}
}

func TestRules(t *testing.T) {
	segment := dataplane.Segment{Name: "blue", VNI: 100, Bridge: "br-blue", VXLAN: "vx-blue"}
	segment.Gateway.LinkLocal = netip.MustParsePrefix("fe80::1/64")
	links := map[string]dataplane.Link{
		"br-blue": {Index: 9}, "vg2": {Index: 2, Master: "br-blue"}, "vg1": {Index: 1, Master: "br-blue"}, "vx-blue": {Index: 8, Master: "br-blue"},
		"vg3": {Index: 3, Master: "docker0"}, "eth0": {Index: 4},
	}
	for name, c := range map[string]struct {
		station Station
		holders []dataplane.GuestAddress
		places  []dataplane.GuestPlace
	}{
		"a guest here": {
			Station{MAC: mac1, IPs: []netip.Addr{ip1}, Port: "vg1", Settled: true},
			[]dataplane.GuestAddress{{MAC: mac1, IP: ip1}}, []dataplane.GuestPlace{{Port: "vg1", MAC: mac1}},
		},
		"one that has only just come": {
			Station{MAC: mac1, IPs: []netip.Addr{ip1}, Port: "vg1"},
			[]dataplane.GuestAddress{{MAC: mac1, IP: ip1}}, nil,
		},
		"one elsewhere":      {Station{MAC: mac1, IPs: []netip.Addr{ip1}}, []dataplane.GuestAddress{{MAC: mac1, IP: ip1}}, nil},
		"one that is silent": {Station{MAC: mac1, IPs: []netip.Addr{ip1}, Port: "vg1", Settled: true, Silent: true}, nil, nil},
		"one whose place is known, and that is silent": {
			Station{MAC: mac1, IPs: []netip.Addr{ip1, ip2}, Port: "vg1", Silent: true, Held: true, Given: []netip.Addr{ip2, gateway, foreign}},
			[]dataplane.GuestAddress{{MAC: mac1, IP: ip2}}, []dataplane.GuestPlace{{Port: "vg1", MAC: mac1}},
		},
		"an address outside":           {Station{MAC: mac1, IPs: []netip.Addr{foreign}}, nil, nil},
		"the gateway's address":        {Station{MAC: mac1, IPs: []netip.Addr{gateway}}, nil, nil},
		"two addresses, one elsewhere": {Station{MAC: mac1, IPs: []netip.Addr{ip2, foreign}}, []dataplane.GuestAddress{{MAC: mac1, IP: ip2}}, nil},
	} {
		got, _ := blueGuests().Rules(Here{
			Segments: []dataplane.Segment{segment}, Links: links, Ports: []string{"up2", "up1"},
			Stations: map[string][]Station{"blue": {c.station}, "red": {{MAC: mac2, IPs: []netip.Addr{ip1}, Port: "vg9", Settled: true}}},
		})
		want := dataplane.Guard{
			Bridges:    []dataplane.GuardedDevice{{Name: "br-blue", Index: 9}},
			GuestPorts: []dataplane.GuardedDevice{{Name: "vg1", Index: 1}, {Name: "vg2", Index: 2}}, Ports: []string{"up1", "up2"},
			Fabric: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")},
			Local:  netip.MustParseAddr("10.0.0.1"), VTEPs: []netip.Addr{netip.MustParseAddr("10.0.0.2")},
			Gateways: []netip.Addr{gateway, netip.MustParseAddr("fe80::1")},
			Holders:  c.holders, Places: c.places,
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n%+v, want\n%+v", name, got, want)
		}
	}
}

func TestRulesAreSorted(t *testing.T) {
	stations := []Station{
		{MAC: mac2, IPs: []netip.Addr{ip2, ip1}, Port: "vg2", Settled: true},
		{MAC: mac1, IPs: []netip.Addr{ip1}, Port: "vg1", Settled: true},
	}
	rules := func() dataplane.Guard {
		rules, _ := blueGuests().Rules(Here{Stations: map[string][]Station{"blue": stations}})
		return rules
	}
	first := rules()
	slices.Reverse(stations)
	if second := rules(); !first.Equal(second) {
		t.Errorf("the order of stations matters:\n%+v\n%+v", first, second)
	}
	want := []dataplane.GuestAddress{{MAC: mac1, IP: ip1}, {MAC: mac2, IP: ip1}, {MAC: mac2, IP: ip2}}
	if !slices.Equal(first.Holders, want) {
		t.Errorf("holders %v, want %v", first.Holders, want)
	}
}

// What there is no room for is counted, and is always the same.
func TestRulesOfTooManyGuests(t *testing.T) {
	g := blueGuests()
	g.segments[0].prefixes = []netip.Prefix{netip.MustParsePrefix("172.0.0.0/8")}
	const more = 10
	var stations []Station
	for i := range maxHolders + more {
		a, b, c := byte(i>>16), byte(i>>8), byte(i)
		stations = append(stations, Station{MAC: dataplane.MAC{2, 0, 0, a, b, c}, IPs: []netip.Addr{netip.AddrFrom4([4]byte{172, a + 1, b, c})}, Port: "vg1", Settled: i < maxPlaces+1})
	}
	first, untold := g.Rules(Here{Stations: map[string][]Station{"blue": stations}})
	if len(first.Holders) != maxHolders || len(first.Places) != maxPlaces || untold != more+1 {
		t.Errorf("%d addresses and %d places are told, %d are not", len(first.Holders), len(first.Places), untold)
	}
	slices.Reverse(stations)
	if second, _ := g.Rules(Here{Stations: map[string][]Station{"blue": stations}}); !first.Equal(second) {
		t.Error("the order of stations matters")
	}
	if _, untold := g.Rules(Here{Stations: map[string][]Station{"blue": stations[:maxHolders]}}); untold != 0 {
		t.Errorf("%d are too many although all have room", untold)
	}
}

func TestMayClaim(t *testing.T) {
	claim := func(ip netip.Addr) dataplane.LocalAddress {
		return dataplane.LocalAddress{VNI: 100, MAC: mac1, IP: ip, Port: "vg1"}
	}
	for name, c := range map[string]struct {
		claim  dataplane.LocalAddress
		holder *Station
		want   bool
	}{
		"a free one":                          {claim(ip1), nil, true},
		"its own":                             {claim(ip1), &Station{MAC: mac1, Port: "vg9"}, true},
		"another guest's":                     {claim(ip1), &Station{MAC: mac2, Port: "vg2"}, false},
		"one of a guest elsewhere":            {claim(ip1), &Station{MAC: mac2}, false},
		"one of a guest behind the same port": {claim(ip1), &Station{MAC: mac2, Port: "vg1"}, true},
		"one of a silent guest":               {claim(ip1), &Station{MAC: mac2, Port: "vg2", Silent: true}, true},
		"one that is outside":                 {claim(foreign), &Station{MAC: mac2, Port: "vg2"}, true},
		"the gateway's":                       {claim(gateway), nil, false},
		"a node's":                            {claim(loopback), nil, false},
	} {
		if got := blueGuests().MayClaim("blue", c.claim, c.holder, nil); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	if !blueGuests().MayClaim("red", claim(gateway), nil, nil) {
		t.Error("a segment that the guard knows nothing of is kept from its addresses")
	}
}
