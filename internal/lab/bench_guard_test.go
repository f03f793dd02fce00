package lab

import (
	"fmt"
	"os"
	"testing"
	"time"

	"frond/internal/probe"
)

// BenchmarkGuard is TCP between guests of two nodes, and of one, with the
// guard's rules for guests as a part of that without. One fabric is measured,
// with both in turn, and in each turn once more without: what that is of the first
// time says what the machine does to the figures.
func BenchmarkGuard(b *testing.B) {
	w := populate(b, "bench", SpineLeaf(1, 2), 4) // g1 and g3 on leaf1, g2 and g4 on leaf2
	w.whole()
	guarded, err := os.ReadFile(w.Document())
	must(b, err)
	open := string(guarded) + "guard: {guests: off}\n"
	documents := []string{string(guarded), open, open}
	for _, pair := range []struct{ name, from, to string }{{"two nodes", "g1", "g2"}, {"one node", "g1", "g3"}} {
		hosts := w.guestHosts(pair.from, pair.to)
		for _, streams := range []int{1, 32} {
			b.Run(fmt.Sprintf("%s/%d streams", pair.name, streams), func(b *testing.B) {
				w := w.in(b)
				var ratio, itself, gigabits []float64
				for turn := range 9 {
					var rates [3]float64
					for i := range documents {
						i = (i + turn) % len(documents)
						w.reload(documents[i])
						w.ruleset("leaf1", `"vg1" . `, i == 0) // its place
						w.ruleset("leaf2", `"vg2" . `, i == 0)
						time.Sleep(2 * time.Second) // what a reload sets off is over
						carried, err := probe.Bandwidth(b.Context(), hosts[0], hosts[1], streams, time.Second)
						must(b, err)
						rates[i] = carried.BitsPerSecond()
					}
					ratio = append(ratio, 2*rates[0]/(rates[1]+rates[2]))
					itself = append(itself, rates[2]/rates[1])
					gigabits = append(gigabits, rates[0]/1e9)
				}
				b.ReportMetric(median(ratio), "on/off")
				b.ReportMetric(median(itself), "off/off")
				b.ReportMetric(median(gigabits), "Gbit/s-on")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

func (w *world) guestHosts(names ...string) []probe.Host {
	w.t.Helper()
	var hosts []probe.Host
	for _, name := range names {
		g, err := w.Guest(name)
		must(w.t, err)
		hosts = append(hosts, rivals{world: w}.host(name, g.Address))
	}
	return hosts
}
