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
	behind map[netip.Prefix]int // sets of routes that are behind each node
}

type desiredRoute struct {
	set    *nextHopSet
	source netip.Addr
}

// nextHopSet is one distinct set of next hops that routes want.
type nextHopSet struct {
	key    string
	legs   []NextHop // sorted, each once
	behind netip.Prefix
	routes int // that want it
}

func newRouteTable() *routeTable {
	return &routeTable{
		routes: make(map[netip.Prefix]desiredRoute),
		sets:   make(map[string]*nextHopSet),
		behind: make(map[netip.Prefix]int),
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
	t.routes[u.Prefix] = desiredRoute{set: t.acquire(u.NextHops, u.Behind), source: u.Source}
}

// legs are the next hops that are desired for a prefix.
func (t *routeTable) legs(prefix netip.Prefix) []NextHop {
	if r, ok := t.routes[prefix]; ok {
		return r.set.legs
	}
	return nil
}

func (t *routeTable) acquire(nextHops []NextHop, behind netip.Prefix) *nextHopSet {
	legs := slices.Clone(nextHops)
	slices.SortFunc(legs, compareNextHops)
	legs = slices.Compact(legs)
	var buffer [256]byte
	key := buffer[:0]
	for _, leg := range legs {
		via := leg.Via.As16()
		key = append(append(append(key, leg.Port...), 0), via[:]...)
	}
	if behind.IsValid() {
		node := behind.Addr().As16()
		key = append(key, node[:]...)
	}
	set, ok := t.sets[string(key)]
	if !ok {
		set = &nextHopSet{key: string(key), legs: legs, behind: behind}
		t.sets[set.key] = set
		if behind.IsValid() {
			t.behind[behind]++
		}
	}
	set.routes++
	return set
}

func (t *routeTable) release(set *nextHopSet) {
	set.routes--
	if set.routes == 0 {
		delete(t.sets, set.key)
		if t.behind[set.behind]--; t.behind[set.behind] <= 0 {
			delete(t.behind, set.behind)
		}
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
