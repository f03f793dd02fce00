package cli

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"frond/internal/pki"
	"frond/internal/store"
)

func TestRenderHealthOfStore(t *testing.T) {
	member := func(name string, answers bool, problem string) store.MemberHealth {
		m := store.MemberHealth{Endpoint: store.Endpoint{Name: name}, Answers: answers, Problem: problem}
		if answers {
			m.Version, m.Bytes = "3.6.16", 20<<10
		}
		return m
	}
	leader := member("spine1", true, "")
	leader.Leader = true
	learner := member("leaf1", true, "")
	learner.Learner = true
	golden(t, "store-reduced.txt", renderHealth(store.Health{Majority: true, Leader: "spine1", Members: []store.MemberHealth{
		leader, member("spine2", true, "is full: it takes deletions only"), learner, member("leaf2", false, "does not run")}}, view{now: noon}))
	golden(t, "store-lost.txt", renderHealth(store.Health{Members: []store.MemberHealth{
		member("spine1", false, "does not run"), member("spine2", true, "sees no majority")}}, view{now: noon}))
}

func TestRenderCertificates(t *testing.T) {
	of := func(name string, until time.Time) *x509.Certificate {
		return &x509.Certificate{Subject: pkix.Name{CommonName: name}, NotAfter: until}
	}
	golden(t, "pki-show.txt", renderCertificates([]pki.Certificate{
		{File: "/p/ca.crt", Certificate: of("frond apollo CA", noon.Add(24000*time.Hour))},
		{File: "/p/leaf1.crt", Certificate: of("leaf1", noon.Add(-time.Hour)), Err: errors.New("/p/leaf1.crt expired")},
		{File: "/p/x.crt", Err: errors.New("/p/x.crt is no PEM file of a certificate")},
	}, view{now: noon}))
}

func TestPKI(t *testing.T) {
	document := writeFile(t, "fabric.yaml", goodDocument)
	dir := filepath.Join(t.TempDir(), "pki")
	at := []string{"--config", document, "--pki", dir}
	for _, step := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"pki", "show", "--pki", dir}, 1, `"frond pki init" makes the CA`},
		{append([]string{"pki", "issue", "leaf1"}, at...), 1, `"frond pki init" makes it`},
		{append([]string{"pki", "init"}, at...), 0, "the CA of apollo is in " + dir},
		{append([]string{"pki", "init"}, at...), 1, "ca.crt is there already"},
		{append([]string{"pki", "issue", "laef1"}, at...), 2, "did you mean leaf1?"},
		{append([]string{"pki", "issue", "leaf1"}, at...), 0, "leaf1 needs it with leaf1.key and ca.crt"},
		{append([]string{"pki", "issue", "leaf1"}, at...), 0, "leaf1.crt is valid until "},
		{append([]string{"pki", "issue", "--operator", "leaf1"}, at...), 2, "leaf1 is a node"},
		{append([]string{"pki", "issue", "--operator", "a/b"}, at...), 1, "letters, digits, dots"},
		{append([]string{"pki", "issue", "--operator", "alice"}, at...), 0, "alice needs it with alice.key and ca.crt"},
		{[]string{"pki", "show", "--pki", dir}, 0, "alice, operator"},
		{[]string{"pki", "show", "--pki", dir}, 0, "leaf1.crt"},
		{append([]string{"status", "--node", "leaf9"}, at...), 2, "leaf1"},
		{append([]string{"status", "--node", "leaf1", "--cert", "leaf2"}, at...), 1, "leaf2.crt is missing"},
		{append([]string{"status", "--node", "leaf1", "--socket", "x"}, at...), 2, "each name an agent"},
		{[]string{"reload", "--node", "leaf1", "--config", document, "--pki", t.TempDir()}, 1, "there are no certificates in "},
		{append([]string{"store", "status", "--node", "leaf1"}, at...), 1, "this fabric runs no store"},
	} {
		code, stdout, stderr := command(t, testRoot(), step.args...)
		if code != step.code || !strings.Contains(stdout+stderr, step.says) {
			t.Errorf("frond %s: exit code %d, %s%s, want %q", strings.Join(step.args, " "), code, stdout, stderr, step.says)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "leaf1.key")); err != nil {
		t.Error(err)
	}
}

func TestStoreThatIsAway(t *testing.T) {
	document := writeFile(t, "fabric.yaml", goodDocument+
		"segments: {blue: {vni: 1, nodes: [leaf1], prefix: 172.16.0.0/24, dhcp: {range: 172.16.0.9-172.16.0.20}}}\nstore: {members: [leaf1]}\n")
	dir := t.TempDir()
	at := []string{"--config", document, "--pki", dir}
	for _, args := range [][]string{{"pki", "init"}, {"pki", "issue", "leaf1"}} {
		if code, _, stderr := command(t, testRoot(), append(args, at...)...); code != 0 {
			t.Fatal(stderr)
		}
	}
	code, stdout, stderr := command(t, testRoot(), append([]string{"store", "status", "--node", "leaf1"}, at...)...)
	if code != 1 || !strings.Contains(stdout, "no majority") || !strings.Contains(stdout, "away") || stderr != "" {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
	missing := filepath.Join(dir, "b1")
	code, _, stderr = command(t, testRoot(), append([]string{"store", "restore", missing, "--node", "leaf1"}, at...)...)
	if code != 1 || !strings.Contains(stderr, "no such file") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}
