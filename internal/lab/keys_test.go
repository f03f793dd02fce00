package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"frond/internal/api"
	"frond/internal/status"
)

// reloadOne has one node read the lab's document.
func (w *world) reloadOne(node string) {
	w.t.Helper()
	must(w.t, api.NewClient(w.Socket(node)).Reload(w.t.Context()))
}

// signed checks that no BGP connection of the fabric is without a signature,
// as the kernel has it, and counts how many have which key.
func (w *world) signed() map[string]int {
	w.t.Helper()
	count := make(map[string]int)
	for _, n := range w.Topology.Nodes {
		var out []byte
		must(w.t, w.namespace(n.Name).Do(func() (err error) {
			out, err = exec.Command("ss", "-H", "-t", "-i", "-O", "state", "established", "( sport = :179 or dport = :179 )").Output()
			return err
		}))
		if connections, signed := strings.Count(string(out), "\n"), strings.Count(string(out), "md5keys:"); signed < connections {
			w.t.Errorf("%s: %d of %d sessions have a signature:\n%s", n.Name, signed, connections, out)
		}
		for _, key := range []string{"correct-horse", "battery-staple"} {
			count[key] += strings.Count(string(out), key) // which ss prints before all lines
		}
	}
	return count
}

// again ends the session on leaf3's cable to a spine and waits for the next.
func (w *world) again(spine string) {
	w.t.Helper()
	a, b := End{Node: spine}, End{Node: "leaf3"}
	must(w.t, w.Cut(a, b))
	w.eventually(spine, "no session with leaf3", func(s status.Snapshot) bool { return peerOn(s, "eth3").State == "down" })
	must(w.t, w.Mend(a, b))
	w.eventually(spine, "a session with leaf3", func(s status.Snapshot) bool { return peerOn(s, "eth3").State == "established" })
}

// TestKeyRollOver changes the key of a whole fabric, node after node, under
// traffic. Sessions that begin meanwhile find a key that both ends have.
func TestKeyRollOver(t *testing.T) {
	w := bring(t, "rollover", SpineLeaf(2, 3), "password_file: bgp.key")
	w.whole()
	if got := w.signed(); got["correct-horse"] != 12 {
		t.Fatalf("sessions are signed with %v", got)
	}
	must(t, os.WriteFile(filepath.Join(w.Dir(), "new.key"), []byte("battery-staple\n"), 0o600))
	document, err := os.ReadFile(w.Document())
	must(t, err)
	stop := w.traffic("leaf1", "leaf2")
	for _, keys := range []string{"password_file: new.key\n  previous_password_file: bgp.key", "password_file: new.key"} {
		must(t, os.WriteFile(w.Document(), []byte(strings.Replace(string(document), "password_file: bgp.key", keys, 1)), 0o644))
		for _, node := range []string{"spine1", "leaf1", "leaf3", "spine2", "leaf2"} {
			w.reloadOne(node)
			w.again("spine1")
			w.again("spine2")
			w.signed()
		}
	}
	w.whole()
	w.nothingLost(stop())
	for _, n := range w.Topology.Nodes {
		for _, p := range w.snapshot(n.Name).Peers {
			if n.Name != "leaf3" && p.Name != "leaf3" && p.Flaps > 0 {
				t.Errorf("%s: the session with %s was lost", n.Name, p.Name)
			}
		}
	}
	if got := w.signed(); got["correct-horse"] != 8 || got["battery-staple"] != 4 {
		t.Errorf("sessions are signed with %v; want those that are older than the new key to have the old one", got)
	}
	w.nobodyTells("correct-horse")
	w.nobodyTells("battery-staple")
}

// TestWrongKey has a real FRR with the fabric's key of before, and one without
// a key, in a node's place.
func TestWrongKey(t *testing.T) {
	for name, key := range map[string]bool{"differs": true, "missing": false} {
		t.Run(name, func(t *testing.T) {
			w := bring(t, "wrongkey", SpineLeaf(1, 2), "password_file: bgp.key")
			w.whole()
			must(t, os.WriteFile(filepath.Join(w.Dir(), "bgp.key"), []byte("battery-staple\n"), 0o600))
			for _, node := range []string{"spine1", "leaf1", "leaf2"} {
				w.reloadOne(node) // in one step: all sessions end
			}
			w.whole()
			f := w.replaceByFRR("leaf2", key, false)
			w.eventually("spine1", "the key named", func(s status.Snapshot) bool {
				p := peerOn(s, "eth2")
				return p.Key == name && p.State != "established"
			})
			if got := w.conditions("spine1", "wrong-key"); !slices.Equal(got, []string{"eth2"}) {
				t.Errorf("a wrong key on %v", got)
			}
			if got := w.signed(); got["battery-staple"] != 2 || got["correct-horse"] != 0 {
				t.Errorf("sessions are signed with %v", got)
			}
			f.vtysh("-c", "configure terminal", "-c", fmt.Sprintf("router bgp %d", w.node("leaf2").ASN), "-c", "neighbor eth1 password battery-staple")
			w.eventually("spine1", "a session with the right key", func(s status.Snapshot) bool {
				p := peerOn(s, "eth2")
				return p.State == "established" && p.Key == ""
			})
		})
	}
}
