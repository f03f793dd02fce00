package lab

import (
	"os"
	"strings"
	"testing"

	"frond/internal/api"
	"frond/internal/status"
)

// TestNodeIsRenamed changes a node's loopback, and then its AS, under the
// running agents: its guests are found under the new VTEP, by the same devices.
func TestNodeIsRenamed(t *testing.T) {
	w := populate(t, "rename", SpineLeaf(1, 3), 3)
	w.whole()
	devices := w.bridgeIndexes("leaf1")
	before := w.node("leaf1")
	for _, line := range []string{"loopback: 10.0.200.99", "loopback: 10.0.200.99, asn: 4200000099"} {
		good, err := os.ReadFile(w.Document())
		must(t, err)
		old := "leaf1: {loopback: " + w.node("leaf1").Loopback.String()
		document := strings.Replace(string(good), old, "leaf1: {"+line, 1)
		if document == string(good) {
			t.Fatalf("the document has no line %q:\n%s", old, good)
		}
		must(t, os.WriteFile(w.Document(), []byte(document), 0o644))
		for _, n := range w.Topology.Nodes {
			must(t, api.NewClient(w.Socket(n.Name)).Reload(t.Context()))
		}
		w.whole()
		for _, node := range []string{"leaf1", "leaf2", "leaf3"} {
			w.knows(node, "g1", "leaf1")
		}
		w.evpnRoutes("leaf2", "nothing of leaf1's former name", func(routes []status.EVPNRoute) bool {
			for _, r := range routes {
				if r.VTEP == before.Loopback.String() || strings.HasPrefix(r.RD, before.Loopback.String()+":") {
					return false
				}
			}
			return len(routes) > 0
		})
		w.eventually("leaf1", "nothing to be wrong", func(s status.Snapshot) bool { return s.Ready && len(s.Conditions) == 0 })
	}
	if now := w.bridgeIndexes("leaf1"); now != devices {
		t.Errorf("devices were made anew: %s, were %s", now, devices)
	}
}
