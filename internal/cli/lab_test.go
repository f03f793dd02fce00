package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"frond/internal/lab"
	"frond/internal/status"
)

// TestLabRefuses names labs that do not exist: nothing may be made.
func TestLabRefuses(t *testing.T) {
	dir := t.TempDir()
	document := filepath.Join(dir, "fabric.yaml")
	if err := os.WriteFile(document, lab.Document("x", lab.SpineLeaf(1, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	absent := fmt.Sprintf("absent%d", os.Getpid())
	for _, tc := range []struct {
		args string
		code int
		says string
	}{
		{"status", exitWrong, "there is no lab"},
		{"check", exitWrong, "lab up --name " + absent},
		{"exec leaf1 -- true", exitWrong, "there is no lab"},
		{"cut leaf1 spine1", exitWrong, "there is no lab"},
		{"kill leaf1", exitWrong, "there is no lab"},
		{"cut leaf1", exitWrong, "there is no lab"},
		{"cut", exitUsage, "accepts between 1 and 2 arg"},
		{"isolate", exitUsage, "accepts 1 arg"},
		{"isolate leaf1", exitWrong, "there is no lab"},
		{"freeze leaf1", exitWrong, "there is no lab"},
		{"cut leaf1: spine1", exitUsage, "NODE:PORT"},
		{"status --name a-b", exitUsage, "lab name"},
		{"down --name ../x", exitUsage, "lab name"},
		{"up --name A", exitUsage, "lab name"},
		{"up --shape star:3", exitUsage, "shape"},
		{"up --spines 0", exitUsage, "at least one"},
		{"up --shape ring:4 --leafs 3", exitUsage, "exclude each other"},
		{"up leaf1:eth1", exitUsage, "-f"},
		{"up -f " + document + " leaf1", exitUsage, "two ends"},
		{"up -f /nonexistent.yaml", exitUsage, "nonexistent"},
		{"up -f " + document + " --cables /nonexistent", exitUsage, "nonexistent"},
		{"lift", exitUsage, "no verb"},
	} {
		args := append([]string{"lab", "--name", absent}, strings.Fields(tc.args)...)
		code, _, stderr := command(t, newRoot(), args...)
		if code != tc.code || !strings.Contains(stderr, tc.says) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("lab %s: exit code %d, %q; want %d and one line about %q", tc.args, code, stderr, tc.code, tc.says)
		}
	}
	if code, stdout, stderr := command(t, newRoot(), "lab", "down", "--name", absent); code != exitFine || !strings.Contains(stdout, "Nothing was there") {
		t.Errorf("lab down of nothing: exit code %d, %q, %q", code, stdout, stderr)
	}
}

func TestLabTable(t *testing.T) {
	peer := status.Peer{State: "established"}
	good := status.Snapshot{Ready: true, Loopback: "10.0.200.1", Loopback6: "fd00::1", Peers: []status.Peer{peer}, Routes: status.Totals{Desired: 2, Installed: 2}}
	waiting, troubled := good, good
	waiting.Ready = false
	troubled.Conditions = []status.Condition{{Subject: "eth1", Text: "no carrier"}}
	nodes := []lab.NodeStatus{
		{Node: lab.Node{Name: "leaf1", Role: "leaf"}, PID: 11, Snapshot: good, Expected: 1},
		{Node: lab.Node{Name: "leaf2", Role: "leaf"}, PID: 12, Snapshot: waiting, Expected: 1},
		{Node: lab.Node{Name: "leaf3", Role: "leaf"}, PID: 13, Snapshot: troubled, Expected: 2},
		{Node: lab.Node{Name: "leaf4", Role: "leaf"}, PID: 14, Snapshot: good, Expected: 2},
		{Node: lab.Node{Name: "leaf5", Role: "leaf"}, Err: fmt.Errorf("no agent runs"), Expected: 2},
	}
	want := `NODE   ROLE  LOOPBACK    LOOPBACK6  AGENT  PEERS  ROUTES  STATE
leaf1  leaf  10.0.200.1  fd00::1       11    1/1     2/2  ready
leaf2  leaf  10.0.200.1  fd00::1       12    1/1     2/2  starting
leaf3  leaf  10.0.200.1  fd00::1       13    1/2     2/2  1 problem
leaf4  leaf  10.0.200.1  fd00::1       14    1/2     2/2  peers missing
leaf5  leaf                          none      ?       ?  down
leaf3  eth1   no carrier
leaf5  agent  no agent runs
`
	if d := cmp.Diff(want, labTable(nodes).render(view{})+labProblems(nodes).body(view{})); d != "" {
		t.Error(d)
	}
}

func TestProofText(t *testing.T) {
	good := lab.Proof{
		ConvergedSeconds: 0.3, Routes: 40, NextHops: 60, Rounds: 40, Answered: 40, SlowestSeconds: 0.00119,
		Segments: []lab.SegmentProof{{Segment: "blue", Guests: 6, Rounds: 30, Answered: 30, Broadcasts: 6, Copies: 30, Once: 30,
			ARP: &lab.ARPProof{Known: 6},
			Bandwidth: &lab.SegmentBandwidth{From: "g1", To: "g6", FromNode: "leaf1", ToNode: "leaf3", Streams: 32,
				VXLAN: 10.2e9, Routed: 12e9, Ratio: 0.85}}},
		Bandwidth: &lab.Bandwidth{From: "leaf1", To: "leaf3", Streams: 32, Fabric: 19.4e9, Direct: 20.9e9,
			Legs: []lab.Leg{{Port: "eth1", Far: "spine1", Share: 0.55}, {Port: "eth2", Far: "spine2", Share: 0.45}}},
	}
	bad := lab.Proof{ConvergedSeconds: -1, Routes: 4, NextHops: 2, Rounds: 4, Answered: 3, Failures: []string{"one", "two\x1b"},
		Segments: []lab.SegmentProof{{Segment: "red", Guests: 50, Sampled: true, Rounds: 2000, Answered: 1999, Broadcasts: 40, Copies: 1960, Once: 1959}}}
	for _, tc := range []struct {
		proof lab.Proof
		want  string
	}{
		{good, `next hops  40 routes over 60 next hops in the kernels: as the cables say, after 0.30 s
echoes     40 of 40 pairs answered; the slowest took 1.19 ms
segment    blue: 6 guests; 30 of 30 pairs answered
           6 broadcasts: 30 of 30 guests saw them, each exactly once
           0 ARP requests crossed the fabric; all nodes know 6 guests
           g1 → g6 in VXLAN: 10.2 Gbit/s in 32 streams; leaf1 → leaf3, routed: 12.0 Gbit/s; ratio 0.85
bandwidth  leaf1 → leaf3: 19.4 Gbit/s in 32 streams over 2 next hops (spine1 55 %, spine2 45 %)
           over one veth pair, directly: 20.9 Gbit/s
proven: the fabric works
`},
		{bad, `next hops  4 routes over 2 next hops in the kernels: not as the cables say
echoes     3 of 4 pairs answered; the slowest took 0.00 ms
segment    red: 50 guests; 1999 of 2000 pairs answered (a sample)
           40 broadcasts: 1959 of 1960 guests saw them, each exactly once
failed: 2 things
  one
  two?
`},
	} {
		if d := cmp.Diff(tc.want, proofText(tc.proof)); d != "" {
			t.Error(d)
		}
	}
}

func TestProgress(t *testing.T) {
	var b strings.Builder
	p := newProgress(&b)
	p.step("laying cables", 0, 2)
	p.step("laying cables", 1, 2)
	p.step("starting agents", 0, 3)
	p.end()
	if want := "laying cables (2)\nstarting agents (3)\n"; b.String() != want {
		t.Errorf("%q; want %q", b.String(), want)
	}
}
