package dataplane

import (
	"maps"
	"net/netip"
	"slices"
)

// intent is everything that the kernel should hold.
type intent struct {
	desired  Desired
	routes   *routeTable
	classes  routeClasses         // of routes, with what the kernel holds
	failed   map[NextHop]struct{} // legs that must carry nothing
	complete bool                 // what is not desired is to go
	guesses  map[netip.Prefix]guess
	wanted   sysctls // see there

	// refused are the operations that failed since the kernel was last
	// looked at: not tried again before the next look.
	refused map[opKey]error
	// raised are the ports that were brought up since then. What that leads
	// to is the kernel's to do, and to tell.
	raised map[string]bool
}

func (in *intent) isFailed(leg NextHop) bool {
	_, failed := in.failed[leg]
	return failed
}

func (in *intent) isRefused(op Op) bool {
	if len(in.refused) == 0 {
		return false
	}
	_, refused := in.refused[keyOf(op)]
	return refused
}

// changes lead from what the kernel holds to what is wanted.
type changes struct {
	// failed takes legs away that must carry nothing. If there are any,
	// nothing else is decided: the kernel does the rest to groups and
	// routes by itself.
	failed []Op
	// adds are stages: each may refer to what those before it have made, so
	// it is thought over again when one of them was refused.
	adds    [][]Op
	deletes []Op // only after all of adds, or packets would be lost
	right   int  // desired routes that the kernel holds as they should be

	sharings map[netip.Prefix]sharing
}

// diff computes what has to change. It is pure but for the ids it draws.
func diff(now *State, in *intent, ids *idAllocator) changes {
	if failed := diffFailed(now, in); len(failed) > 0 {
		return changes{failed: failed}
	}
	addAddresses, deleteAddresses := diffAddresses(now, in)
	addToUplink, deleteFromPorts := diffUplink(now, in)
	g := newGrouping(now, in, ids)
	r := diffRoutes(in, g)
	c := changes{right: r.right, sharings: g.sharings()}
	// Routes leave a group before it changes under them; all others are
	// set after the groups, which move many at once.
	c.adds = [][]Op{
		diffPorts(now, in), addAddresses, addToUplink,
		g.addLegs, g.addGroups, r.leaving, g.replace, r.set,
	}
	if in.complete {
		c.deletes = append(c.deletes, r.gone...)
		c.deletes = append(c.deletes, g.unused(r.used)...)
		c.deletes = append(c.deletes, deleteAddresses...)
		c.deletes = append(c.deletes, deleteFromPorts...)
	}
	for i := range c.adds {
		c.adds[i] = slices.DeleteFunc(c.adds[i], in.isRefused)
	}
	c.deletes = slices.DeleteFunc(c.deletes, in.isRefused)
	return c
}

// diffFailed returns the deletion of every failed leg that the kernel holds.
func diffFailed(now *State, in *intent) []Op {
	var ops []Op
	if len(in.failed) == 0 {
		return nil
	}
	for _, id := range slices.Sorted(maps.Keys(now.NextHops)) {
		if remove := (DeleteNextHop{ID: id}); in.isFailed(now.NextHops[id]) && !in.isRefused(remove) {
			ops = append(ops, remove)
		}
	}
	return ops
}

func diffAddresses(now *State, in *intent) (adds, deletes []Op) {
	for _, prefix := range in.desired.Addresses {
		_, ours := now.Addresses[prefix]
		_, foreign := now.ForeignAddresses[prefix]
		if !ours && !foreign {
			adds = append(adds, AddAddress{Prefix: prefix})
		}
	}
	for _, prefix := range slices.SortedFunc(maps.Keys(now.Addresses), netip.Prefix.Compare) {
		if !slices.Contains(in.desired.Addresses, prefix) {
			deletes = append(deletes, DeleteAddress{Prefix: prefix})
		}
	}
	return adds, deletes
}

// routeChanges is what has to happen to routes.
type routeChanges struct {
	leaving []Op // from groups whose members change
	set     []Op // all others
	gone    []Op
	used    map[uint32]bool // ids that routes refer to afterwards
	right   int
}

func diffRoutes(in *intent, g *grouping) routeChanges {
	r := routeChanges{used: make(map[uint32]bool)}
	for class, prefixes := range in.classes {
		switch {
		case class.set == nil:
			r.remove(class, prefixes, in)
		case g.isRight(class):
			g.paths[class.set].refer(class.id)
			r.used[class.id] = true
			r.right += len(prefixes)
		default:
			r.change(class, prefixes, in, g)
		}
	}
	return r
}

// remove is for routes that are not desired.
func (r *routeChanges) remove(class routeClass, prefixes map[netip.Prefix]struct{}, in *intent) {
	for prefix := range prefixes {
		remove := DeleteRoute{Prefix: prefix}
		r.gone = append(r.gone, remove)
		if in.isRefused(remove) {
			r.used[class.id] = true
		}
	}
}

// change is for routes that are not there, or lead another way.
func (r *routeChanges) change(class routeClass, prefixes map[netip.Prefix]struct{}, in *intent, g *grouping) {
	// None of its next hops works: what is there stays until one does,
	// or until the route is not desired any more.
	id := g.target(class.set)
	for prefix := range prefixes {
		set := SetRoute{Prefix: prefix, NextHopID: id, Source: in.routes.routes[prefix].source}
		if id == 0 || in.isRefused(set) {
			r.used[class.id] = true
			continue
		}
		r.used[id] = true
		if class.installed && class.id != id && g.replaced[class.id] {
			r.leaving = append(r.leaving, set)
			continue
		}
		r.set = append(r.set, set)
	}
}
