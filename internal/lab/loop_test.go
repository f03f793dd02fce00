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
	for range 2 { // it is found again, too
		w.inside("leaf1", "ip link add loop0 type veth peer name loop1")
		for _, port := range []string{"loop0", "loop1"} {
			w.inside("leaf1", "ip link set "+port+" master br-blue up")
		}
		g1, err := w.Guest("g1")
		must(t, err)
		must(t, w.announce(g1)) // a broadcast, for ever
		w.trouble("leaf1", true, "loops to port loop", "taken out of br-blue")
		blocked := 0
		for _, line := range strings.Split(w.inside("leaf1", "bridge link show"), "\n") {
			if strings.Contains(line, "state disabled") {
				blocked++
			}
		}
		if blocked != 1 {
			t.Errorf("%d ports are blocked:\n%s", blocked, w.inside("leaf1", "bridge link show"))
		}
		// With the cable still in it, the segment works for everybody.
		w.whole()
		stop := w.guestTraffic("g2", "g1")
		w.nothingLost(stop())
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
	}
}
