package dataplane

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Routes behind a node.
//
// BGP withdraws prefix after prefix, which takes the longer the more there are.
// But routes that lead through the same node further on share the fate of the
// route to that node: the legs that it has lost, they are about to lose too.
// These go out of their groups at once, by one message per group whatever the
// number of routes (prefix-independent convergence, as where routes are resolved
// recursively). Their own changes follow, and find nothing left to do.
//
// It is a guess, so it never takes a last leg away, and it ends by itself.

// guessTime is how long a guess is believed: longer than any table takes to
// be withdrawn.
const guessTime = 5 * time.Second

// guess is what the routes behind a node are about to lose.
type guess struct {
	legs  []NextHop
	until time.Time
}

// update takes what is desired for one prefix now. If that has lost legs, the
// routes behind it are taken to have lost them.
func (in *intent) update(u RouteUpdate, now time.Time) {
	before := in.routes.legs(u.Prefix)
	in.routes.update(u)
	if in.routes.behind[u.Prefix] == 0 {
		return
	}
	after := in.routes.legs(u.Prefix)
	g := in.guesses[u.Prefix]
	if lost := without(before, after); len(lost) > 0 {
		g.until = now.Add(guessTime)
		g.legs = append(without(g.legs, lost), lost...)
	}
	g.legs = without(g.legs, after)
	if len(g.legs) == 0 || len(after) == 0 {
		delete(in.guesses, u.Prefix)
		return
	}
	in.guesses[u.Prefix] = g
}

// endGuesses forgets what has not come true. What the kernel holds follows from
// guesses, so it is for whoever changes that next.
func (in *intent) endGuesses(now time.Time) {
	maps.DeleteFunc(in.guesses, func(_ netip.Prefix, g guess) bool { return !now.Before(g.until) })
}

// guessesEnd is when the next guess ends; zero: there is none.
func (in *intent) guessesEnd() (next time.Time) {
	for _, g := range in.guesses {
		if next.IsZero() || g.until.Before(next) {
			next = g.until
		}
	}
	return next
}

// without returns those of legs that are not among others.
func without(legs, others []NextHop) []NextHop {
	return slices.DeleteFunc(slices.Clone(legs), func(leg NextHop) bool { return slices.Contains(others, leg) })
}

// sharing is the short way from a route that has lost legs to the groups of the
// routes behind it, past whatever the reconciler is busy with.
type sharing struct {
	legs   []NextHop // of the route to the node
	groups map[uint32][]member
}

// member is a leg in a group.
type member struct {
	leg NextHop
	id  uint32
}

// sharings returns, by the prefix of each node, the groups that routes behind it
// refer to.
func (g *grouping) sharings() map[netip.Prefix]sharing {
	all := make(map[netip.Prefix]sharing)
	for set, p := range g.paths {
		if !set.behind.IsValid() || len(set.legs) < 2 {
			continue
		}
		s, ok := all[set.behind]
		if !ok {
			s = sharing{legs: g.in.routes.legs(set.behind), groups: make(map[uint32][]member)}
			all[set.behind] = s
		}
		var members []member
		ids := membersOf(p.key)
		for _, leg := range set.legs {
			if id := g.legs[leg]; slices.Contains(ids, id) {
				members = append(members, member{leg, id})
			}
		}
		if p.id != 0 {
			s.groups[p.id] = members
		}
		for id := range p.others {
			s.groups[id] = members
		}
	}
	return all
}

// share has leaveAtOnce know the groups as they are about to be.
func (r *Reconciler) share(sharings map[netip.Prefix]sharing) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sharings = sharings
}

// leaveAtOnce takes the legs that routes lose out of the groups of the routes
// behind them. The reconciler then does it again in its own turn.
func (r *Reconciler) leaveAtOnce(updates []RouteUpdate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.sharings) == 0 {
		return
	}
	var ops []Op
	for _, u := range updates {
		s, ok := r.sharings[u.Prefix]
		if !ok || len(u.NextHops) == 0 {
			continue
		}
		lost := without(s.legs, u.NextHops)
		if len(lost) == 0 {
			continue
		}
		s.legs = u.NextHops
		r.sharings[u.Prefix] = s
		for id, members := range s.groups {
			members = slices.DeleteFunc(slices.Clone(members), r.failing.isGone) // the kernel takes no group with one of them
			if op := (SetGroup{ID: id, Members: remaining(members, lost)}); len(op.Members) > 0 && len(op.Members) < len(members) {
				ops = append(ops, op)
			}
		}
	}
	if len(ops) == 0 {
		return
	}
	for _, op := range ops {
		set := op.(SetGroup) //nolint:forcetypeassert // it is made above
		r.left.groups[set.ID] = set.Members
	}
	r.left.unclear = r.left.unclear || r.left.applying
	// What fails here is tried again, and reported, by the reconciler.
	for _, f := range r.target.Apply(context.Background(), ops) {
		delete(r.left.groups, ops[f.Index].(SetGroup).ID) //nolint:forcetypeassert // as above
	}
}

// left are the groups that leaveAtOnce has changed and the reconciler does not
// know of yet. The legs may be back before it hears that they were gone: then
// nothing has happened as far as it is concerned, but for these.
type left struct {
	groups   map[uint32][]uint32 // members, by id
	applying bool                // the reconciler is changing the kernel
	unclear  bool                // it was, and nobody knows who came last
}

// forget drops the groups that the reconciler has changed itself since.
func (l *left) forget(done []Op) {
	for _, op := range done {
		if set, ok := op.(SetGroup); ok {
			delete(l.groups, set.ID)
		}
	}
}

// takeLeft has the reconciler know what leaveAtOnce has done.
func (r *Reconciler) takeLeft() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, members := range r.left.groups {
		if _, ok := r.state.Groups[id]; ok {
			r.state.Groups[id] = members
		}
	}
	clear(r.left.groups)
	if r.left.unclear {
		r.left.unclear = false
		r.lookSoon()
	}
}

// remaining are the ids of the members whose legs are not lost, sorted.
func remaining(members []member, lost []NextHop) (ids []uint32) {
	for _, m := range members {
		if !slices.Contains(lost, m.leg) {
			ids = append(ids, m.id)
		}
	}
	slices.Sort(ids)
	return ids
}
