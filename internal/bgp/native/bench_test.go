package native

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	seam "frond/internal/bgp"
)

// BenchmarkTransit carries prefixes from one speaker through a second to a
// third, each a process in its namespace, and reports the time until the
// last has all, and the CPU seconds and memory that the middle one used.
func BenchmarkTransit(b *testing.B) {
	for _, count := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			for range b.N {
				transit(b, count)
			}
		})
	}
}

func transit(b *testing.B, count int) {
	left, middle, right := namespace(b, "left"), namespace(b, "middle"), namespace(b, "right")
	ofMiddle, ofLeft := cable(b, left, middle, "eth1")
	ofRight, ofMiddle2 := cable(b, middle, right, "eth2")
	full := desired(1, ofMiddle)
	for i := range count {
		addr := netip.AddrFrom4([4]byte{20, byte(i >> 16), byte(i >> 8), byte(i)})
		full.Routes = append(full.Routes, seam.Route{Prefix: netip.PrefixFrom(addr, 32)})
	}
	x := startSpeaker(b, left, desired(1, ofMiddle))
	y := startSpeaker(b, middle, desired(2, ofLeft, ofRight))
	z := startSpeaker(b, right, desired(3, ofMiddle2))
	z.reaches("10.0.0.1/32", 1)
	start := time.Now()
	x.set(full)
	z.eventually("all prefixes", func() bool { return len(z.paths) >= count+6 })
	b.ReportMetric(time.Since(start).Seconds(), "s/announce")
	x.set(desired(1, ofMiddle))
	start = time.Now()
	last := full.Routes[count-1].Prefix.String()
	z.reaches(last, 0)
	z.eventually("all withdrawn", func() bool { return z.withdrawn >= count })
	b.ReportMetric(time.Since(start).Seconds(), "s/withdraw")
	cpu, rss := y.usage()
	b.ReportMetric(cpu, "cpu-s/middle")
	b.ReportMetric(rss, "MiB/middle")
}
