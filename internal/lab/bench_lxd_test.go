package lab

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
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
