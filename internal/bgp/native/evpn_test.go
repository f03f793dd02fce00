package native

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	seam "frond/internal/bgp"
)

// Routes with equal attributes go into messages together, also when they come
// one after another.
func TestEVPNRoutesShareMessages(t *testing.T) {
	o := newOwner(t)
	n := o.neighbor(1)
	o.up(n, graceful(1))
	o.compose(n) // End-of-RIB
	routes := make([]seam.Route, 100)
	for i := range routes {
		routes[i].EVPN = &seam.EVPNRoute{
			NLRI: fmt.Sprintf("\x03\x04%04d", i), NextHop: netip.MustParseAddr("10.0.0.1"),
			ExtendedCommunities: []uint64{0x0002fde800000064},
		}
	}
	routes[99].EVPN.ExtendedCommunities = []uint64{0x0002fde8000000c8}
	for count := 1; count <= len(routes); count++ {
		o.originate(routes[:count])
	}
	if bodies := split(t, o.compose(n)); len(bodies) != 2 {
		t.Errorf("%d messages for two kinds of routes", len(bodies))
	}
}

// What is originated is exactly the set that was handed over last, whether its
// routes are those of the set before or equal ones, and is told when it changes.
func TestOriginatedEVPNRoutes(t *testing.T) {
	o := newOwner(t)
	n := o.neighbor(1)
	o.up(n, graceful(1))
	o.compose(n) // End-of-RIB
	route := func(name string, target uint64) seam.Route {
		return seam.Route{EVPN: &seam.EVPNRoute{
			NLRI: "\x03\x01" + name, NextHop: netip.MustParseAddr("10.0.0.1"), ExtendedCommunities: []uint64{target},
		}}
	}
	a, b := route("a", 1), route("b", 1)
	steps := []struct {
		name            string
		routes          []seam.Route
		reach, withdraw []string
	}{
		{"two", []seam.Route{a, b}, []string{"\x03\x01a", "\x03\x01b"}, nil},
		{"the same", []seam.Route{b, a}, nil, nil},
		{"equal ones", []seam.Route{route("a", 1), route("b", 1)}, nil, nil},
		{"the first again", []seam.Route{a, b}, nil, nil},
		{"one more", []seam.Route{a, b, route("d", 1)}, []string{"\x03\x01d"}, nil},
		{"without it", []seam.Route{a, b}, nil, []string{"\x03\x01d"}},
		{"the first once more", []seam.Route{a, b, route("a", 1)}, nil, nil},
		{"and as it was", []seam.Route{a, b}, nil, nil},
		{"other attributes", []seam.Route{route("a", 2), b}, []string{"\x03\x01a"}, nil},
		{"one for another", []seam.Route{b, route("c", 1)}, []string{"\x03\x01c"}, []string{"\x03\x01a"}},
		{"twice", []seam.Route{b, b, route("b", 1)}, nil, []string{"\x03\x01c"}},
		{"none", nil, nil, []string{"\x03\x01b"}},
		{"and back", []seam.Route{a}, []string{"\x03\x01a"}, nil},
	}
	for _, step := range steps {
		o.originate(step.routes)
		var reach, withdraw []string
		for _, body := range split(t, o.compose(n)) {
			u, fault := decodeUpdate(body, everything, &attributeCache{})
			if fault != nil {
				t.Fatal(fault)
			}
			reach, withdraw = append(reach, wires(u.reach.evpn)...), append(withdraw, wires(u.unreach.evpn)...)
		}
		slices.Sort(reach)
		if !slices.Equal(reach, step.reach) || !slices.Equal(withdraw, step.withdraw) {
			t.Errorf("%s: tells %q and takes back %q, want %q and %q", step.name, reach, withdraw, step.reach, step.withdraw)
		}
		if len(o.local.evpn) != len(o.local.sources) {
			t.Errorf("%s: %d routes by %d addresses", step.name, len(o.local.evpn), len(o.local.sources))
		}
	}
	if len(o.pending.routes) > 0 {
		t.Error("its own routes are told to the node itself")
	}
}

// Whatever sets follow each other, the routes of the last one are originated.
func TestOriginatedEVPNRoutesAtRandom(t *testing.T) {
	o := newOwner(t)
	random := rand.New(rand.NewPCG(1, 2))
	route := func() seam.Route {
		return seam.Route{EVPN: &seam.EVPNRoute{
			NLRI: "\x03\x01" + string(rune('a'+random.IntN(6))), NextHop: netip.MustParseAddr("10.0.0.1"), ExtendedCommunities: []uint64{random.Uint64N(2)},
		}}
	}
	var routes []seam.Route
	for step := range 20000 {
		routes = slices.Clone(routes)
		switch at := random.IntN(len(routes) + 1); {
		case len(routes) < 8 && random.IntN(2) == 0:
			routes = slices.Insert(routes, at, route())
		case at < len(routes) && random.IntN(4) == 0:
			routes[at], routes[0] = routes[0], routes[at]
		case at < len(routes):
			routes = slices.Delete(routes, at, at+1)
		}
		o.originate(routes)
		want := map[string]bool{}
		for _, r := range routes {
			want[evpnKey(r.EVPN.NLRI)] = true
		}
		for key := range want {
			if e := o.evpn.entries[key]; e == nil || e.local == nil {
				t.Fatalf("step %d: %q is not originated", step, key)
			}
		}
		for key, e := range o.evpn.entries {
			if e.local != nil && !want[key] {
				t.Fatalf("step %d: %q is originated still", step, key)
			}
		}
	}
}

// wires are routes as they are on the wire.
func wires(routes []evpnRoute) []string {
	all := make([]string, len(routes))
	for i, r := range routes {
		all[i] = r.wire
	}
	return all
}
