package lab

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"frond/internal/api"
	"frond/internal/status"
)

// reload puts a document into force on all nodes that run an agent.
func (w *world) reload(document string) {
	w.t.Helper()
	must(w.t, os.WriteFile(w.Document(), []byte(document), 0o644))
	for _, n := range w.Topology.Nodes {
		if _, runs := w.AgentPID(n.Name); runs {
			must(w.t, api.NewClient(w.Socket(n.Name)).Reload(w.t.Context()))
		}
	}
}

// conditions are the subjects of a node's conditions of one name, sorted.
func (w *world) conditions(node, name string) []string {
	w.t.Helper()
	var subjects []string
	for _, c := range w.snapshot(node).Conditions {
		if c.Name == name {
			subjects = append(subjects, c.Subject)
		}
	}
	slices.Sort(subjects)
	return subjects
}

// TestGuardRoutes has a hypervisor that was taken over, a real FRR, announce
// what is not its own.
func TestGuardRoutes(t *testing.T) {
	w := populate(t, "guardroutes", SpineLeaf(2, 3), 0, func(document string) string {
		return strings.Replace(document, "nodes: [leaf1, leaf2, leaf3]", "nodes: [leaf2, leaf3]", 1)
	})
	good, err := os.ReadFile(w.Document())
	must(t, err)
	if !strings.Contains(string(good), "nodes: [leaf2, leaf3]") {
		t.Fatalf("leaf1 takes part in the segment:\n%s", good)
	}
	w.whole()
	f := w.replaceByFRR("leaf1", false, false)
	w.whole()
	leaf1, leaf2 := w.node("leaf1"), w.node("leaf2")
	others := fmt.Sprintf("%s/32", leaf2.Loopback)
	forged := "203.0.113.0/24"
	attacks := []string{others, fmt.Sprintf("%s/31", leaf2.Loopback), "172.16.0.11/32", "172.16.0.0/25", "0.0.0.0/0", "10.0.0.0/16", forged}
	commands := []string{"-c", "configure terminal",
		"-c", "route-map forge permit 10", "-c", fmt.Sprintf("set as-path prepend 65530 %d", leaf2.ASN), "-c", "exit",
		"-c", fmt.Sprintf("router bgp %d", leaf1.ASN), "-c", "no bgp network import-check", "-c", "address-family ipv4 unicast"}
	for _, prefix := range attacks {
		command := "network " + prefix
		if prefix == forged {
			command += " route-map forge"
		}
		commands = append(commands, "-c", command)
	}
	f.vtysh(commands...)

	for _, spine := range []string{"spine1", "spine2"} {
		w.eventually(spine, "all attacks are named", func(s status.Snapshot) bool {
			for _, p := range s.Peers {
				if p.ASN == leaf1.ASN {
					return p.Refused >= uint64(len(attacks)) && p.State == "established"
				}
			}
			return false
		})
		if got := w.conditions(spine, "routes-refused"); len(got) != 1 {
			t.Errorf("%s: routes are refused on %v", spine, got)
		}
		if got := w.conditions(spine, "duplicate-origin"); !slices.Equal(got, []string{others}) {
			t.Errorf("%s: two origins of %v", spine, got)
		}
	}
	w.reaches("leaf3", others, 2)
	w.reaches("spine1", others, 1)
	for _, prefix := range attacks[1:] {
		w.reaches("spine1", prefix, 0)
		w.reaches("leaf3", prefix, 0)
	}

	// The same without the guard.
	w.reload(string(good) + "guard: {routes: off}\n")
	w.reaches("spine1", others, 2) // half of leaf2's packets go to leaf1
	for _, prefix := range attacks[1:] {
		w.reaches("leaf3", prefix, 2)
	}

	w.reload(string(good))
	w.reaches("spine1", others, 1)
	for _, prefix := range attacks[1:] {
		w.reaches("leaf3", prefix, 0)
	}
	for _, peer := range w.snapshot("spine1").Peers {
		if peer.State != "established" || peer.ASN != leaf1.ASN && peer.Flaps > 0 {
			t.Errorf("a session was lost: %+v", peer)
		}
	}
}
