package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"frond/internal/api"
	"frond/internal/pki"
	"frond/internal/status"
	"frond/internal/trace"
)

// hop is a hop whose number way fills in.
func hop(node string, answer status.Forwarding, next ...trace.Next) trace.Hop {
	return trace.Hop{Node: node, Answer: &answer, Next: next}
}

func byRoute(prefix string) status.Forwarding {
	return status.Forwarding{Action: status.Forward, Match: prefix}
}

func leads(leg status.Leg, to int) trace.Next { return trace.Next{Leg: &leg, Hop: &to} }
func stays(to int) trace.Next                 { return trace.Next{Hop: &to} }
func ends(leg status.Leg, problem string) trace.Next {
	return trace.Next{Leg: &leg, Problem: problem}
}

func way(outcome trace.Outcome, from, to trace.Endpoint, hops ...trace.Hop) trace.Trace {
	for i := range hops {
		hops[i].ID = i
		if hops[i].Next == nil {
			hops[i].Next = []trace.Next{}
		}
	}
	return trace.Trace{From: from, To: to, Outcome: outcome, Hops: hops}
}

var (
	tracedG1 = trace.Endpoint{Name: "g1", Node: "leaf1", Segment: "blue", MAC: "02:67:00:00:00:01", Address: "172.16.0.11", Port: "vg1"}
	tracedG2 = trace.Endpoint{Name: "g2", Node: "leaf2", Segment: "blue", MAC: "02:67:00:00:00:02", Address: "172.16.0.12"}
)

// guestTrace goes from guest to guest over two spines.
func guestTrace() trace.Trace {
	const vtep = "10.0.200.2/32"
	arrive := hop("leaf2", status.Forwarding{Action: status.Deliver, Port: "lo"}, stays(4))
	t := way(trace.Delivered, tracedG1, tracedG2,
		hop("leaf1", status.Forwarding{Action: status.Encapsulate, VTEP: "10.0.200.2", VNI: 100}, stays(1)),
		hop("leaf1", byRoute(vtep), leads(status.Leg{Port: "eth1", Node: "spine1"}, 2), leads(status.Leg{Port: "eth2", Node: "spine2"}, 5)),
		hop("spine1", byRoute(vtep), leads(status.Leg{Port: "eth2", Node: "leaf2"}, 3)),
		arrive,
		hop("leaf2", status.Forwarding{Action: status.Deliver, Port: "vg2"}),
		hop("spine2", byRoute(vtep), leads(status.Leg{Port: "eth2", Node: "leaf2"}, 3)),
	)
	for _, i := range []int{1, 2, 3, 5} {
		t.Hops[i].Outer = true
	}
	return t
}

// troubledTrace has every way in which a leg can end.
func troubledTrace() trace.Trace {
	from := tracedG1
	from.Problem = "the kernel of leaf1 does not have it on a port"
	hole := hop("spine3", status.Forwarding{Action: status.Drop, Reason: "no route to 192.0.2.1"})
	hole.Problem = hole.Answer.Reason
	silent := trace.Hop{Node: "evil\x1b[31m\nname", Problem: "does not answer"}
	return way(trace.Partly, from, trace.Endpoint{Address: "192.0.2.1"},
		hop("leaf1", byRoute("0.0.0.0/0"),
			leads(status.Leg{Port: "eth1", Node: "spine1"}, 1), leads(status.Leg{Port: "eth2", Node: "spine2"}, 2),
			leads(status.Leg{Port: "eth3", Node: "spine3"}, 3), leads(status.Leg{Port: "eth4", Node: "evil\x1b[31m\nname"}, 4),
			ends(status.Leg{Port: "eth5", Via: "fe80::7"}, "who is behind this port is not known"),
			ends(status.Leg{Port: "eth6", Node: "spine6"}, "the port has no carrier")),
		hop("spine1", byRoute("0.0.0.0/0"), leads(status.Leg{Port: "eth9", Node: "edge1"}, 5)),
		hop("spine2", byRoute("0.0.0.0/0"), leads(status.Leg{Port: "eth9", Node: "edge1"}, 5),
			trace.Next{Leg: &status.Leg{Port: "eth1", Node: "leaf1"}, Hop: new(int), Problem: "a loop: the packet was here before"}),
		hole, silent,
		hop("edge1", byRoute("0.0.0.0/0"), trace.Next{Leg: &status.Leg{Port: "enp3s0", Via: "198.51.100.1", Outside: true}},
			trace.Next{Leg: &status.Leg{Port: "enp4s0", Outside: true}},
			leads(status.Leg{Port: "br-red", Segment: "red", MAC: "02:67:00:00:00:03"}, 6),
			ends(status.Leg{Port: "br-green", Segment: "green"}, "the kernel has no neighbour entry for it yet: it asks for its MAC first")),
		hop("edge1", status.Forwarding{Action: status.Deliver, Port: "vg3"}),
	)
}

func TestTraceTrees(t *testing.T) {
	nobody := hop("leaf1", status.Forwarding{Action: status.Flood, VNI: 100})
	nobody.Problem = "nobody is known by this MAC: frames to it are flooded"
	lost := way(trace.Lost, tracedG1, trace.Endpoint{MAC: "02:67:00:00:00:99"}, nobody)
	elsewhere := way(trace.Unknown, trace.Endpoint{Name: "leaf2", Node: "leaf2", Address: "10.0.200.2"}, tracedG1, trace.Hop{Node: "leaf2", Problem: errElsewhere.Error()})
	for name, text := range map[string]string{
		"trace-guests.txt":         renderTrace(guestTrace(), view{now: noon}),
		"trace-guests-colour.txt":  renderTrace(guestTrace(), view{now: noon, colour: true}),
		"trace-trouble.txt":        renderTrace(troubledTrace(), view{now: noon}),
		"trace-trouble-colour.txt": renderTrace(troubledTrace(), view{now: noon, colour: true}),
		"trace-nobody.txt":         renderTrace(lost, view{now: noon}),
		"trace-elsewhere.txt":      renderTrace(elsewhere, view{now: noon}),
	} {
		golden(t, name, text)
	}
	text, err := formatJSON.encode(guestTrace())
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "trace-guests.json", text)
	if text := renderTrace(troubledTrace(), view{}); strings.Contains(text, "\x1b") || strings.Contains(text, "\nname") {
		t.Errorf("what a peer is called reaches the terminal: %q", text)
	}
}

// Where there are certificates the trace goes on over the network, to nodes
// that the document has.
func TestTraceOverTheNetwork(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := pki.Init(dir, "apollo", time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"leaf1", "spine1"} {
		if _, err := pki.Issue(dir, pki.Node{Name: name}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	leg := func(node string) status.Leg { return status.Leg{Port: "to-" + node, Node: node} }
	answers := func(f status.Forwarding) map[status.Destination]status.Forwarding {
		return map[status.Destination]status.Forwarding{{Address: "10.0.200.2"}: f}
	}
	socket := serve(t, backend{
		snapshot:   healthyNode(),
		nodes:      []status.Host{{Name: "leaf1", Loopback: "127.71.80.1"}, {Name: "spine1", Loopback: "127.71.80.2"}, {Name: "spine2", Loopback: "127.71.80.3"}},
		forwarding: answers(status.Forwarding{Action: status.Forward, Match: "10.0.200.2/32", Legs: []status.Leg{leg("spine1"), leg("spine2"), leg("spine3")}}),
	})
	spine1 := api.NewNetwork(backend{forwarding: answers(status.Forwarding{Action: status.Drop, Reason: "no way from spine1"})}, slog.New(slog.DiscardHandler))
	spine1.Set(api.Reach{Addresses: []netip.Addr{netip.MustParseAddr("127.71.80.2")}, Files: pki.FilesIn(dir, "spine1")})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- spine1.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	var stdout string
	for limit := time.Now().Add(20 * time.Second); !strings.Contains(stdout, "no way from spine1") && time.Now().Before(limit); time.Sleep(time.Millisecond) {
		_, stdout, _ = command(t, testRoot(), "trace", "leaf1", "10.0.200.2", "--socket", socket, "--pki", dir)
	}
	for _, want := range []string{"spine1: no way from spine1", "spine2: no agent answers on 127.71.80.3:7179", "spine3: cannot be asked: the document has no node spine3"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the trace does not say %q:\n%s", want, stdout)
		}
	}
}

func TestTraceVerb(t *testing.T) {
	snapshot := healthyNode()
	leg := func(port, node string) status.Leg { return status.Leg{Port: port, Node: node} }
	socket := serve(t, backend{
		snapshot: snapshot,
		nodes:    []status.Host{{Name: "leaf1", Loopback: "10.0.200.1"}, {Name: "leaf2", Loopback: "10.0.200.2"}},
		macs: []status.MAC{
			{Segment: "blue", MAC: "02:67:00:00:00:01", IPs: []string{"172.16.0.11"}, Local: true, VTEP: "10.0.200.1"},
			{Segment: "blue", MAC: "02:67:00:00:00:02", IPs: []string{"172.16.0.12"}, VTEP: "10.0.200.2"},
		},
		forwarding: map[status.Destination]status.Forwarding{
			{Segment: "blue", MAC: "02:67:00:00:00:01"}: {Action: status.Deliver, Port: "tap1"},
			{Segment: "blue", MAC: "02:67:00:00:00:02"}: {Action: status.Encapsulate, VTEP: "10.0.200.2", VNI: 100},
			{Segment: "blue", MAC: "02:67:00:00:00:99"}: {Action: status.Flood, VNI: 100},
			{Address: "10.0.200.2"}:                     {Action: status.Forward, Match: "10.0.200.2/32", Legs: []status.Leg{leg("eth1", "spine1"), leg("eth2", "spine2")}},
			{Address: "192.0.2.1"}:                      {Action: status.Drop, Reason: "no route to 192.0.2.1"},
		},
	})
	for _, test := range []struct {
		args   string
		code   int
		stdout string // part of it
		stderr string // part of it; empty: nothing
	}{
		{"172.16.0.11 172.16.0.12", 0, "leaf1: in VXLAN 100 to VTEP 10.0.200.2, by the route to 10.0.200.2/32\n" +
			"├─ eth1 → spine1: cannot be asked from here without a certificate: run \"frond trace\" on it\n" +
			"└─ eth2 → spine2: cannot be asked from here without a certificate: run \"frond trace\" on it\n", ""},
		{"leaf1 leaf2 -o yaml", 0, "outcome: unknown", ""},
		{"leaf2 leaf1", 0, "leaf2: cannot be asked from here", ""},
		{"leaf1 192.0.2.1", 1, "no route to 192.0.2.1", ""},
		{"172.16.0.11 02:67:00:00:00:99", 1, "frames to it are flooded", ""},
		{"172.16.0.99 leaf1", 1, "", "frond: no node that was asked knows 172.16.0.99"},
		{"g1 leaf1", 2, "", `frond: "g1" is no node's or guest's name`},
		{"leaf1 leaf", 2, "", `frond: "leaf" is no node's or guest's name`},
		{"leaf1", 2, "", "see frond trace --help"},
	} {
		args := append([]string{"trace", "--socket", socket}, strings.Fields(test.args)...)
		code, stdout, stderr := command(t, testRoot(), args...)
		if code != test.code || !strings.Contains(stdout, test.stdout) || !strings.Contains(stderr, test.stderr) || (stderr == "") != (test.stderr == "") {
			t.Errorf("trace %s: exit code %d\n%s%s\nwant %d, %q, %q", test.args, code, stdout, stderr, test.code, test.stdout, test.stderr)
		}
	}
	nobody := filepath.Join(t.TempDir(), "nobody.sock")
	if code, _, stderr := command(t, testRoot(), "trace", "leaf1", "leaf2", "--socket", nobody); code != 1 || !strings.Contains(stderr, "no agent answers") {
		t.Errorf("without an agent: exit code %d, %q", code, stderr)
	}
	_, stdout, _ := command(t, testRoot(), "trace", "172.16.0.11", "172.16.0.12", "--socket", socket, "-o", "json")
	var answer trace.Trace
	if err := json.Unmarshal([]byte(stdout), &answer); err != nil || answer.From.Port != "tap1" || len(answer.Hops) != 4 {
		t.Errorf("as JSON: %+v, %v", answer, err)
	}
	var outcomes []string
	for _, o := range []trace.Outcome{trace.Delivered, trace.Unknown, trace.Partly, trace.Lost} {
		outcomes = append(outcomes, fmt.Sprintf("%s %t", o, traceVerdict(trace.Trace{Outcome: o}) == nil))
	}
	if want := []string{"delivered true", "unknown true", "partly false", "lost false"}; !slices.Equal(outcomes, want) {
		t.Errorf("verdicts: %v, want %v", outcomes, want)
	}
}
