package lab

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestCheckSegment has a check find what is wrong with a segment.
func TestCheckSegment(t *testing.T) {
	w := populate(t, "checksegment", SpineLeaf(1, 2), 4) // g1 and g3 on leaf1, g2 and g4 on leaf2
	w.whole()
	check := func(timeout time.Duration, bandwidth time.Duration) Proof {
		t.Helper()
		proof, err := w.Check(t.Context(), CheckConfig{Timeout: timeout, Duration: bandwidth}, silent)
		must(t, err)
		if len(proof.Segments) != 1 {
			t.Fatalf("%+v; want one segment", proof)
		}
		return proof
	}
	names := func(proof Proof, want string) {
		t.Helper()
		if !slices.ContainsFunc(proof.Failures, func(f string) bool { return strings.Contains(f, want) }) {
			t.Errorf("%q; want %q", proof.Failures, want)
		}
	}

	proof := check(20*time.Second, 50*time.Millisecond)
	found := proof.Segments[0]
	if b := found.Bandwidth; b == nil || b.VXLAN <= 0 || b.Routed <= 0 || b.FromNode == b.ToNode {
		t.Errorf("bandwidth %+v", b)
	}
	if a := found.ARP; a == nil || *a != (ARPProof{Requests: 0, Known: 4}) {
		t.Errorf("ARP %+v; want 4 guests known and no request", a)
	}
	found.ARP, found.Bandwidth = nil, nil
	want := SegmentProof{Segment: "blue", Guests: 4, Rounds: 12, Answered: 12, Broadcasts: 4, Copies: 12, Once: 12}
	if found != want || len(proof.Failures) > 0 {
		t.Errorf("%+v, failures %q; want %+v and none", found, proof.Failures, want)
	}

	// Nothing mends what follows as long as no agent runs there.
	must(t, w.Kill(t.Context(), "leaf1"))
	vtep := w.node("leaf2").Loopback.String()
	const everybody = " 00:00:00:00:00:00 dev vx-blue dst "

	w.inside("leaf1", "bridge fdb append"+everybody+vtep+" via eth1") // beside the one that is there
	names(check(time.Second, 0), "a broadcast of g1 is seen too often: g2 sees 2 copies, g4 sees 2 copies")
	w.inside("leaf1", "bridge fdb del"+everybody+vtep+" via eth1")

	w.inside("leaf1", "bridge fdb del"+everybody+vtep)
	names(check(time.Second, 0), "a broadcast of g3 is not seen by g2, g4")
	w.inside("leaf1", "bridge fdb append"+everybody+vtep)

	w.inside("leaf1", "bridge link set dev vx-blue neigh_suppress off")
	proof = check(time.Second, 0)
	names(proof, "leaf1 sends ARP requests into the fabric for guests that it knows: ")
	if a := proof.Segments[0].ARP; a.Requests == 0 {
		t.Errorf("%+v; want requests", a)
	}
	w.inside("leaf1", "bridge link set dev vx-blue neigh_suppress on")
	if proof = check(time.Second, 0); len(proof.Failures) > 0 {
		t.Errorf("%q; want all to be as before", proof.Failures)
	}

	must(t, w.Start("leaf1"))
	w.whole()
	pid, _ := w.AgentPID("leaf1")
	must(t, syscall.Kill(pid, syscall.SIGSTOP))
	w.inside("leaf1", "ip neigh del 172.16.0.12 dev br-blue")
	names(check(time.Second, 0), "leaf1 does not know the addresses of g2")
	must(t, syscall.Kill(pid, syscall.SIGCONT))
	w.whole()
}

// TestInterleave has guests of different nodes next to each other.
func TestInterleave(t *testing.T) {
	var got string
	for _, g := range interleave([]Guest{{Name: "a", Node: "1"}, {Name: "b", Node: "1"}, {Name: "c", Node: "2"}, {Name: "d", Node: "1"}, {Name: "e", Node: "2"}}) {
		got += g.Name
	}
	if got != "acbed" {
		t.Error(got)
	}
}

// TestSample has all guests of many asked by somebody, and a broadcast from
// each node.
func TestSample(t *testing.T) {
	for _, n := range []int{2, 45, 46, 500} {
		s := &segmentChecker{}
		nodes := []string{"leaf1", "leaf2", "leaf3"}
		for i := range n {
			s.guests = append(s.guests, Guest{Node: nodes[i%len(nodes)]})
		}
		s.found.Sampled = n*(n-1) > mostRounds
		rounds := 0
		for to := range n {
			before := rounds
			for from := range n {
				if from != to && s.asks(from, to) {
					rounds++
				}
			}
			if rounds == before {
				t.Fatalf("%d guests: nobody asks guest %d", n, to)
			}
		}
		if rounds > mostRounds || s.found.Sampled == (rounds == n*(n-1)) {
			t.Errorf("%d guests: %d rounds", n, rounds)
		}
		if senders := len(s.senders()); senders < min(n, len(nodes)) || (senders-len(nodes))*n > mostRounds {
			t.Errorf("%d guests: %d broadcasts", n, senders)
		}
	}
}
