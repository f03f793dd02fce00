package node

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"frond/internal/api"
	"frond/internal/pki"
)

type fakeNetwork struct {
	reach   api.Reach
	problem string
}

func (n *fakeNetwork) Set(r api.Reach) { n.reach = r }
func (n *fakeNetwork) Problem() string { return n.problem }

func TestNetworkAPIFollowsTheDocument(t *testing.T) {
	r := began(t)
	want := func(v4 string) {
		t.Helper()
		got := r.network.reach
		if len(got.Addresses) != 2 || got.Addresses[0] != netip.MustParseAddr(v4) || !got.Addresses[1].Is6() || got.Files != pki.FilesIn("/pki", "leaf1") {
			t.Errorf("it is to answer at %+v, want %s", got, v4)
		}
	}
	want("10.0.200.1")
	r.adopt(parse(t, strings.Replace(testDocument, "10.0.200.1", "10.0.200.99", 1), "leaf1"), nil)
	r.step()
	want("10.0.200.99")
}

func TestNetworkAPIOff(t *testing.T) {
	r := began(t, link("eth0", 1))
	before := len(r.snapshot(r.now).Conditions)
	r.network.problem = "/pki/leaf1.key is missing"
	c := r.snapshot(r.now).Conditions
	if len(c) != before+1 || !strings.Contains(fmt.Sprint(c), networkOff) || !strings.Contains(fmt.Sprint(c), "leaf1.key is missing") {
		t.Errorf("conditions are %v", c)
	}
	r.network.problem = ""
	if c := r.snapshot(r.now).Conditions; len(c) != before {
		t.Errorf("it is mended, and there is still %v", c)
	}
}

// The key of the sessions is in nothing that leaves the agent, however much of
// it is logged.
func TestKeyIsNotToldToAnybody(t *testing.T) {
	const key, before = "correct-horse", "battery-staple"
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "bgp.key"), []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "old.key"), []byte(before+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(testDocument, "underlay: {", "underlay: {password_file: bgp.key, previous_password_file: old.key, ", 1)
	file := filepath.Join(dir, "fabric.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := load(Config{Document: file, Node: "leaf1"})
	if err != nil {
		t.Fatal(err)
	}
	r := began(t, link("eth0", 1))
	r.adopt(d, nil)
	r.hear("eth0", "fe80::b")
	if r.plan.Password != key {
		t.Fatalf("the key is %q", string(r.plan.Password))
	}
	if keys := r.bgp.desired.Keys; keys.Current != key || keys.Previous != before {
		t.Fatalf("BGP is told %q", []string{string(keys.Current), string(keys.Previous)})
	}
	var said bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&said, nil), slog.NewJSONHandler(&said, nil)} {
		slog.New(h).Info("all", "plan", d.plan, "document", d.status, "peers", r.bgp.desired, "keys", r.bgp.desired.Keys)
	}
	if err := json.NewEncoder(&said).Encode(r.snapshot(r.now)); err != nil {
		t.Fatal(err)
	}
	_, _ = fmt.Fprintf(&said, "%v %+v %v %+v", d.plan, d.plan, r.bgp.desired, r.bgp.desired)
	for _, bad := range []string{strings.Repeat("x", 81), "two\nlines"} {
		if err := os.WriteFile(filepath.Join(dir, "bgp.key"), []byte(bad+key), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := load(Config{Document: file, Node: "leaf1"})
		if err == nil {
			t.Fatalf("the key %q is taken", bad)
		}
		said.WriteString(err.Error())
	}
	for _, secret := range []string{key, before} {
		if i := strings.Index(said.String(), secret); i >= 0 {
			t.Errorf("the key is told: %s", said.String()[max(i-80, 0):i+len(secret)])
		}
	}
}
