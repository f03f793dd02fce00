package dataplane

import (
	"maps"
	"slices"
)

// grouping decides which nexthop object each set of next hops is reached by,
// and which members every group shall have.
//
// A group takes the members that most of its routes want: so when a set of
// next hops is replaced by another one as a whole, one message moves every
// prefix. It needs no memory: after a restart the kernel's routes tell which
// group was whose.
type grouping struct {
	now   *State
	in    *intent
	ids   *idAllocator
	legs  map[NextHop]uint32     // legs that exist or will
	paths map[*nextHopSet]*paths // what each desired set comes to now
	// members is, by id, the key of the legs that a leg or group stands for
	// after the changes.
	members map[uint32]string
	routes  map[uint32]int // how many routes refer to each id now

	addLegs   []Op
	addGroups []Op
	replace   []Op            // groups that exist, with new members
	replaced  map[uint32]bool // their ids
	claimed   map[uint32]bool // unused groups that have found a use
	unclaimed map[uint32]bool // groups with routes that nobody has asked for yet
}

// paths is what a set of next hops comes to at this moment: the legs of it
// that work, and the nexthop object that stands for them.
type paths struct {
	key string // of the legs that work, empty if none does
	id  uint32 // 0: not known yet, or none to be had
	// others are objects with the same members that routes refer to as well,
	// and may go on to.
	others map[uint32]struct{}
}

// refer notes that a route refers to an object.
func (p *paths) refer(id uint32) {
	if id == p.id {
		return
	}
	if p.others == nil {
		p.others = make(map[uint32]struct{})
	}
	p.others[id] = struct{}{}
}

func newGrouping(now *State, in *intent, ids *idAllocator) *grouping {
	g := &grouping{
		now: now, in: in, ids: ids,
		legs:     legIDs(now.NextHops),
		paths:    make(map[*nextHopSet]*paths, len(in.routes.sets)),
		members:  make(map[uint32]string, len(now.NextHops)+len(now.Groups)),
		routes:   make(map[uint32]int),
		replaced: make(map[uint32]bool),
		claimed:  make(map[uint32]bool),

		unclaimed: make(map[uint32]bool),
	}
	g.findPaths()
	for id := range now.NextHops {
		g.members[id] = membersKey([]uint32{id})
	}
	for id, members := range now.Groups {
		g.members[id] = membersKey(members)
	}
	g.findOwners()
	return g
}

// findPaths reduces every set to the legs that work, and makes the missing ones.
func (g *grouping) findPaths() {
	for _, set := range g.in.routes.sorted() {
		key := g.workingKey(without(set.legs, g.in.guesses[set.behind].legs))
		if key == "" {
			key = g.workingKey(set.legs)
		}
		g.paths[set] = &paths{key: key}
	}
}

// workingKey names those of legs that work.
func (g *grouping) workingKey(legs []NextHop) string {
	ids := make([]uint32, 0, len(legs))
	for _, leg := range legs {
		if id := g.leg(leg); id != 0 {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return membersKey(ids)
}

// leg returns the id of a leg, 0 if it must not or cannot carry anything now.
func (g *grouping) leg(leg NextHop) uint32 {
	if g.in.isFailed(leg) || !usable(leg, g.now.Links) {
		return 0
	}
	if id, ok := g.legs[leg]; ok {
		return id
	}
	id := g.ids.next(g.now)
	add := SetNextHop{ID: id, NextHop: leg}
	if g.in.isRefused(add) {
		return 0
	}
	g.legs[leg] = id
	g.members[id] = membersKey([]uint32{id})
	g.addLegs = append(g.addLegs, add)
	return id
}

// findOwners gives every group that routes use the members that most of them
// want. A group with routes that nobody has claimed since the start is left
// as it is: they may still be claimed as they are.
func (g *grouping) findOwners() {
	type use struct {
		id  uint32
		set *nextHopSet
	}
	uses := make(map[use]int)
	for class, prefixes := range g.in.classes {
		desired := class.set != nil
		if !class.installed || !desired && g.in.complete {
			continue // or about to be deleted
		}
		g.routes[class.id] += len(prefixes)
		if !desired {
			g.unclaimed[class.id] = true
			continue
		}
		uses[use{class.id, class.set}] += len(prefixes)
	}
	owners := make(map[uint32]use)
	for u, n := range uses {
		if _, group := g.now.Groups[u.id]; !group || g.unclaimed[u.id] {
			continue
		}
		owner, ok := owners[u.id]
		if !ok || n > uses[owner] || n == uses[owner] && u.set.key < owner.set.key {
			owners[u.id] = u
		}
	}
	for _, id := range slices.Sorted(maps.Keys(owners)) {
		owner := owners[id]
		p := g.paths[owner.set]
		if p.key == "" || !g.setMembers(id, p.key) {
			continue
		}
		if len(owner.set.legs) > 1 && (p.id == 0 || g.routes[id] > g.routes[p.id]) {
			p.id = id
		}
	}
}

// setMembers makes a group that exists consist of these legs; false if the
// kernel has refused that.
func (g *grouping) setMembers(id uint32, key string) bool {
	if g.members[id] == key {
		return true
	}
	set := SetGroup{ID: id, Members: membersOf(key)}
	if g.in.isRefused(set) {
		return false
	}
	g.members[id] = key
	g.replaced[id] = true
	g.replace = append(g.replace, set)
	return true
}

// isRight tells whether routes lead over just the legs that they should.
func (g *grouping) isRight(c routeClass) bool {
	p := g.paths[c.set]
	return c.installed && c.sourceRight && p.key != "" && g.members[c.id] == p.key
}

// target returns the nexthop object that a route to this set is to refer to,
// 0 if there is none to be had.
func (g *grouping) target(set *nextHopSet) uint32 {
	p := g.paths[set]
	if p.id != 0 || p.key == "" {
		return p.id
	}
	if len(set.legs) == 1 {
		p.id = g.legs[set.legs[0]]
		return p.id
	}
	if id, ok := g.freeGroup(p.key); ok {
		g.claimed[id] = true
		p.id = id
		return id
	}
	add := SetGroup{ID: g.ids.next(g.now), Members: membersOf(p.key)}
	if g.in.isRefused(add) {
		return 0
	}
	p.id = add.ID
	g.members[add.ID] = p.key
	g.addGroups = append(g.addGroups, add)
	return p.id
}

// freeGroup finds a group that is right already and that no other set owns.
func (g *grouping) freeGroup(key string) (uint32, bool) {
	for _, id := range slices.Sorted(maps.Keys(g.now.Groups)) {
		free := g.unclaimed[id] || g.routes[id] == 0 && !g.claimed[id]
		if free && g.members[id] == key {
			return id, true
		}
	}
	return 0, false
}

// unused returns the nexthop objects that neither a route nor a group needs
// after the changes, groups before legs.
func (g *grouping) unused(used map[uint32]bool) []Op {
	var ops []Op
	needed := make(map[uint32]bool)
	for _, id := range slices.Sorted(maps.Keys(g.now.Groups)) {
		if !used[id] {
			ops = append(ops, DeleteNextHop{ID: id})
		}
	}
	for id, key := range g.members {
		if _, leg := g.now.NextHops[id]; leg || !used[id] {
			continue
		}
		for _, member := range membersOf(key) {
			needed[member] = true
		}
	}
	// A leg that a desired set has is kept: the next route may want it.
	for _, p := range g.paths {
		for _, member := range membersOf(p.key) {
			needed[member] = true
		}
	}
	for _, id := range slices.Sorted(maps.Keys(g.now.NextHops)) {
		if !used[id] && !needed[id] {
			ops = append(ops, DeleteNextHop{ID: id})
		}
	}
	return ops
}
