package lab

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// manyElected is a document with n segments on all leafs, each with an elected
// gateway.
func manyElected(n int) func(string) string {
	return func(document string) string {
		document, _, _ = strings.Cut(document, "segments:")
		var b strings.Builder
		b.WriteString(document + "segments:\n")
		for i := range n {
			fmt.Fprintf(&b, "  s%d: {vni: %d, nodes: [\"leaf*\"], prefix: 172.%d.%d.0/24, gateway: {address: 172.%d.%d.1, mode: elected}}\n",
				i, 1000+i, 16+i/256, i%256, 16+i/256, i%256)
		}
		return b.String()
	}
}

// leasedBy are the gateways that each node's kernel has.
func (w *world) leasedBy(nodes []string) map[string][]string {
	w.t.Helper()
	all := make(map[string][]string)
	for _, node := range nodes {
		nl, err := handleIn(w.namespace(node))
		must(w.t, err)
		addresses, err := nl.AddrList(nil, netlink.FAMILY_V4)
		nl.Close()
		if err != nil {
			continue // interrupted by a change
		}
		for _, a := range addresses {
			if a.ValidLft > 0 && a.IP.To4() != nil && a.IP.To4()[0] == 172 && a.ValidLft < 10 {
				all[node] = append(all[node], a.IP.String())
			}
		}
		slices.Sort(all[node])
	}
	return all
}

func sum(of map[string][]string) (n int) {
	for _, addresses := range of {
		n += len(addresses)
	}
	return n
}

// BenchmarkElectedMany is how evenly 500 elected gateways spread over five
// nodes, and how long those of a node that dies are nowhere.
func BenchmarkElectedMany(b *testing.B) {
	const segments, nodes = 500, 5
	w := populate(b, "bench", SpineLeaf(1, nodes), 0, manyElected(segments))
	var leafs []string
	for _, n := range w.Topology.Nodes[1:] {
		leafs = append(leafs, n.Name)
	}
	all := func(of []string) map[string][]string {
		limit := time.Now().Add(3 * time.Minute)
		for time.Now().Before(limit) {
			if have := w.leasedBy(of); sum(have) == segments {
				return have
			}
			time.Sleep(5 * time.Millisecond)
		}
		b.Fatalf("%d of %d gateways are somewhere", sum(w.leasedBy(of)), segments)
		return nil
	}
	all(leafs)
	time.Sleep(10 * time.Second) // for what evens out
	before := all(leafs)
	fewest, most := segments, 0
	for _, leaf := range leafs {
		fewest, most = min(fewest, len(before[leaf])), max(most, len(before[leaf]))
	}
	const even = segments / nodes
	b.ReportMetric(100*float64(fewest-even)/even, "%-fewest")
	b.ReportMetric(100*float64(most-even)/even, "%-most")

	var elsewhere []float64
	victim := leafs[len(leafs)-1]
	others := leafs[:len(leafs)-1]
	start := time.Now()
	must(b, w.Kill(b.Context(), victim))
	after := all(others)
	elsewhere = append(elsewhere, time.Since(start).Seconds())
	for _, leaf := range others {
		for _, address := range before[leaf] {
			if !slices.Contains(after[leaf], address) {
				b.Errorf("%s was on %s, which lives, and is no more", address, leaf)
			}
		}
	}
	report(b, "s-elsewhere", elsewhere)
	b.ReportMetric(float64(len(before[victim])), "moved")
}
