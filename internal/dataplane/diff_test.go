package dataplane

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	legA = NextHop{Port: "a", Via: netip.MustParseAddr("fe80::a")}
	legB = NextHop{Port: "b", Via: netip.MustParseAddr("fe80::b")}
	legC = NextHop{Port: "c", Via: netip.MustParseAddr("fe80::c")}
	self = netip.MustParseAddr("10.0.0.1")
)

const (
	idA = FirstID + 1 + iota
	idB
	idC
	idG
	idH
)

func prefix(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(n >> 8), byte(n)}), 32)
}

func route(n int, legs ...NextHop) RouteUpdate {
	return RouteUpdate{Prefix: prefix(n), NextHops: legs, Source: self}
}

// state builds what the kernel holds: three links, the legs and groups by
// id, and routes 1, 2, 3, … that refer to routes[0], routes[1], ….
func state(legs map[uint32]NextHop, groups map[uint32][]uint32, routes ...uint32) *State {
	s := newState()
	for _, port := range []string{"a", "b", "c"} {
		s.Links[port] = Link{Name: port, Up: true, Carrier: true}
	}
	for id, leg := range legs {
		s.NextHops[id] = leg
	}
	for id, members := range groups {
		s.Groups[id] = members
	}
	for i, id := range routes {
		s.Routes[prefix(i+1)] = InstalledRoute{NextHopID: id, Source: self}
	}
	return s
}

func TestDiffOfRoutes(t *testing.T) {
	legs := map[uint32]NextHop{idA: legA, idB: legB, idC: legC}
	ab := map[uint32][]uint32{idG: {idA, idB}}
	tests := []struct {
		name    string
		now     *State
		want    []RouteUpdate
		failed  []NextHop
		noPrune bool
		adds    []Op
		deletes []Op
		kill    []Op
		right   int
	}{
		{
			name: "nothing is there, one next hop: the route refers to the leg",
			now:  state(nil, nil),
			want: []RouteUpdate{route(1, legA)},
			adds: []Op{
				SetNextHop{ID: idH + 1, NextHop: legA},
				SetRoute{Prefix: prefix(1), NextHopID: idH + 1, Source: self},
			},
		}, {
			name: "nothing is there, two next hops: the route refers to a group",
			now:  state(nil, nil),
			want: []RouteUpdate{route(1, legB, legA, legB)},
			adds: []Op{
				SetNextHop{ID: idH + 1, NextHop: legA},
				SetNextHop{ID: idH + 2, NextHop: legB},
				SetGroup{ID: idH + 3, Members: []uint32{idH + 1, idH + 2}},
				SetRoute{Prefix: prefix(1), NextHopID: idH + 3, Source: self},
			},
		}, {
			name:  "all is as it should be",
			now:   state(map[uint32]NextHop{idA: legA, idB: legB}, ab, idG, idA),
			want:  []RouteUpdate{route(1, legA, legB), route(2, legA)},
			right: 2,
		}, {
			name: "a right group without routes is used",
			now:  state(map[uint32]NextHop{idA: legA, idB: legB}, ab),
			want: []RouteUpdate{route(1, legA, legB)},
			adds: []Op{SetRoute{Prefix: prefix(1), NextHopID: idG, Source: self}},
		}, {
			name:  "every route of a group wants another set: its members are replaced",
			now:   state(legs, ab, idG, idG),
			want:  []RouteUpdate{route(1, legA, legC), route(2, legA, legC)},
			adds:  []Op{SetGroup{ID: idG, Members: []uint32{idA, idC}}},
			right: 2, deletes: []Op{DeleteNextHop{ID: idB}},
		}, {
			name:  "every route of a group wants one leg of it: members too",
			now:   state(map[uint32]NextHop{idA: legA, idB: legB}, ab, idG, idG),
			want:  []RouteUpdate{route(1, legA), route(2, legA)},
			adds:  []Op{SetGroup{ID: idG, Members: []uint32{idA}}},
			right: 2, deletes: []Op{DeleteNextHop{ID: idB}},
		}, {
			name: "few routes leave a group that stays as it is",
			now:  state(legs, ab, idG, idG, idG),
			want: []RouteUpdate{route(1, legA, legB), route(2, legA, legB), route(3, legC)},
			adds: []Op{SetRoute{Prefix: prefix(3), NextHopID: idC, Source: self}}, right: 2,
		}, {
			name: "most routes want another set: the few leave before the group changes",
			now:  state(legs, ab, idG, idG, idG),
			want: []RouteUpdate{route(1, legA, legC), route(2, legA, legC), route(3, legA, legB)},
			adds: []Op{
				SetGroup{ID: idH + 1, Members: []uint32{idA, idB}},
				SetRoute{Prefix: prefix(3), NextHopID: idH + 1, Source: self},
				SetGroup{ID: idG, Members: []uint32{idA, idC}},
			},
			right: 2,
		}, {
			name: "a group that the kernel has shrunk is made whole",
			now:  state(map[uint32]NextHop{idA: legA}, map[uint32][]uint32{idG: {idA}}, idG),
			want: []RouteUpdate{route(1, legA, legB)},
			adds: []Op{
				SetNextHop{ID: idH + 1, NextHop: legB},
				SetGroup{ID: idG, Members: []uint32{idA, idH + 1}},
			},
			right: 1,
		}, {
			name: "a failed leg goes first, and alone",
			now:  state(legs, ab, idG), failed: []NextHop{legB},
			want: []RouteUpdate{route(1, legA, legB), route(2, legC)},
			kill: []Op{DeleteNextHop{ID: idB}},
		}, {
			name: "a failed leg is left out of the group, and the routes are right",
			now:  state(map[uint32]NextHop{idA: legA}, map[uint32][]uint32{idG: {idA}}, idG), failed: []NextHop{legB},
			want: []RouteUpdate{route(1, legA, legB)}, right: 1,
		}, {
			name: "some routes already want only what is left of a shrunk group",
			now:  state(map[uint32]NextHop{idA: legA}, map[uint32][]uint32{idG: {idA}}, idG, idG), failed: []NextHop{legB},
			want: []RouteUpdate{route(1, legA, legB), route(2, legA)}, right: 2,
		}, {
			name: "and leave it when it is made whole",
			now:  state(map[uint32]NextHop{idA: legA, idB: legB}, map[uint32][]uint32{idG: {idA}}, idG, idG, idG),
			want: []RouteUpdate{route(1, legA, legB), route(2, legA), route(3, legA, legB)},
			adds: []Op{
				SetRoute{Prefix: prefix(2), NextHopID: idA, Source: self},
				SetGroup{ID: idG, Members: []uint32{idA, idB}},
			},
			right: 2,
		}, {
			name: "no next hop works: the route stays as it is",
			now:  state(map[uint32]NextHop{idA: legA}, nil, idA), failed: []NextHop{legB},
			want: []RouteUpdate{route(1, legB)},
		}, {
			name: "not desired",
			now:  state(map[uint32]NextHop{idA: legA, idB: legB}, ab, idG),
			deletes: []Op{
				DeleteRoute{Prefix: prefix(1)},
				DeleteNextHop{ID: idG}, DeleteNextHop{ID: idA}, DeleteNextHop{ID: idB},
			},
		}, {
			name: "not desired yet",
			now:  state(map[uint32]NextHop{idA: legA, idB: legB}, ab, idG), noPrune: true,
		}, {
			name: "what nobody has asked for yet keeps its group as it is",
			now:  state(legs, ab, idG, idG, idG), noPrune: true,
			want: []RouteUpdate{route(1, legA, legC), route(2, legA, legC)},
			adds: []Op{
				SetGroup{ID: idH + 1, Members: []uint32{idA, idC}},
				SetRoute{Prefix: prefix(1), NextHopID: idH + 1, Source: self},
				SetRoute{Prefix: prefix(2), NextHopID: idH + 1, Source: self},
			},
		}, {
			name: "another source",
			now: func() *State {
				s := state(map[uint32]NextHop{idA: legA}, nil)
				s.Routes[prefix(1)] = InstalledRoute{NextHopID: idA}
				return s
			}(),
			want: []RouteUpdate{route(1, legA)},
			adds: []Op{SetRoute{Prefix: prefix(1), NextHopID: idA, Source: self}},
		}, {
			name: "a port without carrier is no way",
			now: func() *State {
				s := state(map[uint32]NextHop{idA: legA}, nil)
				s.Links["b"] = Link{Name: "b", Up: true}
				return s
			}(),
			want: []RouteUpdate{route(1, legA, legB), route(2, legB)},
			adds: []Op{
				SetGroup{ID: idH + 1, Members: []uint32{idA}},
				SetRoute{Prefix: prefix(1), NextHopID: idH + 1, Source: self},
			},
		}, {
			name: "a port that does not exist is no way",
			now:  state(nil, nil),
			want: []RouteUpdate{route(1, NextHop{Port: "new", Via: legA.Via})},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			in := &intent{routes: newRouteTable(), complete: !test.noPrune, failed: make(map[NextHop]struct{})}
			for _, u := range test.want {
				in.routes.update(u)
			}
			for _, leg := range test.failed {
				in.failed[leg] = struct{}{}
			}
			in.classify(test.now)
			c := diff(test.now, in, &idAllocator{last: idH})
			adds := slices.Concat(c.adds...)
			sortRoutes(adds)
			for _, part := range []struct {
				name      string
				got, want []Op
			}{{"failed", c.failed, test.kill}, {"adds", adds, test.adds}, {"deletes", c.deletes, test.deletes}} {
				if d := cmp.Diff(show(part.want), show(part.got)); d != "" {
					t.Errorf("%s (-want +got):\n%s", part.name, d)
				}
			}
			if c.right != test.right {
				t.Errorf("%d routes are right, want %d", c.right, test.right)
			}
		})
	}
}

// sortRoutes orders runs of routes, whose order is left to chance.
func sortRoutes(ops []Op) {
	isRoute := func(op Op) bool { _, ok := op.(SetRoute); return ok }
	for i := 0; i < len(ops); i++ {
		j := i
		for j < len(ops) && isRoute(ops[j]) {
			j++
		}
		slices.SortFunc(ops[i:j], func(a, b Op) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
		i = j
	}
}

func show(ops []Op) []string {
	var lines []string
	for _, op := range ops {
		lines = append(lines, fmt.Sprintf("%T%+v", op, fields(op)))
	}
	return lines
}

// fields shows an operation whole, which its String does not.
func fields(op Op) any {
	switch op := op.(type) {
	case SetNextHop:
		return []any{op.ID, op.NextHop.String()}
	case SetGroup:
		return []any{op.ID, op.Members}
	case SetRoute:
		return []any{op.Prefix, op.NextHopID, op.Source}
	case DeleteNextHop:
		return op.ID
	}
	return op
}

func TestDiffOfPortsAndAddresses(t *testing.T) {
	address, other, foreign := netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("10.0.0.2/32"), netip.MustParsePrefix("10.0.0.3/32")
	now := newState()
	now.Links["lo"] = Link{Name: "lo"}
	now.Links["a"] = Link{Name: "a"}
	now.Links["b"] = Link{Name: "b", Up: true, Carrier: true, LinkLocal: legA.Via}
	now.Links["c"] = Link{Name: "c", Up: true}
	now.Addresses[other] = struct{}{}
	now.ForeignAddresses = map[netip.Prefix]struct{}{foreign: {}}
	desired := Desired{
		Ports:     []Port{{"a"}, {"b"}, {"c"}, {"absent"}},
		Addresses: []netip.Prefix{address, foreign},
		Sysctls: map[string]string{
			"net/ipv4/tcp_rmem":                "1 2  3",
			"net/ipv4/ip_forward":              "1",
			"net/ipv4/conf/absent/rp_filter":   "0",
			"net/ipv4/conf/a/rp_filter":        "0", // the document's word counts more
			"net/ipv4/neigh/default/no_such":   "1",
			"net/ipv6/fib_multipath_no_such_x": "1",
		},
	}
	for path, value := range wantedSysctls(desired, now.Links) {
		now.Sysctls[path] = value
	}
	now.Sysctls["net/ipv4/tcp_rmem"] = "1\t2\t3"
	now.Sysctls["net/ipv4/ip_forward"] = "0"
	now.Sysctls["net/ipv6/conf/a/accept_dad"] = "1"
	delete(now.Sysctls, "net/ipv4/neigh/default/no_such")
	if got := now.Sysctls["net/ipv4/conf/a/rp_filter"]; got != "0" {
		t.Errorf("rp_filter of a port that the desired values name is %q, want 0", got)
	}
	if _, ok := now.Sysctls["net/ipv4/conf/absent/rp_filter"]; ok {
		t.Error("a value of an absent port is wanted")
	}

	c := diff(now, &intent{desired: desired, routes: newRouteTable(), complete: true}, &idAllocator{})
	wantAdds := []Op{
		SetSysctl{"net/ipv4/ip_forward", "1"},
		SetSysctl{"net/ipv6/conf/a/accept_dad", "0"}, // before the port is up
		SetPort{"lo"},
		SetPort{"a"},
		AddAddress{address},
	}
	if d := cmp.Diff(show(wantAdds), show(slices.Concat(c.adds...))); d != "" {
		t.Errorf("adds (-want +got):\n%s", d)
	}
	if d := cmp.Diff(show([]Op{DeleteAddress{other}}), show(c.deletes)); d != "" {
		t.Errorf("deletes (-want +got):\n%s", d)
	}
}

func TestIDs(t *testing.T) {
	now := newState()
	ids := idAllocator{last: LastID - 1}
	now.NextHops[FirstID] = legA
	now.Groups[FirstID+1] = []uint32{FirstID}
	now.ForeignIDs = map[uint32]struct{}{FirstID + 2: {}}
	if got := ids.next(now); got != LastID {
		t.Errorf("got %#x, want the last id %#x", got, LastID)
	}
	if got := ids.next(now); got != FirstID+3 {
		t.Errorf("got %#x, want the first free id %#x", got, FirstID+3)
	}
	var adopting idAllocator
	adopting.adopt(now)
	if got := adopting.next(now); got != FirstID+3 {
		t.Errorf("after adoption: got %#x, want %#x", got, FirstID+3)
	}
	legs := legIDs(map[uint32]NextHop{9: legA, 7: legA, 8: legB})
	if legs[legA] != 7 || legs[legB] != 8 {
		t.Errorf("got %v, want the lowest id of each leg", legs)
	}
	members := []uint32{1, 0xfffffffe}
	if got := membersOf(membersKey(members)); !slices.Equal(got, members) {
		t.Errorf("members %v became %v", members, got)
	}
}
