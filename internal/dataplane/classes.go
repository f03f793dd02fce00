package dataplane

import "net/netip"

// routeClass is what prefixes have in common for which the same has to be done:
// what the kernel holds of them, and what is desired.
type routeClass struct {
	installed   bool
	id          uint32      // of the nexthop object that an installed one refers to
	sourceRight bool        // the source of an installed one is as desired
	set         *nextHopSet // nil: not desired
}

// routeClasses sorts all prefixes that are installed or desired. There are few
// classes, however many prefixes: what has to change is found by a look at each
// class, and so costs what changes.
type routeClasses map[routeClass]map[netip.Prefix]struct{}

// classOf is the class that a prefix belongs to now; the zero one is that of
// prefixes of no concern.
func (in *intent) classOf(now *State, prefix netip.Prefix) routeClass {
	have, installed := now.Routes[prefix]
	want := in.routes.routes[prefix] // the zero value is not desired
	return routeClass{
		installed: installed, id: have.NextHopID,
		sourceRight: installed && want.set != nil && have.Source == want.source, set: want.set,
	}
}

// classify sorts all prefixes anew.
func (in *intent) classify(now *State) {
	in.classes = make(routeClasses)
	for prefix := range in.routes.routes {
		in.classes.move(prefix, routeClass{}, in.classOf(now, prefix))
	}
	for prefix := range now.Routes {
		if _, desired := in.routes.routes[prefix]; !desired {
			in.classes.move(prefix, routeClass{}, in.classOf(now, prefix))
		}
	}
}

// classified is a prefix with the class that it was in.
type classified struct {
	prefix netip.Prefix
	class  routeClass
}

// classesOf are the routes that operations are about, and what these are before.
func (in *intent) classesOf(now *State, ops []Op) (before []classified) {
	note := func(prefix netip.Prefix) { before = append(before, classified{prefix, in.classOf(now, prefix)}) }
	for _, op := range ops {
		switch op := op.(type) {
		case SetRoute:
			note(op.Prefix)
		case DeleteRoute:
			note(op.Prefix)
		}
	}
	return before
}

// reclassify moves routes to what they are now.
func (in *intent) reclassify(now *State, before []classified) {
	for _, b := range before {
		in.classes.move(b.prefix, b.class, in.classOf(now, b.prefix))
	}
}

// move takes a prefix from one class to another.
func (c routeClasses) move(prefix netip.Prefix, from, to routeClass) {
	if from == to {
		return
	}
	if members := c[from]; members != nil {
		delete(members, prefix)
		if len(members) == 0 {
			delete(c, from)
		}
	}
	if to == (routeClass{}) {
		return
	}
	members, ok := c[to]
	if !ok {
		members = make(map[netip.Prefix]struct{})
		c[to] = members
	}
	members[prefix] = struct{}{}
}
