package lab

import (
	"strings"
	"testing"

	"frond/internal/status"
)

// TestLoopedPorts cables two ports of one bridge together.
func TestLoopedPorts(t *testing.T) {
	w := populate(t, "loop", SpineLeaf(2, 3), 6) // g1 and g4 on leaf1, g2 and g5 on leaf2, g3 and g6 on leaf3
	w.whole()
	t.Run("a cable between two ports", func(t *testing.T) {
		w := w.in(t)
		w.loop("leaf1")
		// With the cable still in it, the segment works for everybody.
		w.whole()
		w.nothingLost(w.guestTraffic("g2", "g1")())
		for _, node := range []string{"leaf1", "leaf2", "leaf3"} {
			w.eventually(node, "all sessions, undisturbed", func(s status.Snapshot) bool {
				for _, p := range s.Peers {
					if p.State != "established" || p.Flaps > 0 {
						return false
					}
				}
				return len(s.Peers) == 2
			})
		}
		w.inside("leaf1", "ip link del loop0")
		w.trouble("leaf1", false, "loops to port")
		w.whole()
	})
	t.Run("a cable that is pulled", func(t *testing.T) {
		w := w.in(t)
		blocked, other := w.loop("leaf1")
		w.inside("leaf1", "ip link set "+other+" nomaster")
		w.trouble("leaf1", false, "loops to port")
		if ports := w.blocked("leaf1"); len(ports) > 0 {
			t.Errorf("%s: still blocked are %v", blocked, ports)
		}
		w.inside("leaf1", "ip link del loop0")
		w.whole()
	})
	t.Run("an agent that restarts", func(t *testing.T) {
		w := w.in(t)
		_, other := w.loop("leaf1")
		must(t, w.Kill(t.Context(), "leaf1"))
		w.whole() // the kernel goes on without the agent
		must(t, w.Start("leaf1"))
		w.trouble("leaf1", true, "loops to port loop")
		must(t, w.Kill(t.Context(), "leaf1"))
		w.inside("leaf1", "ip link set "+other+" nomaster")
		must(t, w.Start("leaf1"))
		w.eventually("leaf1", "no port blocked", func(s status.Snapshot) bool { return s.Ready && len(w.blocked("leaf1")) == 0 })
		w.inside("leaf1", "ip link del loop0")
		w.trouble("leaf1", false, "loops to port")
		w.whole()
	})
	// What the agent took to be so in the storm must not outlive it.
	t.Run("an agent that ends in the storm", func(t *testing.T) {
		w := w.in(t)
		w.cable("leaf1")
		g, err := w.NextGuest("blue", "leaf1")
		must(t, err)
		must(t, w.AddGuest(t.Context(), g)) // its first frame ever goes around
		must(t, w.announce(g))
		w.mac("leaf1", g.Name, "known", func(m status.MAC) bool { return m.Local })
		must(t, w.Kill(t.Context(), "leaf1"))
		w.inside("leaf1", "ip link del loop0")
		w.whole()
		must(t, w.Start("leaf1"))
		w.trouble("leaf1", false, "loops to port")
		w.whole()
	})
}

// cable puts a cable between two ports of a node's bridge.
func (w *world) cable(node string) {
	w.t.Helper()
	w.inside(node, "ip link add loop0 type veth peer name loop1")
	for _, port := range []string{"loop0", "loop1"} {
		w.inside(node, "ip link set "+port+" master br-blue up")
	}
}

// loop cables two ports of a node's bridge together, and waits until one of
// them is blocked. It returns that one, and the other.
func (w *world) loop(node string) (blocked, other string) {
	w.t.Helper()
	w.cable(node)
	g1, err := w.Guest("g1")
	must(w.t, err)
	must(w.t, w.announce(g1)) // a broadcast, for ever
	w.trouble(node, true, "loops to port loop", "taken out of br-blue")
	switch ports := w.blocked(node); strings.Join(ports, " ") {
	case "loop0":
		return "loop0", "loop1"
	case "loop1":
		return "loop1", "loop0"
	default:
		w.t.Fatalf("blocked are %v", ports)
		return "", ""
	}
}

// blocked are the ports that a node's bridges do not forward by.
func (w *world) blocked(node string) []string {
	w.t.Helper()
	var ports []string
	for line := range strings.Lines(w.inside(node, "bridge link show")) {
		if strings.Contains(line, "state disabled") {
			name, _, _ := strings.Cut(strings.Fields(line)[1], "@")
			ports = append(ports, strings.TrimSuffix(name, ":"))
		}
	}
	return ports
}
