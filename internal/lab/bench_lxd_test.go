package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/websocket"

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

// BenchmarkHypervisorWatch is what it costs an agent to watch a hypervisor with 200
// instances, in a cluster that has 200 more, beyond what it needs without: while nothing happens, and while
// something happens to an instance every second, in turns to one here and to one on
// another member of the cluster, each of which is asked for by its name. The hypervisor is
// none: it only answers, as LXD 5.0.2 does.
func BenchmarkHypervisorWatch(b *testing.B) {
	w := populate(b, "bench", SpineLeaf(1, 2), 2)
	w.whole()
	plain, err := os.ReadFile(w.Document())
	must(b, err)
	socket := filepath.Join(b.TempDir(), "s")
	h := talkingHypervisor(b, socket, 200)
	pid, _ := w.AgentPID("leaf1")
	const span = 32 * time.Second // names are looked at within
	spend := func(guests, contact string, every time.Duration) float64 {
		w.reload(string(plain) + "guests: {lxd: " + guests + "}\n")
		w.hypervisor("leaf1", "is "+contact, func(h status.Hypervisor) bool { return h.Contact == contact })
		time.Sleep(2 * time.Second) // what a reload sets off is over
		before, begun := cpuSeconds(b, pid), time.Now()
		for n := 0; every > 0 && time.Since(begun) < span; n++ {
			h.tell(n)
			time.Sleep(time.Until(begun.Add(time.Duration(n+1) * every)))
		}
		time.Sleep(time.Until(begun.Add(span)))
		return 100 * (cpuSeconds(b, pid) - before) / time.Since(begun).Seconds()
	}
	without := spend("off", "off", 0)
	idle := spend(socket, "connected", 0)
	busy := spend(socket, "connected", time.Second)
	b.ReportMetric(without, "%core-without")
	b.ReportMetric(idle-without, "%core-idle")
	b.ReportMetric(busy-without, "%core-changing")
	b.ReportMetric(0, "ns/op")
}

// talker is a hypervisor that tells of stopped instances, and events when it is asked to.
type talker struct {
	mu     sync.Mutex
	each   int // here, and elsewhere
	events map[chan string]struct{}
}

// talkingHypervisor answers on a socket until the benchmark ends. Its instances are
// like one that a real LXD told of.
func talkingHypervisor(b *testing.B, socket string, each int) *talker {
	b.Helper()
	recorded, err := os.ReadFile("../guest/testdata/instances.json")
	must(b, err)
	var answer struct{ Metadata []map[string]any }
	must(b, json.Unmarshal(recorded, &answer))
	h := &talker{each: each, events: make(map[chan string]struct{})}
	var all []json.RawMessage
	var names []string
	for n := range 2 * each {
		i := answer.Metadata[0]
		i["name"], i["location"], i["status"] = fmt.Sprintf("c%d", n), []string{"leaf1", "leaf2"}[n/each], "Stopped"
		i["expanded_config"].(map[string]any)["volatile.eth0.hwaddr"] = fmt.Sprintf("00:16:3e:00:%02x:%02x", n>>8, n&0xff)
		text, err := json.Marshal(i)
		must(b, err)
		all = append(all, text)
		names = append(names, fmt.Sprintf("/1.0/instances/c%d?project=default", n))
	}
	say := func(metadata any) []byte {
		text, err := json.Marshal(map[string]any{"type": "sync", "metadata": metadata})
		must(b, err)
		return text
	}
	mux := http.NewServeMux()
	fixed := func(path string, text []byte) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(text) })
	}
	fixed("/1.0", say(map[string]any{"environment": map[string]any{"server": "lxd", "server_version": "5.0.2", "server_name": "leaf1", "server_clustered": true}}))
	for n, text := range all {
		fixed(fmt.Sprintf("/1.0/instances/c%d", n), say(text))
	}
	type question struct{ recursion, own bool }
	answers := map[question][]byte{
		{true, true}: say(all[:each]), {true, false}: say(all), {false, true}: say(names[:each]), {false, false}: say(names),
	}
	mux.HandleFunc("GET /1.0/instances", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(answers[question{r.URL.Query().Has("recursion"), r.UserAgent() == "lxd-cluster-notifier"}])
	})
	mux.Handle("GET /1.0/events", websocket.Handler(h.hear))
	l, err := net.Listen("unix", socket)
	must(b, err)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	b.Cleanup(func() { _ = server.Close(); <-done })
	return h
}

// hear sends events, and every ten seconds a sign of life, as LXD does.
func (h *talker) hear(ws *websocket.Conn) {
	events := make(chan string, 8)
	h.mu.Lock()
	h.events[events] = struct{}{}
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.events, events)
		h.mu.Unlock()
	}()
	life := time.NewTicker(10 * time.Second)
	defer life.Stop()
	for err := error(nil); err == nil; {
		select {
		case text := <-events:
			err = websocket.Message.Send(ws, text)
		case <-life.C:
			err = websocket.Message.Send(ws, `{"type":"logging"}`)
		}
	}
}

// tell says that something happened to an instance.
func (h *talker) tell(n int) {
	text := fmt.Sprintf(`{"type":"lifecycle","location":%q,"project":"default","metadata":{"action":"instance-updated","source":"/1.0/instances/c%d"}}`,
		[]string{"leaf1", "leaf2"}[n%2], n%2*h.each+n/2%h.each)
	h.mu.Lock()
	defer h.mu.Unlock()
	for events := range h.events {
		select {
		case events <- text:
		default: // it does not listen
		}
	}
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
