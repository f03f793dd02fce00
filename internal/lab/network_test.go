package lab

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"frond/internal/api"
	"frond/internal/netns"
	"frond/internal/pki"
	"frond/internal/status"
)

// verb runs frond on a node, with the lab's document and certificates.
func (w *world) verb(node string, words ...string) (string, error) {
	w.t.Helper()
	ns, err := w.Host(node)
	must(w.t, err)
	defer func(ns *netns.NS) { must(w.t, ns.Close()) }(ns)
	var out []byte
	var failed error
	must(w.t, ns.Do(func() error {
		cmd := exec.CommandContext(w.t.Context(), w.Binary, append(words, "--config", w.Document(), "--pki", w.PKI())...)
		out, failed = cmd.CombinedOutput()
		return nil
	}))
	return string(out), failed
}

// TestNetworkAPI asks agents from other nodes, over the fabric.
func TestNetworkAPI(t *testing.T) {
	w := bring(t, "netapi", SpineLeaf(2, 2))
	w.whole()
	_, err := pki.IssueOperator(w.PKI(), "alice", time.Now())
	must(t, err)

	for _, other := range []string{"leaf2", "spine1"} {
		out, err := w.verb("leaf1", "status", "--node", other, "--cert", "leaf1", "-o", "json")
		var s status.Snapshot
		if jsonErr := json.Unmarshal([]byte(out), &s); err != nil || jsonErr != nil || s.Node != other || !s.Ready {
			t.Errorf("%s as leaf1 sees it: %v\n%s", other, err, out)
		}
	}
	own := []string{"--socket", w.Socket("leaf1")}
	out, err := w.verb("leaf1", append(own, "trace", "leaf1", "leaf2")...)
	if err != nil || !strings.Contains(out, "spine1: by the route to") || !strings.Contains(out, "spine2: by the route to") || !strings.HasSuffix(out, "delivered\n") {
		t.Errorf("trace: %v\n%s", err, out)
	}
	must(t, w.Kill(t.Context(), "spine2"))
	if out, err := w.verb("leaf1", "status", "--node", "spine2", "--cert", "leaf1"); err == nil || !strings.Contains(out, "no agent answers on 10.0.254.2:7179 of spine2") {
		t.Errorf("an agent that does not run: %v\n%s", err, out)
	}

	for _, test := range []struct{ cert, want string }{
		{"leaf1", "frond: reload: the certificate of leaf1 may ask, not change: show an operator's"},
		{"alice", "the document is in force"},
		{"bob", "bob.crt is missing"},
	} {
		out, err := w.verb("leaf1", "reload", "--node", "leaf2", "--cert", test.cert)
		if (err == nil) != (test.cert == "alice") || !strings.Contains(out, test.want) {
			t.Errorf("reload as %s: %v\n%s", test.cert, err, out)
		}
	}
	log, err := os.ReadFile(w.Log("leaf2"))
	must(t, err)
	if !strings.Contains(string(log), `"request":"reload","by":"alice"`) {
		t.Error("leaf2's log does not say who had it reload")
	}
	for line := range strings.Lines(w.inside("leaf1", "ss -Htln sport = :7179")) {
		if n := w.node("leaf1"); !strings.Contains(line, n.Loopback.String()+":7179") && !strings.Contains(line, "["+n.Loopback6.String()+"]:7179") {
			t.Errorf("it listens on more than its loopbacks: %s", line)
		}
	}
}

// nobodyTells looks for a secret where it must not be: in logs, in what agents
// say of themselves, and in the arguments and environments of the lab's processes.
func (w *world) nobodyTells(secret string) {
	w.t.Helper()
	seen := 0
	look := func(where string, text []byte) {
		seen++
		if strings.Contains(string(text), secret) {
			w.t.Errorf("%s tells the secret", where)
		}
	}
	for _, n := range w.Topology.Nodes {
		log, err := os.ReadFile(w.Log(n.Name))
		must(w.t, err)
		look("the log of "+n.Name, log)
		for _, path := range []string{"status", "routes", "evpn", "nodes", "guard"} {
			out := w.inside(n.Name, "curl -s --unix-socket "+w.Socket(n.Name)+" http://frond/v1/"+path)
			look(path+" of "+n.Name, []byte(out))
		}
		if _, err := api.NewClient(w.Socket(n.Name)).Status(w.t.Context()); err != nil {
			w.t.Error(err)
		}
	}
	arguments, err := filepath.Glob("/proc/[0-9]*/cmdline")
	must(w.t, err)
	processes := 0
	for _, name := range arguments {
		text, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(text), w.Dir()) {
			continue // it has ended, or is not the lab's
		}
		processes++
		look(name, text)
		environment, err := os.ReadFile(filepath.Join(filepath.Dir(name), "environ"))
		if err == nil {
			look(name+"'s environment", environment)
		}
	}
	if processes < 2*len(w.Topology.Nodes) { // the agent and its BFD process
		w.t.Errorf("looked at %d processes of %d nodes", processes, len(w.Topology.Nodes))
	}
}
