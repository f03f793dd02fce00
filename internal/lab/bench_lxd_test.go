package lab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"frond/internal/status"
)

// pingAnswer is when ping -D heard an answer, in seconds since 1970.
var pingAnswer = regexp.MustCompile(`(?m)^\[(\d+\.\d+)\] \d+ bytes from `)

// BenchmarkHypervisorMove stops an instance, moves it to another member of the
// cluster and starts it there: how long after it has its address it answers a
// guest on a third node. ms-moved is all of stop, move and start.
func BenchmarkHypervisorMove(b *testing.B) {
	w := hypervisors(b, "lxdbench")
	i, err := w.Launch(b.Context(), "c1", "leaf1")
	must(b, err)
	g := w.ask("leaf3")
	// Its kernel would ask for a neighbour that it has lost once a second.
	_, err = w.shell(g.Name, "ip neigh replace "+i.Address.String()+" lladdr "+i.MAC+" dev eth0 nud permanent")
	must(b, err)
	to := map[string]string{"leaf1": "leaf2", "leaf2": "leaf1"}
	var reached, moved, rounds float64
	for b.Loop() {
		at := to[i.Node]
		begun := time.Now()
		w.lxc("stop -f c1")
		w.lxc("move c1 --target " + at)
		answers := w.pinging(g.Name, i.Address.String())
		w.lxc("start c1")
		started := time.Now()
		i, err = w.Addressed(b.Context(), "c1")
		must(b, err)
		first := answers()
		up := w.upSince("c1")
		reached += first.Sub(up).Seconds() * 1000
		moved += started.Sub(begun).Seconds() * 1000
		rounds++
	}
	b.ReportMetric(reached/rounds, "ms-reached")
	b.ReportMetric(moved/rounds, "ms-moved")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkHypervisorWatch is what it costs an agent to watch a member of a cluster
// with 200 instances, beyond what it needs without a hypervisor: while nothing
// happens, and while an instance is changed every other second. Here is the agent on
// the member itself, elsewhere the one on another, which asks for all names anew.
func BenchmarkHypervisorWatch(b *testing.B) {
	w := hypervisors(b, "lxdbench")
	w.manyInstances(200, "leaf1")
	watched, err := os.ReadFile(w.Document())
	must(b, err)
	agents := make(map[string]int)
	for _, node := range []string{"leaf1", "leaf2"} {
		agents[node], _ = w.AgentPID(node)
	}
	const span = 15 * time.Second
	spend := func(document string, contact string, change bool) (used map[string]float64) {
		w.reload(document)
		for node := range agents {
			w.hypervisor(node, "is "+contact, func(h status.Hypervisor) bool { return h.Contact == contact })
		}
		time.Sleep(2 * time.Second) // what a reload sets off is over
		before, begun := w.cpu(b, agents), time.Now()
		for n := 0; change && time.Since(begun) < span; n++ {
			w.lxc(fmt.Sprintf("config set many%d user.changed=%d", n, n))
			time.Sleep(time.Until(begun.Add(time.Duration(n+1) * 2 * time.Second)))
		}
		time.Sleep(time.Until(begun.Add(span)))
		used = w.cpu(b, agents)
		for node := range used {
			used[node] = 100 * (used[node] - before[node]) / time.Since(begun).Seconds()
		}
		return used
	}
	var idle, busy = make(map[string][]float64), make(map[string][]float64)
	for range 2 {
		without := spend(string(watched)+"guests: {lxd: off}\n", "off", true)
		quiet := spend(string(watched), "connected", false)
		changing := spend(string(watched), "connected", true)
		for node := range agents {
			idle[node] = append(idle[node], quiet[node]-without[node])
			busy[node] = append(busy[node], changing[node]-without[node])
		}
	}
	for node, where := range map[string]string{"leaf1": "here", "leaf2": "elsewhere"} {
		b.ReportMetric((idle[node][0]+idle[node][1])/2, "%core-idle-"+where)
		b.ReportMetric((busy[node][0]+busy[node][1])/2, "%core-changing-"+where)
	}
	b.ReportMetric(0, "ns/op")
}

// manyInstances makes so many instances on a node that do not run.
func (w *world) manyInstances(n int, node string) {
	var making errgroup.Group
	making.SetLimit(4)
	for i := range n {
		making.Go(func() error {
			_, err := w.LXC(w.t.Context(), node, "init", ImageAlias, fmt.Sprintf("many%d", i), "--target", node, "--quiet")
			return err
		})
	}
	must(w.t, making.Wait())
}

// pinging has a guest ping an address 200 times a second; what it returns ends
// that a second later, and tells when the first answer came.
func (w *world) pinging(guest, address string) func() time.Time {
	w.t.Helper()
	ns, err := w.Host(guest)
	must(w.t, err)
	var out bytes.Buffer
	ping := exec.CommandContext(w.t.Context(), "ping", "-n", "-D", "-i", "0.005", address)
	ping.Stdout = &out
	must(w.t, ns.Start(ping))
	return func() time.Time {
		w.t.Helper()
		time.Sleep(time.Second)
		must(w.t, ping.Process.Signal(os.Interrupt))
		_ = ping.Wait() // some have been lost
		must(w.t, ns.Close())
		m := pingAnswer.FindStringSubmatch(out.String())
		if m == nil {
			w.t.Fatalf("%s gets no answer of %s:\n%s", guest, address, out.String())
		}
		seconds, err := strconv.ParseFloat(m[1], 64)
		must(w.t, err)
		return time.UnixMicro(int64(seconds * 1e6))
	}
}

// upSince is when an instance first had its address.
func (w *world) upSince(name string) time.Time {
	w.t.Helper()
	out, err := w.LXC(w.t.Context(), "leaf1", "exec", name, "--", "cat", "/run/up")
	must(w.t, err)
	uptime := func(text string) time.Duration {
		seconds, err := strconv.ParseFloat(strings.Fields(text)[0], 64)
		must(w.t, err)
		return time.Duration(seconds * float64(time.Second))
	}
	now, err := os.ReadFile("/proc/uptime")
	must(w.t, err)
	return time.Now().Add(uptime(out) - uptime(string(now)))
}
