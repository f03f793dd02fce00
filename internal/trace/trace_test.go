package trace

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"frond/internal/status"
)

// fabric answers for kernels: by node and destination, the latter as
// "10.0.0.2" or as "blue 02:00:00:00:00:02" or as "blue 192.0.2.1".
type fabric map[string]string

var errSilent = errors.New("does not answer")

// Forwarding reads an answer as it is written in the tables below.
func (f fabric) Forwarding(_ context.Context, node string, to status.Destination) (status.Forwarding, error) {
	text, ok := f[strings.TrimSpace(fmt.Sprint(node, " ", strings.TrimSpace(to.Segment+" "+to.MAC+to.Address)))]
	if !ok {
		return status.Forwarding{}, errSilent
	}
	words := strings.Fields(text)
	answer := status.Forwarding{Action: status.Action(words[0])}
	switch answer.Action {
	case status.Deliver:
		answer.Port = words[1]
	case status.Encapsulate:
		answer.VTEP = words[1]
	case status.Drop:
		answer.Reason = strings.Join(words[1:], " ")
	case status.Forward:
		for _, word := range words[1:] { // port=node, port=!dead, port=outside, port=segment/mac
			port, to, _ := strings.Cut(word, "=")
			leg := status.Leg{Port: port}
			segment, mac, isSegment := strings.Cut(to, "/")
			switch {
			case isSegment:
				leg.Segment, leg.MAC = segment, mac
			case to == "!dead":
				leg.Problem = "dead"
			case to == "outside":
				leg.Outside = true
			default:
				leg.Node = to
			}
			answer.Legs = append(answer.Legs, leg)
		}
	}
	return answer, nil
}

// text is a trace in one line: each hop with where it leads.
func text(t Trace) string {
	var words []string
	for _, hop := range t.Hops {
		word := fmt.Sprint(hop.ID, ":", hop.Node)
		if hop.Outer {
			word += "*"
		}
		for _, next := range hop.Next {
			word += ">"
			if next.Leg != nil {
				word += next.Leg.Port + "="
			}
			if next.Hop != nil {
				word += strconv.Itoa(*next.Hop)
			}
			if next.Problem != "" {
				word += "(" + next.Problem + ")"
			}
		}
		if hop.Problem != "" {
			word += "(" + hop.Problem + ")"
		}
		words = append(words, word)
	}
	return strings.Join(append(words, string(t.Outcome)), " ")
}

func TestWalk(t *testing.T) {
	guest := Endpoint{Node: "leaf1", Segment: "blue", MAC: "a", Address: "172.16.0.1"}
	leaf1 := Endpoint{Node: "leaf1", Address: "10.0.0.1"}
	leaf2 := Endpoint{Node: "leaf2", Address: "10.0.0.2"}
	diamond := fabric{
		"leaf1 10.0.0.2": "forward eth1=spine1 eth2=spine2", "spine1 10.0.0.2": "forward eth2=leaf2", "spine2 10.0.0.2": "forward eth2=leaf2",
		"leaf2 10.0.0.2": "deliver lo",
	}
	with := func(more fabric) fabric {
		all := fabric{}
		for _, f := range []fabric{diamond, more} {
			for key, answer := range f {
				all[key] = answer
			}
		}
		return all
	}
	for name, test := range map[string]struct {
		fabric   fabric
		from, to Endpoint
		want     string
	}{
		"to itself": {fabric{"leaf1 10.0.0.1": "deliver lo"}, leaf1, leaf1, "0:leaf1 delivered"},
		"legs that meet again": {diamond, leaf1, leaf2,
			"0:leaf1>eth1=1>eth2=3 1:spine1>eth2=2 2:leaf2 3:spine2>eth2=2 delivered"},
		"guests of one node": {fabric{"leaf1 blue b": "deliver tap1"}, guest, Endpoint{Segment: "blue", MAC: "b"}, "0:leaf1 delivered"},
		"guests over VXLAN": {with(fabric{"leaf1 blue b": "encapsulate 10.0.0.2", "leaf2 blue b": "deliver tap1"}),
			guest, Endpoint{Segment: "blue", MAC: "b"},
			"0:leaf1>1 1:leaf1*>eth1=2>eth2=5 2:spine1*>eth2=3 3:leaf2*>4 4:leaf2 5:spine2*>eth2=3 delivered"},
		"the VTEP sends it on": {with(fabric{"leaf1 blue b": "encapsulate 10.0.0.2", "leaf2 blue b": "encapsulate 10.0.0.1"}),
			guest, Endpoint{Segment: "blue", MAC: "b"},
			"0:leaf1>1 1:leaf1*>eth1=2>eth2=5 2:spine1*>eth2=3 3:leaf2*>4 4:leaf2(it came in VXLAN, and a bridge sends nothing back where it came from) 5:spine2*>eth2=3 lost"},
		"nobody knows the MAC": {fabric{"leaf1 blue b": "flood"}, guest, Endpoint{MAC: "b"},
			"0:leaf1(nobody is known by this MAC: frames to it are flooded) lost"},
		"a black hole on one leg": {with(fabric{"spine2 10.0.0.2": "drop no route"}), leaf1, leaf2,
			"0:leaf1>eth1=1>eth2=3 1:spine1>eth2=2 2:leaf2 3:spine2(no route) partly"},
		"a black hole": {fabric{"leaf1 10.0.0.2": "drop no route"}, leaf1, leaf2, "0:leaf1(no route) lost"},
		"a dead leg is not used": {with(fabric{"leaf1 10.0.0.2": "forward eth1=spine1 eth2=!dead"}), leaf1, leaf2,
			"0:leaf1>eth1=1>eth2=(dead) 1:spine1>eth2=2 2:leaf2 delivered"},
		"all legs are dead": {fabric{"leaf1 10.0.0.2": "forward eth1=!dead"}, leaf1, leaf2, "0:leaf1>eth1=(dead) lost"},
		"a loop": {with(fabric{"spine2 10.0.0.2": "forward eth1=leaf1"}), leaf1, leaf2,
			"0:leaf1>eth1=1>eth2=3 1:spine1>eth2=2 2:leaf2 3:spine2>eth1=0(a loop: the packet was here before) partly"},
		"a node that does not answer": {with(fabric{"spine2 10.0.0.2": "forward eth2=leaf9"}), leaf1, leaf2,
			"0:leaf1>eth1=1>eth2=3 1:spine1>eth2=2 2:leaf2 3:spine2>eth2=4 4:leaf9(does not answer) unknown"},
		"a port that nobody is known behind": {fabric{"leaf1 10.0.0.2": "forward eth1="}, leaf1, leaf2,
			"0:leaf1>eth1=(who is behind this port is not known) unknown"},
		"out of the fabric": {fabric{"leaf1 192.0.2.1": "forward eth1=edge1", "edge1 192.0.2.1": "forward en3=outside"}, leaf1, Endpoint{Address: "192.0.2.1"},
			"0:leaf1>eth1=1 1:edge1>en3= delivered"},
		"to another segment": {with(fabric{"leaf1 blue 172.17.0.2": "forward br-red=red/c", "leaf1 red c": "encapsulate 10.0.0.2", "leaf2 red c": "deliver tap2"}),
			guest, Endpoint{Segment: "red", MAC: "c", Address: "172.17.0.2"},
			"0:leaf1>br-red=1 1:leaf1>2 2:leaf1*>eth1=3>eth2=6 3:spine1*>eth2=4 4:leaf2*>5 5:leaf2 6:spine2*>eth2=4 delivered"},
		"to another segment by a host route": {fabric{
			"leaf1 blue 172.17.0.2": "forward eth1=leaf2", "leaf2 172.17.0.2": "forward br-red=red/c", "leaf2 red c": "deliver tap2"},
			guest, Endpoint{Segment: "red", MAC: "c", Address: "172.17.0.2"},
			"0:leaf1>eth1=1 1:leaf2>br-red=2 2:leaf2 delivered"},
		"a neighbour that is not resolved": {fabric{"leaf1 blue 172.17.0.2": "forward br-red=red/"}, guest, Endpoint{Address: "172.17.0.2"},
			"0:leaf1>br-red=(the kernel has no neighbour entry for it yet: it asks for its MAC first) unknown"},
		"an answer of a later version": {fabric{"leaf1 10.0.0.2": "teleport"}, leaf1, leaf2,
			"0:leaf1(its answer is not understood, is it an agent of another version?) unknown"},
	} {
		got, err := Walk(t.Context(), test.fabric, test.from, test.to)
		if err != nil || text(got) != test.want {
			t.Errorf("%s: %v\n got %s\nwant %s", name, err, text(got), test.want)
		}
	}
}

// endless has a node behind every node.
type endless struct{}

func (endless) Forwarding(_ context.Context, node string, _ status.Destination) (status.Forwarding, error) {
	return status.Forwarding{Action: status.Forward, Legs: []status.Leg{{Port: "eth1", Node: node + "x"}}}, nil
}

func TestWalkIsBounded(t *testing.T) {
	got, err := Walk(t.Context(), endless{}, Endpoint{Node: "n"}, Endpoint{Address: "10.0.0.2"})
	if err != nil || len(got.Hops) != maxHops || got.Outcome != Unknown {
		t.Errorf("%d hops, %s, %v", len(got.Hops), got.Outcome, err)
	}
}

// The port of the guest that a trace begins at is the kernel's word.
func TestWhereAGuestIs(t *testing.T) {
	guest := Endpoint{Node: "leaf1", Segment: "blue", MAC: "a"}
	to := Endpoint{Segment: "blue", MAC: "b"}
	for answer, want := range map[string]string{
		"deliver tap7":         "tap7",
		"encapsulate 10.0.0.2": "the kernel of leaf1 does not have it on a port",
		"flood":                "the kernel of leaf1 does not have it on a port",
	} {
		got, err := Walk(t.Context(), fabric{"leaf1 blue a": answer, "leaf1 blue b": "deliver tap8"}, guest, to)
		if err != nil || got.From.Port+got.From.Problem != want {
			t.Errorf("%s: %+v, %v; want %s", answer, got.From, err, want)
		}
	}
}

func TestDirectory(t *testing.T) {
	d := Directory{
		Nodes: []status.Host{{Name: "leaf1", Loopback: "10.0.0.1", Loopback6: "fd00::1"}, {Name: "leaf2", Loopback: "10.0.0.2", Loopback6: "fd00::2"}},
		MACs: []status.MAC{
			{Segment: "blue", MAC: "02:00:00:00:00:0a", VTEP: "10.0.0.2", IPs: []string{"172.16.0.1"}, Sequence: 1},
			{Segment: "blue", MAC: "02:00:00:00:00:0a", VTEP: "10.0.0.1", IPs: []string{"172.16.0.1", "fd01::1"}, Sequence: 2},
			{Segment: "blue", MAC: "02:00:00:00:00:0b", VTEP: "10.0.0.9"},
			{Segment: "red", MAC: "02:00:00:00:00:0c", VTEP: "10.0.0.1"},
			{Segment: "blue", MAC: "02:00:00:00:00:0d", Name: "shop/db1", VTEP: "10.0.0.1"},
			{Segment: "red", MAC: "02:00:00:00:00:0c", VTEP: "10.0.0.2", Local: true},
		},
		Names: map[string]string{"g1": "02:00:00:00:00:0a", "g9": "02:00:00:00:00:09"},
	}
	const unknown = "no node that was asked knows "
	for text, want := range map[string]struct {
		endpoint Endpoint
		from     string // part of the error of a trace from there
		to       string // part of the error of a trace to there
	}{
		"leaf1":             {endpoint: Endpoint{Name: "leaf1", Node: "leaf1", Address: "10.0.0.1"}},
		"fd00::2":           {endpoint: Endpoint{Name: "leaf2", Node: "leaf2", Address: "fd00::2"}},
		"g1":                {endpoint: Endpoint{Name: "g1", Node: "leaf1", Segment: "blue", MAC: "02:00:00:00:00:0a", Address: "172.16.0.1"}},
		"02:00:00:00:00:0A": {endpoint: Endpoint{Name: "g1", Node: "leaf1", Segment: "blue", MAC: "02:00:00:00:00:0a", Address: "172.16.0.1"}},
		"shop/db1":          {endpoint: Endpoint{Name: "shop/db1", Node: "leaf1", Segment: "blue", MAC: "02:00:00:00:00:0d"}},
		"fd01::1":           {endpoint: Endpoint{Name: "g1", Node: "leaf1", Segment: "blue", MAC: "02:00:00:00:00:0a", Address: "fd01::1", routed: true}},
		"02:00:00:00:00:0c": {endpoint: Endpoint{Node: "leaf2", Segment: "red", MAC: "02:00:00:00:00:0c"}},
		"02:00:00:00:00:0b": {endpoint: Endpoint{Segment: "blue", MAC: "02:00:00:00:00:0b"}, from: unknown},
		"g9":                {endpoint: Endpoint{Name: "g9", MAC: "02:00:00:00:00:09"}, from: unknown + "g9"},
		"192.0.2.1":         {endpoint: Endpoint{Address: "192.0.2.1"}, from: unknown + "192.0.2.1"},
		"g7":                {from: `"g7" is no node's`, to: `"g7" is no node's`},
		"ff:ff:ff:ff:ff:ff": {from: "stands for many", to: "stands for many"},
	} {
		got, err := d.To(text, "")
		if !says(err, want.to) || err == nil && got != want.endpoint {
			t.Errorf("to %s: %+v, %v; want %+v, %q", text, got, err, want.endpoint, want.to)
		}
		if _, err := d.From(text); !says(err, want.from) {
			t.Errorf("from %s: %v, want %q", text, err, want.from)
		}
	}
}

// Segments may have the same addresses: the segment of the trace's begin counts.
func TestSameAddressOnTwoSegments(t *testing.T) {
	d := Directory{MACs: []status.MAC{
		{Segment: "blue", MAC: "02:00:00:00:00:0a", IPs: []string{"172.16.0.1"}},
		{Segment: "red", MAC: "02:00:00:00:00:0b", IPs: []string{"172.16.0.1"}, Local: true, Sequence: 7},
	}}
	for _, segment := range []string{"blue", "red"} {
		if got, err := d.To("172.16.0.1", segment); err != nil || got.Segment != segment {
			t.Errorf("from %s: %+v, %v", segment, got, err)
		}
	}
}

func says(err error, part string) bool {
	if err == nil {
		return part == ""
	}
	return part != "" && strings.Contains(err.Error(), part)
}

func TestDestination(t *testing.T) {
	node := Endpoint{Node: "leaf1", Address: "10.0.0.1"}
	guest := Endpoint{Node: "leaf1", Segment: "blue", MAC: "a", Address: "172.16.0.1"}
	red := Endpoint{Segment: "red", MAC: "c", Address: "172.17.0.1"}
	byAddress := red
	byAddress.routed = true
	for name, test := range map[string]struct {
		from, to Endpoint
		want     status.Destination
		err      string
	}{
		"node to node":                    {node, Endpoint{Address: "10.0.0.2"}, status.Destination{Address: "10.0.0.2"}, ""},
		"guest to its segment":            {guest, Endpoint{Segment: "blue", MAC: "b"}, status.Destination{Segment: "blue", MAC: "b"}, ""},
		"guest to a MAC of nobody":        {guest, Endpoint{MAC: "b"}, status.Destination{Segment: "blue", MAC: "b"}, ""},
		"guest to another segment":        {guest, red, status.Destination{Segment: "blue", Address: "172.17.0.1"}, ""},
		"guest to an address":             {guest, Endpoint{Address: "192.0.2.1"}, status.Destination{Segment: "blue", Address: "192.0.2.1"}, ""},
		"node to a guest":                 {node, red, status.Destination{Segment: "red", MAC: "c"}, ""},
		"node to a guest's address":       {node, byAddress, status.Destination{Address: "172.17.0.1"}, ""},
		"node to a MAC of nobody":         {node, Endpoint{MAC: "b"}, status.Destination{}, "no node that was asked knows b"},
		"to another segment, address not": {guest, Endpoint{Name: "g3", Segment: "red", MAC: "c"}, status.Destination{}, "g3 is on segment red, and no IP address"},
	} {
		got, err := destination(test.from, test.to)
		if got != test.want || !says(err, test.err) {
			t.Errorf("%s: %+v, %v; want %+v, %q", name, got, err, test.want, test.err)
		}
	}
}
