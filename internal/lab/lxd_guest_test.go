package lab

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"frond/internal/api"
	"frond/internal/netns"
	"frond/internal/probe"
	"frond/internal/status"
)

// holds has a guest beside an instance use that one's MAC while it is stopped, long
// enough for the guard to take it for the guest's, and go on with that. When the
// instance starts, it is the instance's.
func (w *world) holds(i Instance) {
	i, err := w.Instance(w.t.Context(), i.Name) // it may have moved
	must(w.t, err)
	mac, err := net.ParseMAC(i.MAC)
	must(w.t, err)
	thief, victim := w.ask(i.Node), w.ask(w.elsewhere(i.Node))
	a := w.attacker(thief.Name)
	socket := w.packetSocket(victim.Name, unix.ETH_P_ALL)
	stolen := func(word string) []byte {
		return append(ethernet(broadcast, mac, experiment), fmt.Sprintf("%-46s", word)...)
	}
	reaches := func(word string) bool {
		return a.reaches(socket, stolen(word), func(heard []byte) bool { return bytes.HasPrefix(heard, stolen(word)) })
	}
	w.lxc("stop -f " + i.Name)
	w.station(i.Node, i.MAC, "is gone", gone)
	for limit := time.Now().Add(20 * time.Second); !reaches("free"); {
		if time.Now().After(limit) {
			w.t.Fatal("a MAC that is nobody's cannot be used")
		}
	}
	w.shows(i.Node, "nft list set netdev frond-guard places", place("v"+thief.Name, i.MAC))
	rest := a.insists(stolen("meanwhile"))
	w.lxc("start " + i.Name)
	again, err := w.Addressed(w.t.Context(), i.Name)
	rest()
	must(w.t, err)
	if again.Address != i.Address {
		w.t.Errorf("it had %s and has %s", i.Address, again.Address)
	}
	if reaches("taken") {
		w.t.Error("the MAC of an instance can be used by another guest")
	}
	m := w.station(i.Node, i.MAC, "is here", func(m status.MAC) bool { return m.Local && m.Port != "v"+thief.Name })
	w.shows(i.Node, "nft list set netdev frond-guard places", place(m.Port, i.MAC))
	guarded, err := api.NewClient(w.Socket(i.Node)).Guard(w.t.Context())
	must(w.t, err)
	for _, d := range guarded.Drops {
		if d.Port == m.Port && d.Packets > 0 {
			w.t.Errorf("%d packets of the instance were dropped: rule %s", d.Packets, d.Rule)
		}
	}
	for _, g := range []Guest{thief, victim} {
		must(w.t, w.RemoveGuest(w.t.Context(), g.Name))
	}
}

// insists sends a frame fifty times a second, until what it returns is called.
func (a *attacker) insists(frame []byte) (rest func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	again := time.NewTicker(20 * time.Millisecond)
	go func() {
		defer close(ended)
		defer again.Stop()
		for {
			select {
			case <-end:
				return
			case <-again.C:
				_ = unix.Sendto(a.socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: guestIndex})
			}
		}
	}()
	return func() { close(end); <-ended }
}

// place is the guard's word on where a MAC is.
func place(port, mac string) string { return `"` + port + `" . ` + mac }

// carries has TCP run from one instance to another, in their own network namespaces.
func (w *world) carries(from, to string) {
	carried, err := probe.Bandwidth(w.t.Context(), w.instanceHost(from), w.instanceHost(to), 1, 300*time.Millisecond)
	must(w.t, err)
	if carried.Bytes < 1<<20 {
		w.t.Errorf("%s to %s: %d bytes", from, to, carried.Bytes)
	}
}

// instanceHost is an instance as a host of probes.
func (w *world) instanceHost(name string) probe.Host {
	w.t.Helper()
	i, err := w.Instance(w.t.Context(), name)
	must(w.t, err)
	out, err := w.LXC(w.t.Context(), "leaf1", "query", "/1.0/instances/"+name+"/state")
	must(w.t, err)
	var state struct{ PID int }
	must(w.t, json.Unmarshal([]byte(out), &state))
	machine, err := w.lxdMachine(i.Node)
	must(w.t, err)
	// The number is one of the node's own machine, and so is its /proc.
	inside := fmt.Sprintf("/proc/%d/root/proc/%d/ns/net", machine, state.PID)
	called := w.Name + "." + name
	must(w.t, os.WriteFile(filepath.Join(netns.Dir, called), nil, 0o444))
	w.t.Cleanup(func() { must(w.t, netns.Delete(called)) })
	must(w.t, unix.Mount(inside, netns.Path(called), "none", unix.MS_BIND, ""))
	ns, err := netns.Open(called)
	must(w.t, err)
	w.t.Cleanup(func() { must(w.t, ns.Close()) })
	return probe.Host{Name: name, NS: ns, Addr: i.Address}
}

// BenchmarkHypervisorBandwidth is TCP between instances of two nodes as a part of
// that between two guests of the lab on the same nodes, in turns.
func BenchmarkHypervisorBandwidth(b *testing.B) {
	w := hypervisors(b, "lxdbench")
	var instances, guests [2]probe.Host
	for n, node := range []string{"leaf1", "leaf2"} {
		i, err := w.Launch(b.Context(), fmt.Sprintf("c%d", n+1), node)
		must(b, err)
		instances[n], guests[n] = w.instanceHost(i.Name), w.guestHosts(w.ask(node).Name)[0]
	}
	for _, streams := range []int{1, 32} {
		b.Run(fmt.Sprintf("%d streams", streams), func(b *testing.B) {
			var ratio, gigabits []float64
			for turn := range 11 {
				var rates [2]float64
				for i := range rates {
					i = (i + turn) % 2
					pair := [][2]probe.Host{instances, guests}[i]
					carried, err := probe.Bandwidth(b.Context(), pair[0], pair[1], streams, time.Second)
					must(b, err)
					rates[i] = carried.BitsPerSecond()
				}
				ratio = append(ratio, rates[0]/rates[1])
				gigabits = append(gigabits, rates[0]/1e9)
			}
			b.ReportMetric(median(ratio), "instances/guests")
			b.ReportMetric(median(gigabits), "Gbit/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}
