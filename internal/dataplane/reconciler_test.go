package dataplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// run starts a reconciler over the fake kernel, inside a bubble of synctest.
func run(t *testing.T, kernel *fakeKernel) (*Reconciler, *lines) {
	t.Helper()
	log := &lines{}
	r := NewReconciler(kernel, slog.New(slog.NewTextHandler(log, nil)))
	done := make(chan error)
	go func() { done <- r.Run(t.Context()) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	synctest.Wait()
	return r, log
}

type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

func wantForwards(t *testing.T, kernel *fakeKernel, want map[netip.Prefix][]NextHop) {
	t.Helper()
	if d := cmp.Diff(want, kernel.forwards(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
		t.Fatalf("the kernel forwards (-want +got):\n%s", d)
	}
}

func TestNothingIsPrunedBeforeComplete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newFakeKernel("a", "b")
		kernel.state.NextHops[idA] = legA
		kernel.state.NextHops[idB] = legB
		kernel.state.Routes[prefix(1)] = InstalledRoute{NextHopID: idA, Source: self}
		kernel.state.Routes[prefix(2)] = InstalledRoute{NextHopID: idA, Source: self}
		kernel.state.Addresses[netip.MustParsePrefix("10.0.0.9/32")] = struct{}{}
		r, _ := run(t, kernel)
		<-r.Adopted()
		if got := r.AdoptedNextHops(); !slices.Equal(got, []NextHop{legA}) {
			t.Errorf("adopted next hops %v, want only the one that routes use", got)
		}
		r.UpdateRoutes([]RouteUpdate{route(2, legA)})
		time.Sleep(time.Minute)
		synctest.Wait()
		wantForwards(t, kernel, map[netip.Prefix][]NextHop{prefix(1): {legA}, prefix(2): {legA}})

		r.Complete()
		synctest.Wait()
		wantForwards(t, kernel, map[netip.Prefix][]NextHop{prefix(2): {legA}})
		if len(kernel.state.NextHops) != 1 || len(kernel.state.Addresses) != 0 {
			t.Errorf("left in the kernel: next hops %v, addresses %v", kernel.state.NextHops, kernel.state.Addresses)
		}
	})
}

func TestRestartChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newFakeKernel("a", "b", "c")
		desired := Desired{Ports: []Port{{"a"}, {"b"}, {"c"}}, Addresses: []netip.Prefix{netip.PrefixFrom(self, 32)}}
		updates := []RouteUpdate{route(1, legA, legB), route(2, legB, legC), route(3, legC), route(4, legA, legB)}
		for life := range 2 {
			ctx, kill := context.WithCancel(t.Context())
			r := NewReconciler(kernel, slog.New(slog.DiscardHandler))
			done := make(chan struct{})
			go func() { defer close(done); _ = r.Run(ctx) }()
			kernel.reset()
			r.Set(desired)
			r.UpdateRoutes(updates)
			r.Complete()
			synctest.Wait()
			if got := len(kernel.ops()); (got == 0) != (life == 1) {
				t.Errorf("life %d: %d operations: %v", life, got, kernel.ops())
			}
			if got := r.Report(); got.Installed != 4 || got.Desired != 4 || len(got.Problems) != 0 {
				t.Errorf("life %d: report %+v", life, got)
			}
			kill()
			<-done
		}
	})
}

// A failure does not wait for what the reconciler is busy with, and what it
// was busy with does not bring the leg back.
func TestFailureInTheMiddleOfABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newFakeKernel("a", "b")
		r, _ := run(t, kernel)
		var updates []RouteUpdate
		want := make(map[netip.Prefix][]NextHop)
		for n := range 10 * batch {
			updates = append(updates, route(n, legA, legB))
			want[prefix(n)] = []NextHop{legA}
		}
		failed := false
		var since []string // what was done first in each call since the failure
		kernel.before = func(ops []Op) {
			if failed {
				since = append(since, fmt.Sprintf("%T", ops[0]))
			}
			if _, ok := ops[0].(SetRoute); ok && !failed {
				failed = true
				r.SetFailed([]NextHop{legB})
				if slices.Contains(kernel.legs(), legB) {
					t.Error("SetFailed returned and the leg is still there")
				}
			}
		}
		r.UpdateRoutes(updates)
		r.Complete()
		synctest.Wait()
		wantForwards(t, kernel, want)
		// At once by SetFailed, then by the reconciler, before its next batch.
		deleted := fmt.Sprintf("%T", DeleteNextHop{})
		if !slices.Equal(since[:min(2, len(since))], []string{deleted, deleted}) {
			t.Errorf("calls after the failure: %v, want the leg deleted twice before all else", since)
		}

		kernel.reset()
		r.SetFailed(nil)
		synctest.Wait()
		for p := range want {
			want[p] = []NextHop{legA, legB}
		}
		wantForwards(t, kernel, want)
		if got := kernel.ops(); len(got) != 2 {
			t.Errorf("recovery took %d operations, want the leg and the group: %v", len(got), got)
		}
	})
}

func (f *fakeKernel) legs() []NextHop {
	f.mu.Lock()
	defer f.mu.Unlock()
	var legs []NextHop
	for _, leg := range f.state.NextHops {
		legs = append(legs, leg)
	}
	return legs
}

// A failure that is over before the reconciler has looked leaves no trace.
func TestFailureOverAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newFakeKernel("a", "b")
		r, _ := run(t, kernel)
		r.UpdateRoutes([]RouteUpdate{route(1, legA, legB), route(2, legB)})
		r.Complete()
		synctest.Wait()
		r.SetFailed([]NextHop{legB})
		r.SetFailed(nil)
		synctest.Wait()
		wantForwards(t, kernel, map[netip.Prefix][]NextHop{prefix(1): {legA, legB}, prefix(2): {legB}})
	})
}

func TestLastLegGoesAndReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newFakeKernel("a", "b")
		r, _ := run(t, kernel)
		r.UpdateRoutes([]RouteUpdate{route(1, legA, legB), route(2, legA)})
		r.Complete()
		synctest.Wait()
		r.SetFailed([]NextHop{legA, legB})
		synctest.Wait()
		wantForwards(t, kernel, map[netip.Prefix][]NextHop{})
		if _, ok := r.Installed(prefix(1)); ok {
			t.Error("Installed says that a route is there which the kernel has deleted")
		}
		r.SetFailed([]NextHop{legB})
		synctest.Wait()
		wantForwards(t, kernel, map[netip.Prefix][]NextHop{prefix(1): {legA}, prefix(2): {legA}})
		r.SetFailed(nil)
		synctest.Wait()
		wantForwards(t, kernel, map[netip.Prefix][]NextHop{prefix(1): {legA, legB}, prefix(2): {legA}})
	})
}

func TestFlapsEndWithAllLegs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newFakeKernel("a", "b")
		r, _ := run(t, kernel)
		r.UpdateRoutes([]RouteUpdate{route(1, legA, legB)})
		r.Complete()
		synctest.Wait()
		for flap := range 20 {
			down := kernel.setCarrier("b", false)
			if flap%2 == 0 {
				r.Observe(down)
				synctest.Wait()
				wantForwards(t, kernel, map[netip.Prefix][]NextHop{prefix(1): {legA}})
			}
			up := kernel.setCarrier("b", true)
			if flap%2 == 1 {
				up.Down = down.Down // merged: the link is as it was
			}
			r.Observe(up)
			synctest.Wait()
			wantForwards(t, kernel, map[netip.Prefix][]NextHop{prefix(1): {legA, legB}})
		}
	})
}

func TestOtherLinksCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newFakeKernel("a", "guest")
		r, _ := run(t, kernel)
		r.UpdateRoutes([]RouteUpdate{route(1, legA)})
		synctest.Wait()
		time.Sleep(time.Minute) // as seldom as it gets
		kernel.reset()
		r.Observe(kernel.setCarrier("guest", false))
		synctest.Wait()
		if _, dumps := kernel.counts(); dumps != 0 {
			t.Errorf("the kernel was looked at %d times for a link that matters to nobody", dumps)
		}
		r.Observe(kernel.setCarrier("a", false))
		synctest.Wait()
		if _, dumps := kernel.counts(); dumps != 1 {
			t.Errorf("the kernel was looked at %d times for a port, want once", dumps)
		}
	})
}

func TestRefusedOperations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newFakeKernel("a", "b", "c")
		var mu sync.Mutex
		refusing := true
		kernel.refuse = func(op Op) error {
			mu.Lock()
			defer mu.Unlock()
			switch op := op.(type) {
			case SetNextHop:
				if refusing && op.NextHop == legB {
					return errors.New("no buffer space")
				}
			case SetRoute:
				if refusing && op.Prefix != prefix(1) && op.Prefix != prefix(2) {
					return errors.New("invalid source")
				}
			}
			return nil
		}
		r, log := run(t, kernel)
		updates := []RouteUpdate{route(1, legA, legB), route(2, legA)}
		for n := 3; n < 3*batch; n++ {
			updates = append(updates, route(n, legA))
		}
		r.UpdateRoutes(updates)
		r.Complete()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		// One leg that cannot be made holds up neither the group nor others.
		wantForwards(t, kernel, map[netip.Prefix][]NextHop{prefix(1): {legA}, prefix(2): {legA}})
		report := r.Report()
		if len(report.Problems) != 2 || report.Installed != 2 || report.Desired != len(updates) {
			t.Errorf("report %+v, want two problems and two routes", report)
		}
		if n, _ := kernel.counts(); n > 40*10 {
			t.Errorf("%d calls in ten minutes", n)
		}
		if n := log.count("the kernel refused"); n != 2 {
			t.Errorf("%d lines about two problems:\n%s", n, &log.text)
		}

		mu.Lock()
		refusing = false
		mu.Unlock()
		time.Sleep(resyncLast)
		synctest.Wait()
		if report := r.Report(); len(report.Problems) != 0 || report.Installed != len(updates) {
			t.Errorf("report %+v after the kernel has come round", report)
		}
		if n := log.count("no longer refuses"); n != 2 {
			t.Errorf("%d lines about the end of two problems", n)
		}
	})
}

// What cannot be added does not cost what is there.
func TestRefusedRouteKeepsItsOldPath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newFakeKernel("a", "b")
		r, _ := run(t, kernel)
		r.UpdateRoutes([]RouteUpdate{route(1, legA), route(2, legA)})
		r.Complete()
		synctest.Wait()
		kernel.mu.Lock()
		kernel.refuse = func(op Op) error {
			if set, ok := op.(SetRoute); ok && set.Prefix == prefix(1) {
				return errors.New("no")
			}
			return nil
		}
		kernel.mu.Unlock()
		r.UpdateRoutes([]RouteUpdate{route(1, legB), route(2, legB)})
		synctest.Wait()
		wantForwards(t, kernel, map[netip.Prefix][]NextHop{prefix(1): {legA}, prefix(2): {legB}})
	})
}

func TestPortThatAppearsLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newFakeKernel("a")
		r, _ := run(t, kernel)
		r.Set(Desired{Ports: []Port{{"a"}, {"b"}}})
		r.UpdateRoutes([]RouteUpdate{route(1, legA, legB)})
		r.Complete()
		synctest.Wait()
		wantForwards(t, kernel, map[netip.Prefix][]NextHop{prefix(1): {legA}})
		if problems := r.Report().Problems; len(problems) != 0 {
			t.Errorf("a port that is not there is a problem: %v", problems)
		}
		kernel.mu.Lock()
		kernel.state.Links["b"] = Link{Name: "b", Index: 9}
		kernel.state.Sysctls["net/ipv6/conf/b/accept_dad"] = "1"
		links := kernel.copy().Links
		kernel.mu.Unlock()
		kernel.reset()
		r.Observe(LinksChanged{Links: links})
		synctest.Wait()
		want := []Op{SetSysctl{"net/ipv6/conf/b/accept_dad", "0"}, SetPort{"b"}}
		if got := kernel.ops(); !slices.Equal(got[:min(2, len(got))], want) {
			t.Errorf("operations %v, want first %v", got, want)
		}
		time.Sleep(resyncLast)
		synctest.Wait()
		wantForwards(t, kernel, map[netip.Prefix][]NextHop{prefix(1): {legA, legB}})
	})
}

// What this kernel has no sysctl for is not looked for again with each route.
func TestAbsentSysctlCostsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newFakeKernel("a")
		r, _ := run(t, kernel)
		const absent = "net/ipv4/neigh/default/gc_thresh1"
		r.Set(Desired{Sysctls: map[string]string{absent: "8192"}})
		synctest.Wait()
		kernel.reset()
		for i := range 5 {
			r.UpdateRoutes([]RouteUpdate{route(i, legA)})
			synctest.Wait()
		}
		kernel.mu.Lock()
		reads, dumps := kernel.reads, kernel.dumps
		kernel.mu.Unlock()
		if reads > dumps {
			t.Errorf("read %d times in %d looks at the kernel", reads, dumps)
		}
		if missing := r.Report().MissingSysctls; !slices.Contains(missing, absent) {
			t.Errorf("missing are %v, want %s", missing, absent)
		}
		kernel.mu.Lock()
		kernel.state.Sysctls[absent] = "128"
		kernel.mu.Unlock()
		time.Sleep(resyncLast)
		synctest.Wait()
		if missing := r.Report().MissingSysctls; slices.Contains(missing, absent) || !slices.Contains(kernel.ops(), Op(SetSysctl{absent, "8192"})) {
			t.Errorf("now that it is there: missing are %v, operations %v", missing, kernel.ops())
		}
	})
}

// Who waits is told when the routes are in force, also over a port whose
// carrier the reconciler has only just heard of.
func TestThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kernel := newFakeKernel("a", "b")
		kernel.setCarrier("b", false)
		r, _ := run(t, kernel)
		told := 0
		expect := func(want map[netip.Prefix][]NextHop) {
			r.Then(func() {
				told++
				if d := cmp.Diff(want, kernel.forwards(), cmpopts.EquateComparable(netip.Addr{})); d != "" {
					t.Errorf("told before the kernel forwards so (-want +got):\n%s", d)
				}
			})
		}
		r.UpdateRoutes([]RouteUpdate{route(1, legA)})
		expect(map[netip.Prefix][]NextHop{prefix(1): {legA}})
		synctest.Wait()
		// It hears of it in the middle of its work, and thinks that over.
		var once sync.Once
		kernel.before = func([]Op) {
			once.Do(func() {
				r.Observe(kernel.setCarrier("b", true))
				r.UpdateRoutes([]RouteUpdate{route(2, legB)})
				expect(map[netip.Prefix][]NextHop{prefix(1): {legA}, prefix(2): {legB}, prefix(3): {legA}})
				r.SetFailed([]NextHop{legC})
			})
		}
		r.UpdateRoutes([]RouteUpdate{route(3, legA)})
		synctest.Wait()
		if told != 2 {
			t.Errorf("told %d times, want 2", told)
		}
	})
}

func TestWithdraw(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, unmarked := range []bool{false, true} {
			kernel := newFakeKernel("a", "b")
			foreign := netip.MustParsePrefix("10.0.0.7/32")
			kernel.state.ForeignAddresses = map[netip.Prefix]struct{}{foreign: {}}
			kernel.state.UnmarkedAddresses = unmarked
			r := NewReconciler(kernel, slog.New(slog.DiscardHandler))
			ctx, kill := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { defer close(done); _ = r.Run(ctx) }()
			r.Set(Desired{Addresses: []netip.Prefix{netip.PrefixFrom(self, 32), foreign}})
			r.UpdateRoutes([]RouteUpdate{route(1, legA, legB), route(2, legB)})
			synctest.Wait()
			kernel.reset()
			if err := r.Withdraw(ctx); err != nil {
				t.Fatal(err)
			}
			r.UpdateRoutes([]RouteUpdate{route(3, legA)})
			r.Resync()
			time.Sleep(time.Hour)
			synctest.Wait()
			s := kernel.copy()
			if len(s.Routes)+len(s.Groups)+len(s.NextHops)+len(s.Addresses) != 0 {
				t.Errorf("left behind: %+v", s)
			}
			touched := slices.Contains(kernel.ops(), Op(DeleteAddress{foreign}))
			if touched != unmarked {
				t.Errorf("unmarked %v: an address that is desired, but not marked, was deleted: %v", unmarked, touched)
			}
			kill()
			<-done
		}
	})
}

// Whatever is asked for, fails, flaps and is meddled with: in the end the
// kernel forwards as desired, and holds nothing more.
func TestAnySequenceEndsAsDesired(t *testing.T) {
	for seed := range uint64(150) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { randomSequence(t, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func randomSequence(t *testing.T, random *rand.Rand) {
	ports := []string{"a", "b", "c", "d"}
	var legs []NextHop
	for i, port := range ports {
		legs = append(legs, NextHop{Port: port, Via: netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: byte(i)})})
	}
	kernel := newFakeKernel(ports...)
	r, _ := run(t, kernel)
	want := make(map[netip.Prefix][]NextHop)
	some := func() []NextHop {
		var chosen []NextHop
		for _, leg := range legs {
			if random.IntN(2) == 0 {
				chosen = append(chosen, leg)
			}
		}
		return chosen
	}
	for range 60 {
		switch random.IntN(8) {
		case 0, 1, 2:
			nextHops := some()
			var updates []RouteUpdate
			for range 1 + random.IntN(20) {
				u := route(random.IntN(30), nextHops...)
				if random.IntN(2) == 0 {
					u.Behind = prefix(random.IntN(3))
				}
				updates = append(updates, u)
				if want[u.Prefix] = u.NextHops; len(u.NextHops) == 0 {
					delete(want, u.Prefix)
				}
			}
			r.UpdateRoutes(updates)
		case 3:
			failed := some()
			r.SetFailed(failed)
			synctest.Wait()
			for _, leg := range kernel.legs() {
				if slices.Contains(failed, leg) {
					t.Fatalf("leg %s has failed and is still there", leg)
				}
			}
		case 4:
			r.Observe(kernel.setCarrier(ports[random.IntN(len(ports))], random.IntN(2) == 0))
		case 5:
			kernel.meddle(random)
			r.Observe(Drifted{})
		case 6:
			kernel.mu.Lock()
			n := random.IntN(4)
			kernel.refuse = func(op Op) error {
				if _, ok := op.(DeleteNextHop); ok {
					return nil
				}
				if n--; n >= 0 {
					return errors.New("not now")
				}
				return nil
			}
			kernel.mu.Unlock()
		case 7:
			r.Complete()
		}
		if random.IntN(3) == 0 {
			synctest.Wait()
		}
		if random.IntN(10) == 0 {
			time.Sleep(time.Second)
		}
	}
	for _, port := range ports {
		r.Observe(kernel.setCarrier(port, true))
	}
	r.SetFailed(nil)
	r.Complete()
	time.Sleep(3 * resyncLast)
	synctest.Wait()
	wantForwards(t, kernel, want)
	for prefix, nextHops := range want {
		if got, ok := r.Installed(prefix); !ok || !slices.Equal(got, nextHops) {
			t.Errorf("Installed(%s) = %v, %v, want %v", prefix, got, ok, nextHops)
		}
	}
	report := r.Report()
	if report.Installed != len(want) || report.Desired != len(want) || len(report.Problems) != 0 {
		t.Errorf("report %+v, want %d routes and no problem", report, len(want))
	}
	kernel.wantNothingUnused(t)
	kernel.reset()
	r.Resync()
	synctest.Wait()
	if ops := kernel.ops(); len(ops) != 0 {
		t.Errorf("all is as desired, and yet: %v", ops)
	}
}

// meddle deletes something of frond's.
func (f *fakeKernel) meddle(random *rand.Rand) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.state.NextHops {
		if random.IntN(3) == 0 {
			f.deleteNextHop(id)
			return
		}
	}
	for prefix := range f.state.Routes {
		delete(f.state.Routes, prefix)
		return
	}
}

func (f *fakeKernel) wantNothingUnused(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	used := make(map[uint32]bool)
	for _, route := range f.state.Routes {
		used[route.NextHopID] = true
	}
	for id, members := range f.state.Groups {
		if !used[id] {
			t.Errorf("group %#x is used by no route", id)
		}
		for _, member := range members {
			used[member] = true
		}
	}
	for id, leg := range f.state.NextHops {
		if !used[id] {
			t.Errorf("leg %#x %s is used by nothing", id, leg)
		}
	}
}
