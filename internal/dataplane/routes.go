package dataplane

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// routeTable holds the desired routes. Most prefixes share few sets of next
// hops, so each set is held once.
type routeTable struct {
	routes map[netip.Prefix]desiredRoute
	sets   map[string]*nextHopSet
}

type desiredRoute struct {
	set    *nextHopSet
	source netip.Addr
}

// nextHopSet is one distinct set of next hops that routes want.
type nextHopSet struct {
	key    string
	legs   []NextHop // sorted, each once
	routes int       // that want it
}

func newRouteTable() *routeTable {
	return &routeTable{
		routes: make(map[netip.Prefix]desiredRoute),
		sets:   make(map[string]*nextHopSet),
	}
}

// update replaces what is desired for one prefix.
func (t *routeTable) update(u RouteUpdate) {
	if old, ok := t.routes[u.Prefix]; ok {
		t.release(old.set)
	}
	if len(u.NextHops) == 0 {
		delete(t.routes, u.Prefix)
		return
	}
	t.routes[u.Prefix] = desiredRoute{set: t.acquire(u.NextHops), source: u.Source}
}

func (t *routeTable) acquire(nextHops []NextHop) *nextHopSet {
	legs := slices.Clone(nextHops)
	slices.SortFunc(legs, compareNextHops)
	legs = slices.Compact(legs)
	var buffer [256]byte
	key := buffer[:0]
	for _, leg := range legs {
		via := leg.Via.As16()
		key = append(append(append(key, leg.Port...), 0), via[:]...)
	}
	set, ok := t.sets[string(key)]
	if !ok {
		set = &nextHopSet{key: string(key), legs: legs}
		t.sets[set.key] = set
	}
	set.routes++
	return set
}

func (t *routeTable) release(set *nextHopSet) {
	set.routes--
	if set.routes == 0 {
		delete(t.sets, set.key)
	}
}

// sorted returns the sets in an order that does not depend on chance.
func (t *routeTable) sorted() []*nextHopSet {
	sets := make([]*nextHopSet, 0, len(t.sets))
	for _, set := range t.sets {
		sets = append(sets, set)
	}
	slices.SortFunc(sets, func(a, b *nextHopSet) int { return strings.Compare(a.key, b.key) })
	return sets
}

func compareNextHops(a, b NextHop) int {
	return cmp.Or(strings.Compare(a.Port, b.Port), a.Via.Compare(b.Via))
}
