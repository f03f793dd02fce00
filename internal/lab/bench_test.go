package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"frond/internal/api"
)

// The benchmarks measure what users wait for and what they lose. Each repeats
// its event and reports the median and the worst; b.N does not matter.
// Outages are those of the worst of 8 flows of 1,000 packets/s each way.

func report(b *testing.B, unit string, values []float64) {
	b.Helper()
	slices.Sort(values)
	b.ReportMetric(values[len(values)/2], unit+"-median")
	b.ReportMetric(values[len(values)-1], unit+"-max")
	b.ReportMetric(0, "ns/op")
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// waitWhole waits until all routes are as the cabling says.
func (w *world) waitWhole() {
	w.t.Helper()
	wrong, err := w.AwaitRoutes(w.t.Context(), 30*time.Second)
	must(w.t, err)
	if len(wrong) > 0 {
		w.t.Fatal(strings.Join(wrong, "\n"))
	}
}

// BenchmarkStart is the time from the start of the first agent until every
// kernel has every next hop to every node.
func BenchmarkStart(b *testing.B) {
	for _, size := range [][2]int{{2, 3}, {4, 12}} {
		b.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(b *testing.B) {
			path, err := program()
			must(b, err)
			var seconds []float64
			for range 5 {
				topology := SpineLeaf(size[0], size[1])
				var started time.Time
				progress := func(step string, done, _ int) {
					if step == "starting agents" && done == 0 {
						started = time.Now()
					}
				}
				l, err := Up(b.Context(), Lab{Name: "bench", Topology: topology, Binary: path}, Source{Content: Document("bench", topology)}, progress)
				must(b, err)
				w := &world{l, b}
				w.waitWhole()
				seconds = append(seconds, time.Since(started).Seconds())
				_, err = Down(b.Context(), "bench")
				must(b, err)
			}
			report(b, "s", seconds)
		})
	}
}

// BenchmarkCut is the outage when one of two uplinks loses carrier, what is
// lost when it returns, and how long until ECMP is whole again.
func BenchmarkCut(b *testing.B) {
	w := bring(b, "bench", SpineLeaf(2, 3))
	w.whole()
	var outage, lost, whole []float64
	for range 20 {
		stop := w.traffic("leaf1", "leaf3")
		time.Sleep(200 * time.Millisecond)
		must(b, w.Cut(end("spine1"), end("leaf3")))
		w.waitWhole()
		outage = append(outage, milliseconds(stop().Worst().Outage))
		stop = w.traffic("leaf1", "leaf3")
		time.Sleep(200 * time.Millisecond)
		start := time.Now()
		must(b, w.Mend(end("spine1"), end("leaf3")))
		w.waitWhole()
		whole = append(whole, time.Since(start).Seconds())
		lost = append(lost, float64(stop().Lost()))
	}
	report(b, "ms-outage", outage)
	report(b, "lost-on-mend", lost)
	report(b, "s-whole-again", whole)
}

// BenchmarkMute is the outage when packets vanish on one of two uplinks while
// carrier stays, found by BFD at its default timers.
func BenchmarkMute(b *testing.B) {
	w := bring(b, "bench", SpineLeaf(2, 3))
	w.whole()
	var outage []float64
	for i := range 10 {
		stop := w.traffic("leaf1", "leaf3")
		time.Sleep(200 * time.Millisecond)
		must(b, w.Mute(end("spine1"), end("leaf3"), i%2 == 1))
		w.waitWhole()
		time.Sleep(500 * time.Millisecond)
		outage = append(outage, milliseconds(stop().Worst().Outage))
		must(b, w.Mend(end("spine1"), end("leaf3")))
		w.waitWhole()
	}
	report(b, "ms-outage", outage)
}

// BenchmarkAgent is what is lost while an agent is away, killed or stopped in
// order, and when it returns.
func BenchmarkAgent(b *testing.B) {
	for _, event := range []string{"kill spine1", "kill leaf3", "restart spine1", "restart leaf3"} {
		b.Run(event, func(b *testing.B) {
			w := bring(b, "bench", SpineLeaf(2, 3))
			w.whole()
			verb, node, _ := strings.Cut(event, " ")
			var lost []float64
			for range 5 {
				stop := w.traffic("leaf1", "leaf3")
				if verb == "kill" {
					must(b, w.Kill(b.Context(), node))
				} else {
					must(b, w.Stop(b.Context(), node))
				}
				time.Sleep(500 * time.Millisecond)
				must(b, w.Start(node))
				time.Sleep(2 * time.Second)
				w.waitWhole()
				lost = append(lost, float64(stop().Lost()))
			}
			report(b, "packets-lost", lost)
		})
	}
}

// BenchmarkIdle is what an agent and its BFD process cost while nothing
// happens, on a spine with three leafs, and all of a lab of 4 by 12.
func BenchmarkIdle(b *testing.B) {
	b.Run("spine of 2x3", func(b *testing.B) {
		w := bring(b, "bench", SpineLeaf(2, 3))
		w.whole()
		agent, ok := w.AgentPID("spine1")
		if !ok {
			b.Fatal("no agent")
		}
		const span = 20 * time.Second
		before := cpuSeconds(b, agent)
		time.Sleep(span)
		b.ReportMetric(100*(cpuSeconds(b, agent)-before)/span.Seconds(), "%-of-a-core")
		b.ReportMetric(residentMiB(b, agent), "MiB")
		b.ReportMetric(0, "ns/op")
	})
	b.Run("all of 4x12", func(b *testing.B) {
		w := bring(b, "bench", SpineLeaf(4, 12))
		w.whole()
		time.Sleep(5 * time.Second)
		var sum float64
		for _, n := range w.Topology.Nodes {
			inode, err := w.namespace(n.Name).Inode()
			must(b, err)
			for _, pid := range processesIn(map[uint64]bool{inode: true}) {
				sum += residentMiB(b, pid)
			}
		}
		b.ReportMetric(sum, "MiB")
		b.ReportMetric(0, "ns/op")
	})
}

// cpuSeconds is the processor time that a process has used (proc_pid_stat(5)).
func cpuSeconds(b *testing.B, pid int) float64 {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(b, err)
	fields := strings.Fields(string(data)[strings.LastIndex(string(data), ")")+1:])
	var ticks float64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseFloat(field, 64)
		must(b, err)
		ticks += n
	}
	const ticksPerSecond = 100
	return ticks / ticksPerSecond
}

// residentMiB is the memory that a process holds (VmRSS of proc_pid_status(5)).
func residentMiB(b testing.TB, pid int) float64 {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(b, err)
	for line := range strings.Lines(string(data)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	b.Fatalf("process %d has no VmRSS", pid)
	return 0
}

// BenchmarkGuestMove is the outage of a guest that is moved to another node
// with its MAC and address, seen from a third node: of one that announces
// itself, of one that just goes on sending, and of one that only answers.
// Each of a few guests moves less often than what counts as a duplicate
// (RFC 7432 §15.1).
func BenchmarkGuestMove(b *testing.B) {
	for _, behavior := range []string{"announced", "silent", "only answers"} {
		b.Run(behavior, func(b *testing.B) {
			waitForRTNL(b)
			w := populate(b, "bench", SpineLeaf(2, 3), 18)
			w.whole()
			var outage []float64
			for i := range 20 {
				guest := fmt.Sprintf("g%d", 1+i%5*3) // on leaf1 at first
				stop := w.outageOf(guest, behavior == "only answers")
				time.Sleep(200 * time.Millisecond)
				must(b, w.MoveGuest(b.Context(), guest, []string{"leaf3", "leaf1"}[i/5%2], behavior == "announced"))
				outage = append(outage, stop())
			}
			report(b, "ms-outage", outage)
		})
	}
}

// outageOf measures, in milliseconds, for how long a guest is not reached from
// g2: by traffic both ways, or if it only answers by the longest gap between
// its answers to 1,000 echo requests a second.
func (w *world) outageOf(guest string, onlyAnswers bool) func() float64 {
	w.t.Helper()
	if !onlyAnswers {
		stop := w.guestTraffic("g2", guest)
		return func() float64 { return milliseconds(stop().Worst().Outage) }
	}
	g, err := w.Guest(guest)
	must(w.t, err)
	from, err := w.Host("g2")
	must(w.t, err)
	var answers strings.Builder
	ping := exec.Command("ping", "-D", "-i", "0.001", "-w", "1", g.Address.Addr().String())
	ping.Stdout = &answers
	must(w.t, from.Start(ping))
	return func() float64 {
		defer func() { must(w.t, from.Close()) }()
		must(w.t, ping.Wait())
		var last, gap float64
		for line := range strings.Lines(answers.String()) {
			var at float64
			if n, _ := fmt.Sscanf(line, "[%f]", &at); n == 0 {
				continue
			}
			if last > 0 {
				gap = max(gap, at-last)
			}
			last = at
		}
		return 1000 * gap
	}
}

// BenchmarkManySegments is the time until 100 segments are ready on 3 leafs
// and know each other, what an agent holds then, and the time until a node
// that takes part in none of them any more has removed them.
func BenchmarkManySegments(b *testing.B) {
	path, err := program()
	must(b, err)
	topology := SpineLeaf(2, 3)
	without := Document("bench", topology)
	const segments = 100
	with := append(slices.Clone(without), "segments:\n"...)
	for i := range segments {
		with = fmt.Appendf(with, "  s%d: {vni: %d, nodes: [\"leaf*\"], prefix: 172.16.%d.0/24}\n", i, 1000+i, i)
	}
	var up, down, memory []float64
	for range 5 {
		waitForRTNL(b)
		var started time.Time
		progress := func(step string, done, _ int) {
			if step == "starting agents" && done == 0 {
				started = time.Now()
			}
		}
		l, err := Up(b.Context(), Lab{Name: "bench", Topology: topology, Binary: path}, Source{Content: with}, progress)
		must(b, err)
		w := &world{l, b}
		for _, leaf := range []string{"leaf1", "leaf2", "leaf3"} {
			w.segmentsReady(leaf, segments, 2)
		}
		up = append(up, time.Since(started).Seconds())
		pid, ok := w.AgentPID("leaf1")
		if !ok {
			b.Fatal("no agent")
		}
		memory = append(memory, residentMiB(b, pid))
		must(b, os.WriteFile(w.Document(), without, 0o644))
		started = time.Now()
		must(b, api.NewClient(w.Socket("leaf1")).Reload(b.Context()))
		w.noBridges("leaf1")
		down = append(down, time.Since(started).Seconds())
		_, err = Down(b.Context(), "bench")
		must(b, err)
	}
	report(b, "s-up", up)
	report(b, "s-removed", down)
	report(b, "MiB", memory)
}

// waitForRTNL waits until the kernel has taken down the namespaces of the lab
// before. It does so in the background and for each bridge takes some 20 ms
// in which nobody else can change a device.
func waitForRTNL(b *testing.B) {
	b.Helper()
	const quick, inARow = 5 * time.Millisecond, 50
	for calm := 0; calm < inARow; calm++ {
		time.Sleep(quick)
		asked := time.Now()
		_, err := netlink.LinkByName("lo")
		must(b, err)
		if time.Since(asked) > quick {
			calm = 0
		}
	}
}

// noBridges waits until a node has no bridge.
func (w *world) noBridges(node string) {
	w.t.Helper()
	ns, err := w.Namespace(node)
	must(w.t, err)
	defer func() { must(w.t, ns.Close()) }()
	for limit := time.Now().Add(30 * time.Second); ; time.Sleep(askInterval) {
		var links []netlink.Link
		err := ns.Do(func() (err error) { links, err = netlink.LinkList(); return err })
		if errors.Is(err, netlink.ErrDumpInterrupted) {
			continue // links came or went meanwhile
		}
		must(w.t, err)
		if !slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Type() == "bridge" }) {
			return
		}
		if time.Now().After(limit) {
			w.t.Fatalf("%s still has bridges", node)
		}
	}
}

// segmentsReady waits until a node has that many segments ready, each with
// that many other nodes in it.
func (w *world) segmentsReady(node string, count, vteps int) {
	w.t.Helper()
	limit := time.Now().Add(30 * time.Second)
	for {
		all, err := api.NewClient(w.Socket(node)).Segments(w.t.Context())
		ready := 0
		for _, s := range all {
			if s.Ready && s.Pending == 0 && len(s.VTEPs) == vteps {
				ready++
			}
		}
		if err == nil && ready == count {
			return
		}
		if time.Now().After(limit) {
			w.t.Fatalf("%s has %d of %d segments ready: %v", node, ready, count, err)
		}
		time.Sleep(askInterval)
	}
}
