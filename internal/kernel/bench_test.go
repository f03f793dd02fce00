package kernel_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"frond/internal/dataplane"
)

const table = 100000

// first is the first route of the table.
var first = netip.MustParsePrefix("20.0.0.0/32")

func tableOf(legs ...dataplane.NextHop) []dataplane.RouteUpdate {
	updates := make([]dataplane.RouteUpdate, table)
	for i := range updates {
		addr := netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)})
		updates[i] = dataplane.RouteUpdate{Prefix: netip.PrefixFrom(addr, 32), NextHops: legs, Source: self4.Addr()}
	}
	return updates
}

// settled waits until every desired route is right, by the reconciler's word.
func (n *node) settled(routes int) {
	n.t.Helper()
	n.eventually(func() error {
		if got := n.Report(); got.Installed != routes || got.Desired != routes {
			return fmt.Errorf("%d of %d routes are right, want %d", got.Installed, got.Desired, routes)
		}
		return nil
	})
}

func fullTable(b *testing.B) *node {
	n := newSpace(b, "up.0", "up1").start()
	n.Set(desired)
	n.Complete()
	n.eventually(func() error {
		for _, port := range desired.Ports {
			if !n.dump().Links[port.Name].Carrier {
				return fmt.Errorf("%s has no carrier", port.Name)
			}
		}
		return nil
	})
	n.UpdateRoutes(tableOf(leg("up.0"), leg("up1")))
	n.settled(table)
	return n
}

// From nothing to 100,000 routes over two legs.
func BenchmarkInstall(b *testing.B) {
	for b.Loop() {
		started := time.Now()
		fullTable(b)
		b.ReportMetric(table/time.Since(started).Seconds(), "routes/s")
	}
}

// 100,000 routes move from one set of next hops to another, and back.
func BenchmarkMove(b *testing.B) {
	n := fullTable(b)
	for i := 0; b.Loop(); i++ {
		legs := []dataplane.NextHop{leg("up.0"), leg("up1")}
		if i%2 == 0 {
			legs = legs[:1]
		}
		ops := n.target.count()
		n.UpdateRoutes(tableOf(legs...))
		n.eventually(func() error {
			if got, _ := n.Installed(first); len(got) != len(legs) {
				return fmt.Errorf("over %v", got)
			}
			return nil
		})
		b.ReportMetric(float64(n.target.count()-ops), "operations")
	}
}

// A leg fails: from the call to its return, 100,000 routes in the kernel.
func BenchmarkSetFailed(b *testing.B) {
	n := fullTable(b)
	for b.Loop() {
		n.SetFailed([]dataplane.NextHop{leg("up1")})
		b.StopTimer()
		n.SetFailed(nil)
		n.eventuallyForwards(first, leg("up.0"), leg("up1"))
		b.StartTimer()
	}
}

// A leg fails while 100,000 routes are being changed.
func BenchmarkSetFailedWhileBusy(b *testing.B) {
	n := fullTable(b)
	updates := tableOf(leg("up.0"), leg("up1"))
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		for u := range updates {
			updates[u].Source = []netip.Addr{{}, self4.Addr()}[i%2]
		}
		before := n.target.count()
		n.UpdateRoutes(updates)
		for n.target.count() < before+5000 {
			time.Sleep(time.Millisecond)
		}
		b.StartTimer()
		n.SetFailed([]dataplane.NextHop{leg("up1")})
		b.StopTimer()
		n.SetFailed(nil)
		n.settled(table)
		n.eventuallyForwards(first, leg("up.0"), leg("up1"))
		b.StartTimer()
	}
}

// The kernel is looked at with 100,000 routes in it, and nothing has changed.
func BenchmarkDump(b *testing.B) {
	n := fullTable(b)
	for b.Loop() {
		n.dump()
	}
}
