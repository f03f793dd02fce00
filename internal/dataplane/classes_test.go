package dataplane

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
)

// Whatever happens, each route is in the class that it belongs to.
func TestRouteClassesFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newFakeKernel("a", "b", "c")
		r, _ := run(t, kernel)
		r.Complete()
		legs := []NextHop{legA, legB, legC}
		random := rand.New(rand.NewPCG(1, 2))
		for round := range 300 {
			var updates []RouteUpdate
			for range random.IntN(20) {
				var via []NextHop
				for _, leg := range legs {
					if random.IntN(2) == 0 {
						via = append(via, leg)
					}
				}
				updates = append(updates, route(random.IntN(30), via...))
			}
			r.UpdateRoutes(updates)
			switch random.IntN(4) {
			case 0:
				r.SetFailed(legs[:random.IntN(3)])
			case 1:
				r.Resync()
			}
			synctest.Wait()
			r.work.Lock()
			fresh := r.intent
			fresh.classify(r.state)
			follows := maps.EqualFunc(r.intent.classes, fresh.classes, maps.Equal[map[netip.Prefix]struct{}, map[netip.Prefix]struct{}])
			r.work.Unlock()
			if !follows {
				t.Fatalf("round %d: classes are %v, want %v", round, r.intent.classes, fresh.classes)
			}
		}
	})
}
