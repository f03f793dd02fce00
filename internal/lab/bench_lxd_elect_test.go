package lab

import (
	"testing"
	"time"

	"frond/internal/api"
)

// elected waits until the agent of a node other than that one takes itself for
// the database's leader, and tells when.
func (w *world) elected(but string) time.Time {
	w.t.Helper()
	for limit := time.Now().Add(40 * time.Second); time.Now().Before(limit); time.Sleep(5 * time.Millisecond) {
		for _, node := range w.LXDNodes() {
			if node == but {
				continue
			}
			if all, err := api.NewClient(w.Socket(node)).Gateways(w.t.Context()); err == nil && len(all) == 1 && all[0].Next == node {
				return time.Now()
			}
		}
	}
	w.t.Fatalf("no other member than that of %s leads", but)
	return time.Time{}
}

// BenchmarkElectedByLXD is the outage between guests and a spine, the longest of
// one of each other node, when the node of the database's leader fails, or what
// decides there, and how much of it the database takes to elect its next leader.
func BenchmarkElectedByLXD(b *testing.B) {
	w := votingWorld(b, "bench", 3, 6)
	holder := w.watchHolders(electedAddress)
	for _, f := range votingFaults {
		b.Run(f.name, func(b *testing.B) {
			w := w.in(b)
			var outages, elections, rest []float64
			for range 5 {
				before := w.settled()
				guests := w.guestsBesides(before)
				w.reachOut(guests)
				stop := w.throughGateways(guests, 1, 500) // LXD's members are on the same processors
				time.Sleep(200 * time.Millisecond)
				start := time.Now()
				f.do(w, before)
				election := w.elected(before).Sub(start)
				holder.one(b, 40*time.Second, before)
				time.Sleep(700 * time.Millisecond)
				outage := stop()
				outages = append(outages, milliseconds(outage))
				elections = append(elections, milliseconds(election))
				rest = append(rest, milliseconds(max(0, outage-election)))
				f.undo(w, before)
			}
			report(b, "ms-outage", outages)
			report(b, "ms-election", elections)
			report(b, "ms-longer", rest)
			holder.never(b)
		})
	}
	b.Logf("%d hand-overs, %d looks", holder.handovers(), holder.looks)
}

// BenchmarkElectedByLXDCost is what it costs to ask the database all the time:
// the processor time of the agents, of one second, of the leader's node and of
// another, and what an agent needs beside it where no LXD is.
func BenchmarkElectedByLXDCost(b *testing.B) {
	w := votingWorld(b, "bench", 3, 0)
	leader := w.settled()
	time.Sleep(10 * time.Second) // for what begins to be over
	agents := make(map[string]int)
	for name, node := range map[string]string{"leader": leader, "other": w.elsewhere(leader), "none": "spine1"} {
		pid, runs := w.AgentPID(node)
		if !runs {
			b.Fatalf("no agent runs on %s", node)
		}
		agents[name] = pid
	}
	before := w.cpu(b, agents)
	const seconds = 30
	time.Sleep(seconds * time.Second)
	for name, spent := range w.cpu(b, agents) {
		b.ReportMetric(100*(spent-before[name])/seconds, "%-"+name)
	}
	b.ReportMetric(0, "ns/op")
}
