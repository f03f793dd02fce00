package lab

import (
	"testing"
	"time"

	"frond/internal/status"
)

// BenchmarkExit is the outage of a guest's traffic to the internet and back
// when one of two exits loses its uplink: its carrier, or packets alone. Of
// the flows, those that went by the other exit notice nothing; the worst counts.
func BenchmarkExit(b *testing.B) {
	w := outward(b, "bench", 2)
	w.whole()
	uplink := []End{end("edge1"), end(Internet)}
	both := func() {
		w.eventually("edge1", "healthy", healthy)
		w.leavesBy("g1", FarAway()[0], edge1, edge2)
	}
	measure := func(b *testing.B, fail func() error) {
		both()
		var outage, lost []float64
		for range 20 {
			stop := w.echoes("g1")
			time.Sleep(200 * time.Millisecond)
			must(b, fail())
			w.eventually("edge1", "a dead uplink", func(s status.Snapshot) bool { return hasCondition(s, "uplink-down") })
			outage = append(outage, milliseconds(stop().Worst().Outage))
			back := w.echoes("g1")
			must(b, w.Mend(uplink[0], uplink[1]))
			both()
			lost = append(lost, float64(back().Lost()))
		}
		report(b, "ms-outage", outage)
		report(b, "lost-returning", lost)
	}
	b.Run("cut", func(b *testing.B) { measure(b, func() error { return w.Cut(uplink[0], uplink[1]) }) })
	b.Run("muted", func(b *testing.B) { measure(b, func() error { return w.Mute(uplink[0], uplink[1], false) }) })
}
