package lab

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"frond/internal/api"
	"frond/internal/status"
)

// inside runs a command in the namespace of a node or a guest.
func (w *world) inside(host, line string) string {
	w.t.Helper()
	ns, err := w.Host(host)
	must(w.t, err)
	defer func() { must(w.t, ns.Close()) }()
	var out []byte
	err = ns.Do(func() (err error) {
		fields := strings.Fields(line)
		out, err = exec.Command(fields[0], fields[1:]...).CombinedOutput()
		return err
	})
	if err != nil {
		w.t.Fatalf("%s: %s: %v\n%s", host, line, err, out)
	}
	return string(out)
}

// bridgeIndexes are the numbers of a segment's devices on a node.
func (w *world) bridgeIndexes(node string) string {
	w.t.Helper()
	var indexes []string
	for _, device := range []string{"br-blue", "vx-blue"} {
		index, _, _ := strings.Cut(w.inside(node, "ip -o link show "+device), ":")
		indexes = append(indexes, device+" "+index)
	}
	return strings.Join(indexes, ", ")
}

// evpnRoutes waits until a node's EVPN routes are as they should be.
func (w *world) evpnRoutes(node, what string, ok func([]status.EVPNRoute) bool) {
	w.t.Helper()
	var last []status.EVPNRoute
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); time.Sleep(askInterval) {
		routes, err := api.NewClient(w.Socket(node)).EVPN(w.t.Context())
		if last = routes; err == nil && ok(routes) {
			return
		}
	}
	w.t.Fatalf("%s: never %s: %+v", node, what, last)
}

// mac waits until what a node knows of a guest's MAC is as it should be.
func (w *world) mac(node, guest, what string, ok func(status.MAC) bool) {
	w.t.Helper()
	g, err := w.Guest(guest)
	must(w.t, err)
	var last []status.MAC
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); time.Sleep(askInterval) {
		if last, err = api.NewClient(w.Socket(node)).MACs(w.t.Context(), g.Segment); err != nil {
			continue
		}
		for _, m := range last {
			if m.MAC == g.MAC && ok(m) {
				return
			}
		}
	}
	w.t.Fatalf("%s: %s is never %s: %+v", node, guest, what, last)
}

// trouble waits until a node's status names, or no longer names, something of
// the segment with these words in it.
func (w *world) trouble(node string, named bool, words ...string) {
	w.t.Helper()
	w.eventually(node, fmt.Sprintf("trouble with %q: %v", words, named), func(s status.Snapshot) bool {
		found := false
		for _, c := range s.Conditions {
			all := c.Subject == "blue"
			for _, word := range words {
				all = all && strings.Contains(c.Text, word)
			}
			found = found || all
		}
		return found == named
	})
}

// TestMACFlood has a guest send from 50,000 made-up MACs.
func TestMACFlood(t *testing.T) {
	const (
		sources = 50_000
		limit   = 1000 // MACs of a port, where the document does not say otherwise
		growth  = 32   // MiB that an agent may grow by
	)
	w := populate(t, "macflood", SpineLeaf(1, 2), 4) // g1 and g3 on leaf1, g2 and g4 on leaf2
	w.whole()
	before := make(map[string]float64)
	for _, node := range []string{"leaf1", "leaf2"} {
		pid, ok := w.AgentPID(node)
		if !ok {
			t.Fatalf("no agent on %s", node)
		}
		before[node] = residentMiB(t, pid)
	}
	stop := w.guestTraffic("g3", "g4")
	w.sendFromManyMACs("g1", sources)
	w.trouble("leaf1", true, "port vg1", fmt.Sprint(limit))
	w.nothingLost(stop())
	for node, start := range before {
		pid, _ := w.AgentPID(node)
		grown := residentMiB(t, pid) - start
		t.Logf("the agent of %s has grown by %.1f MiB", node, grown)
		if grown > growth {
			t.Errorf("the agent of %s has grown by %.1f MiB, from %.1f", node, grown, start)
		}
	}
	for _, segment := range w.segmentsOf("leaf2") {
		if segment.RemoteMACs > limit+1 {
			t.Errorf("leaf2 was told of %d MACs of leaf1", segment.RemoteMACs)
		}
	}
	w.whole() // the flooding guest too

	// What was made up ages, in the test because the table is flushed.
	w.inside("leaf1", "ip link set vg1 type bridge_slave fdb_flush")
	w.trouble("leaf1", false, "port vg1")
	w.whole()
}

func (w *world) segmentsOf(node string) []status.Segment {
	w.t.Helper()
	segments, err := api.NewClient(w.Socket(node)).Segments(w.t.Context())
	must(w.t, err)
	return segments
}

// sendFromManyMACs sends one frame from each of n MACs, to a MAC that no one has.
func (w *world) sendFromManyMACs(guest string, n int) {
	w.t.Helper()
	ns, err := w.Host(guest)
	must(w.t, err)
	defer func() { must(w.t, ns.Close()) }()
	must(w.t, ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		frame := make([]byte, 60)
		copy(frame, []byte{2, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0xaa, 0, 0, 0, 0, 0x88, 0xb5}) // an EtherType for experiments (IEEE 802 §9.2)
		for i := range n {
			frame[9], frame[10], frame[11] = byte(i>>16), byte(i>>8), byte(i)
			if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: guestIndex}); err != nil {
				return err
			}
		}
		return nil
	}))
}

// TestRestlessMAC has two guests with one MAC, which so moves between their
// nodes more often than a guest does.
func TestRestlessMAC(t *testing.T) {
	w := populate(t, "restless", SpineLeaf(1, 2), 3)
	w.whole()
	twin, err := w.NextGuest("", "leaf2")
	must(t, err)
	g1, err := w.Guest("g1")
	must(t, err)
	twin.MAC = g1.MAC
	must(t, w.AddGuest(t.Context(), twin))
	frozenOn := ""
	for i := 0; frozenOn == ""; i++ {
		if i == 200 {
			t.Fatal("moves for ever")
		}
		must(t, w.announce([]Guest{twin, g1}[i%2]))
		time.Sleep(askInterval)
		for _, node := range []string{"leaf1", "leaf2"} {
			macs, err := api.NewClient(w.Socket(node)).MACs(t.Context(), "blue")
			must(t, err)
			for _, m := range macs {
				if m.MAC == g1.MAC && m.Frozen != nil {
					frozenOn = node
				}
			}
		}
	}
	w.trouble(frozenOn, true, g1.MAC+" has moved more than 5 times")
	client := api.NewClient(w.Socket(frozenOn))
	must(t, client.Thaw(t.Context(), g1.MAC, "blue"))
	if err := client.Thaw(t.Context(), g1.MAC, "blue"); err == nil || !strings.Contains(err.Error(), "not frozen") {
		t.Errorf("thawed twice: %v", err)
	}
	w.mac(frozenOn, "g1", "thawed", func(m status.MAC) bool { return m.Frozen == nil })

	// With the twin gone, nothing holds it back but what the nodes have
	// frozen since, each for itself.
	must(t, w.RemoveGuest(t.Context(), twin.Name))
	for _, node := range []string{"leaf1", "leaf2"} {
		_ = api.NewClient(w.Socket(node)).Thaw(t.Context(), g1.MAC, "")
	}
	must(t, w.announce(g1))
	for _, node := range []string{"leaf1", "leaf2"} {
		w.knows(node, "g1", "leaf1")
		w.trouble(node, false, g1.MAC)
	}
	w.whole()
}

// TestStickyMAC has the operator pin a guest, and another one on another node
// take its MAC.
func TestStickyMAC(t *testing.T) {
	w := populate(t, "sticky", SpineLeaf(1, 2), 4) // g1 and g3 on leaf1, g2 and g4 on leaf2
	w.whole()
	g1, err := w.Guest("g1")
	must(t, err)
	w.inside("leaf1", "bridge fdb replace "+g1.MAC+" dev vg1 master static")
	for _, node := range []string{"leaf1", "leaf2"} {
		w.mac(node, "g1", "sticky", func(m status.MAC) bool { return m.Sticky })
	}
	thief, err := w.NextGuest("", "leaf2")
	must(t, err)
	thief.MAC = g1.MAC
	must(t, w.AddGuest(t.Context(), thief))
	must(t, w.announce(thief))
	w.trouble("leaf2", true, g1.MAC, "vg5", "never moves")
	w.knows("leaf1", "g1", "leaf1")
	w.knows("leaf2", "g1", "leaf1")
	w.inside("g2", "ping -c 3 -i 0.2 -W 2 "+g1.Address.Addr().String())

	w.inside("leaf1", "bridge fdb replace "+g1.MAC+" dev vg1 master dynamic")
	w.mac("leaf1", "g1", "free", func(m status.MAC) bool { return !m.Sticky })
	must(t, w.RemoveGuest(t.Context(), thief.Name))
	w.trouble("leaf2", false, g1.MAC)
	w.whole()
	must(t, w.MoveGuest(t.Context(), "g1", "leaf2", true))
	w.knows("leaf1", "g1", "leaf2")
	w.whole()
}
