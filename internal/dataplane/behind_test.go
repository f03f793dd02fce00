package dataplane

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// node is a node that routes are behind.
var node = netip.MustParsePrefix("10.0.200.3/32")

func behind(r RouteUpdate) RouteUpdate {
	r.Behind = node
	return r
}

func toNode(legs ...NextHop) RouteUpdate {
	return RouteUpdate{Prefix: node, NextHops: legs, Source: self, Behind: node}
}

// When the route to a node loses a leg, the routes behind it leave that at
// once, with one message for all.
func TestRoutesBehindANode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newFakeKernel("a", "b")
		r, _ := run(t, kernel)
		want := map[netip.Prefix][]NextHop{node: {legA, legB}, prefix(1000): {legA, legB}, prefix(1001): {legA}}
		updates := []RouteUpdate{toNode(legA, legB), route(1000, legA, legB), behind(route(1001, legA))}
		for n := range 100 {
			updates = append(updates, behind(route(n, legA, legB)))
			want[prefix(n)] = []NextHop{legA, legB}
		}
		r.UpdateRoutes(updates)
		r.Complete()
		synctest.Wait()
		wantForwards(t, kernel, want)

		kernel.reset()
		r.work.Lock() // the reconciler is busy
		r.UpdateRoutes([]RouteUpdate{toNode(legB)})
		for n := range 100 {
			want[prefix(n)] = []NextHop{legB}
		}
		want[node] = []NextHop{legB}
		forwards, ops := kernel.forwards(), kernel.ops()
		r.work.Unlock()
		if len(ops) != 1 || !slices.Equal(forwards[prefix(1)], want[prefix(1)]) {
			t.Errorf("at once: %v and then %v, want one group to change", ops, forwards[prefix(1)])
		}
		r.Resync()
		synctest.Wait()
		wantForwards(t, kernel, want)

		// What was guessed comes true, in part.
		updates = nil
		for n := range 40 {
			updates = append(updates, behind(route(n, legB)))
		}
		r.UpdateRoutes(updates)
		synctest.Wait()
		wantForwards(t, kernel, want)
		// The rest keeps its legs, once that is clear.
		time.Sleep(2 * guessTime)
		synctest.Wait()
		for n := 40; n < 100; n++ {
			want[prefix(n)] = []NextHop{legA, legB}
		}
		wantForwards(t, kernel, want)
		kernel.wantNothingUnused(t)
	})
}

// Routes of one node that came to be spread over several groups leave all of
// these.
func TestRoutesBehindANodeInTwoGroups(t *testing.T) {
	legs := map[uint32]NextHop{idA: legA, idB: legB}
	now := state(legs, map[uint32][]uint32{idG: {idA, idB}, idH: {idA, idB}}, idG, idH)
	in := intent{routes: newRouteTable(), guesses: make(map[netip.Prefix]guess), complete: true}
	for _, u := range []RouteUpdate{toNode(legA, legB), behind(route(1, legA, legB)), behind(route(2, legA, legB))} {
		in.update(u, time.Time{})
	}
	in.classify(now)
	groups := diff(now, &in, new(idAllocator)).sharings[node].groups
	for _, id := range []uint32{idG, idH} {
		if got := remaining(groups[id], []NextHop{legA}); !slices.Equal(got, []uint32{idB}) {
			t.Errorf("group %#x would be left with %v, want %v", id, got, []uint32{idB})
		}
	}
}

func TestLegThatReturnsIsUsedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newFakeKernel("a", "b")
		r, _ := run(t, kernel)
		r.UpdateRoutes([]RouteUpdate{toNode(legA, legB), behind(route(1, legA, legB))})
		synctest.Wait()
		r.UpdateRoutes([]RouteUpdate{toNode(legB)})
		synctest.Wait()
		r.UpdateRoutes([]RouteUpdate{toNode(legA, legB)})
		synctest.Wait()
		wantForwards(t, kernel, map[netip.Prefix][]NextHop{node: {legA, legB}, prefix(1): {legA, legB}})
	})
}

// A leg that was gone for a moment, and is back before the reconciler has heard
// of either, is used again all the same.
func TestLegThatReturnsWhileTheReconcilerIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newFakeKernel("a", "b")
		r, _ := run(t, kernel)
		r.UpdateRoutes([]RouteUpdate{toNode(legA, legB), behind(route(1, legA, legB))})
		synctest.Wait()
		r.work.Lock() // the reconciler is busy
		r.UpdateRoutes([]RouteUpdate{toNode(legB)})
		if got := kernel.forwards()[prefix(1)]; !slices.Equal(got, []NextHop{legB}) {
			t.Errorf("at once: %v, want %v", got, legB)
		}
		r.UpdateRoutes([]RouteUpdate{toNode(legA, legB)})
		r.work.Unlock()
		synctest.Wait()
		wantForwards(t, kernel, map[netip.Prefix][]NextHop{node: {legA, legB}, prefix(1): {legA, legB}})
	})
}

// A leg fails while the node behind which routes are loses another: both have
// left the routes' group at once, in whichever order, and what is left of it
// stays.
func TestFailureAndLossTogether(t *testing.T) {
	fail := func(legs ...NextHop) func(*Reconciler) { return func(r *Reconciler) { r.SetFailed(legs) } }
	lose := func(left ...NextHop) func(*Reconciler) {
		return func(r *Reconciler) { r.UpdateRoutes([]RouteUpdate{toNode(left...)}) }
	}
	type steps []func(*Reconciler)
	for name, c := range map[string]struct {
		steps         steps
		atOnce, after []NextHop // of the routes behind the node
		node          []NextHop // that the node is reached by after it
	}{
		"fails, then is lost":    {steps{fail(legB), lose(legB, legC)}, []NextHop{legC}, []NextHop{legC}, []NextHop{legC}},
		"is lost, then fails":    {steps{lose(legB, legC), fail(legB)}, []NextHop{legC}, []NextHop{legC}, []NextHop{legC}},
		"the same leg":           {steps{fail(legA), lose(legB, legC)}, []NextHop{legB, legC}, []NextHop{legB, legC}, []NextHop{legB, legC}},
		"the same leg, lost one": {steps{lose(legB, legC), fail(legA)}, []NextHop{legB, legC}, []NextHop{legB, legC}, []NextHop{legB, legC}},
		"the failure is over":    {steps{fail(legB), fail(), lose(legB, legC)}, []NextHop{legC}, []NextHop{legB, legC}, []NextHop{legB, legC}},
		// Where no leg of a route works, the kernel's stays.
		"the last leg is lost":   {steps{fail(legB, legC), lose(legB, legC)}, []NextHop{legA}, []NextHop{legA}, []NextHop{legA}},
		"the last leg fails":     {steps{lose(legC), fail(legC)}, nil, []NextHop{legA, legB}, nil},
		"all fail, and one lost": {steps{fail(legA, legB, legC), lose(legB, legC)}, nil, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				kernel := newFakeKernel("a", "b", "c")
				r, _ := run(t, kernel)
				r.UpdateRoutes([]RouteUpdate{toNode(legA, legB, legC), behind(route(1, legA, legB, legC)), behind(route(2, legA, legB, legC))})
				r.Complete()
				synctest.Wait()
				r.work.Lock() // the reconciler is busy
				for _, step := range c.steps {
					step(r)
				}
				if got := kernel.forwards()[prefix(1)]; !slices.Equal(got, c.atOnce) {
					t.Errorf("at once: %v, want %v", got, c.atOnce)
				}
				r.work.Unlock()
				synctest.Wait()
				want := make(map[netip.Prefix][]NextHop)
				set := func(legs []NextHop, prefixes ...netip.Prefix) {
					for _, p := range prefixes {
						if delete(want, p); legs != nil {
							want[p] = legs
						}
					}
				}
				set(c.after, prefix(1), prefix(2))
				set(c.node, node)
				wantForwards(t, kernel, want)
				kernel.wantNothingUnused(t)

				r.SetFailed(nil)
				r.UpdateRoutes([]RouteUpdate{toNode(legA, legB, legC)})
				synctest.Wait()
				set([]NextHop{legA, legB, legC}, node, prefix(1), prefix(2))
				wantForwards(t, kernel, want)
				kernel.wantNothingUnused(t)
			})
		})
	}
}

// A leg is back before the reconciler has heard that it was gone, while the
// reconciler is changing the very group.
func TestLegThatReturnsWhileItsGroupChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newFakeKernel("a", "b", "c")
		r, _ := run(t, kernel)
		r.UpdateRoutes([]RouteUpdate{toNode(legA, legB), behind(route(1, legA, legB))})
		synctest.Wait()
		changed, goOn := make(chan struct{}), make(chan struct{})
		kernel.after = func(ops []Op) {
			if _, group := ops[0].(SetGroup); !group {
				return
			}
			select {
			case <-changed: // by somebody who does not wait
			default:
				close(changed)
				<-goOn
			}
		}
		r.UpdateRoutes([]RouteUpdate{toNode(legA, legB, legC), behind(route(1, legA, legB, legC))})
		<-changed
		r.UpdateRoutes([]RouteUpdate{toNode(legB, legC)})
		r.UpdateRoutes([]RouteUpdate{toNode(legA, legB, legC)})
		close(goOn)
		synctest.Wait()
		wantForwards(t, kernel, map[netip.Prefix][]NextHop{node: {legA, legB, legC}, prefix(1): {legA, legB, legC}})
	})
}

// A guess that ends while the kernel is slow ends there too, as soon as it is not.
func TestGuessThatEndsWhileTheKernelIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newFakeKernel("a", "b")
		r, _ := run(t, kernel)
		r.UpdateRoutes([]RouteUpdate{toNode(legA, legB), behind(route(1, legA, legB))})
		time.Sleep(10 * time.Second) // the next look is far away
		r.UpdateRoutes([]RouteUpdate{toNode(legB)})
		synctest.Wait()
		time.Sleep(guessTime - time.Second)
		kernel.after = func([]Op) { time.Sleep(2 * time.Second) }
		r.UpdateRoutes([]RouteUpdate{route(2, legA)})
		time.Sleep(4 * time.Second)
		synctest.Wait()
		wantForwards(t, kernel, map[netip.Prefix][]NextHop{node: {legB}, prefix(1): {legA, legB}, prefix(2): {legA}})
	})
}

func TestGuesses(t *testing.T) {
	at := time.Unix(0, 0)
	in := intent{routes: newRouteTable(), guesses: make(map[netip.Prefix]guess)}
	step := func(name string, u RouteUpdate, want ...NextHop) {
		t.Helper()
		in.update(u, at)
		if got := in.guesses[node].legs; !slices.Equal(got, want) {
			t.Errorf("%s: the routes behind are taken to lose %v, want %v", name, got, want)
		}
	}
	step("nobody is behind it", toNodeAlone(legA, legB))
	step("fewer, and still nobody", toNodeAlone(legA))
	step("somebody is", behind(route(1, legA, legB, legC)))
	step("more", toNodeAlone(legA, legB, legC))
	step("one goes", toNodeAlone(legA, legB), legC)
	step("another goes", toNodeAlone(legA), legC, legB)
	step("one returns", toNodeAlone(legA, legC), legB)
	in.endGuesses(at.Add(guessTime - 1))
	if next := in.guessesEnd(); !next.Equal(at.Add(guessTime)) {
		t.Errorf("the guess ends at %v, want %v", next, at.Add(guessTime))
	}
	step("it is gone altogether, which says nothing of a leg", toNodeAlone())
	step("it is back", toNodeAlone(legA, legB))
	step("one goes again", toNodeAlone(legB), legA)
	in.endGuesses(at.Add(guessTime))
	if next := in.guessesEnd(); !next.IsZero() || len(in.guesses) != 0 {
		t.Errorf("the guess does not end: %v", in.guesses)
	}
}

// toNodeAlone is toNode, without being behind itself.
func toNodeAlone(legs ...NextHop) RouteUpdate {
	u := toNode(legs...)
	u.Behind = netip.Prefix{}
	return u
}
