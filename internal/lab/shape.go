package lab

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"frond/internal/fabric"
)

// The largest shapes: what one machine can be expected to carry.
const (
	maxNodes  = 200
	maxCables = 2000
)

// SpineLeaf cables every leaf to every spine: port ethN of a leaf goes to
// spine N, port ethN of a spine to leaf N.
func SpineLeaf(spines, leafs int) Topology {
	t := Topology{Nodes: append(numbered("spine", fabric.Spine, spines), numbered("leaf", fabric.Leaf, leafs)...)}
	for _, leaf := range t.Nodes[spines:] {
		for _, spine := range t.Nodes[:spines] {
			t.connect(End{Node: leaf.Name}, End{Node: spine.Name})
		}
	}
	return t
}

// Chain cables each of n nodes to the next.
func Chain(n int) Topology {
	t := Topology{Nodes: numbered("node", fabric.Leaf, n)}
	for i := range n - 1 {
		t.connect(End{Node: t.Nodes[i].Name}, End{Node: t.Nodes[i+1].Name})
	}
	return t
}

// Ring is a chain whose ends are cabled to each other.
func Ring(n int) Topology {
	t := Chain(n)
	t.connect(End{Node: t.Nodes[n-1].Name}, End{Node: t.Nodes[0].Name})
	return t
}

// HubAndSpoke cables n leafs to one hub.
func HubAndSpoke(n int) Topology {
	t := Topology{Nodes: append([]Node{{Name: "hub", Role: fabric.Spine}}, numbered("leaf", fabric.Leaf, n)...)}
	for _, leaf := range t.Nodes[1:] {
		t.connect(End{Node: leaf.Name}, End{Node: "hub"})
	}
	return t
}

// Parallel puts n cables between two nodes.
func Parallel(n int) Topology {
	t := Topology{Nodes: numbered("node", fabric.Leaf, 2)}
	for range n {
		t.connect(End{Node: "node1"}, End{Node: "node2"})
	}
	return t
}

func numbered(name string, role fabric.Role, n int) []Node {
	nodes := make([]Node, n)
	for i := range nodes {
		nodes[i] = Node{Name: name + strconv.Itoa(i+1), Role: role}
	}
	return nodes
}

// ParseShape reads the shape of a topology: spine-leaf:2x3, chain:6, ring:6,
// hub:4 (leafs), parallel:2 (cables).
func ParseShape(text string) (Topology, error) {
	shape, size, _ := strings.Cut(text, ":")
	if shape == "spine-leaf" {
		var spines, leafs int
		if n, err := fmt.Sscanf(size+"\n", "%dx%d\n", &spines, &leafs); n != 2 || err != nil {
			return Topology{}, inputf("shape %q: want spine-leaf:SPINESxLEAFS, as in spine-leaf:2x3", text)
		}
		return ofSize(spines*leafs, min(spines, leafs, 1), spines+leafs, func() Topology { return SpineLeaf(spines, leafs) })
	}
	shapes := map[string]struct {
		least int
		make  func(int) Topology
	}{
		"chain":    {2, Chain},
		"ring":     {3, Ring},
		"hub":      {1, HubAndSpoke},
		"parallel": {1, Parallel},
	}
	known, ok := shapes[shape]
	n, err := strconv.Atoi(size)
	if !ok || err != nil {
		return Topology{}, inputf("shape %q: want spine-leaf:2x3, chain:6, ring:6, hub:4 or parallel:2", text)
	}
	if n < known.least {
		return Topology{}, inputf("shape %q: want at least %d", text, known.least)
	}
	return ofSize(n, 1, n+1, func() Topology { return known.make(n) })
}

// ofSize makes a topology unless it is empty or beyond what a lab may be.
func ofSize(cables, least, nodes int, shape func() Topology) (Topology, error) {
	if least < 1 || nodes > maxNodes || cables > maxCables {
		return Topology{}, inputf("%d nodes and %d cables: a lab has at least one of each kind, at most %d nodes and %d cables",
			nodes, cables, maxNodes, maxCables)
	}
	return shape(), nil
}

// Document is a fabric.yaml for a topology whose ports are all named eth…:
// spines get loopbacks from 10.0.254.1 on, other nodes from 10.0.200.1 on.
func Document(name string, t Topology) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "fabric: %s\nunderlay:\n  loopbacks: [10.0.0.0/16]\n  ports: [\"eth*\"]\nnodes:\n", name)
	spines, others, exits := 0, 0, 0
	for _, n := range t.Nodes {
		if n.Role == fabric.Spine {
			spines++
			fmt.Fprintf(&b, "  %s: {role: spine, loopback: 10.0.254.%d}\n", n.Name, spines)
			continue
		}
		if n.Role == fabric.Exit {
			exits++
			b.WriteString(exitLine(n.Name, exits))
			continue
		}
		others++
		fmt.Fprintf(&b, "  %s: {loopback: 10.0.%d.%d}\n", n.Name, 200+others>>8, others&0xff)
	}
	return []byte(b.String())
}

// WithSegment is a document with a segment, blue, for the guests of all nodes
// but spines and exits. Where there are exits, it has a gateway to them; with
// dhcp, addresses for guests, and a gateway that they are told of.
func WithSegment(document []byte, t Topology, dhcp bool) []byte {
	var nodes []string
	for _, n := range t.Nodes {
		if n.Role != fabric.Spine && n.Role != fabric.Exit {
			nodes = append(nodes, n.Name)
		}
	}
	gateway := ""
	if slices.ContainsFunc(t.Nodes, func(n Node) bool { return n.Role == fabric.Exit }) {
		gateway = `, prefix6: "fd00:172:16::/64", gateway: {address: 172.16.0.1, address6: "fd00:172:16::1"}`
	}
	if dhcp && gateway == "" {
		gateway = ", gateway: {address: 172.16.0.1}"
	}
	if dhcp {
		gateway += ", dhcp: {range: 172.16.1.0-172.16.99.255}"
	}
	return fmt.Appendf(document, "segments:\n  blue: {vni: 100, nodes: [%s], prefix: 172.16.0.0/16%s}\n", strings.Join(nodes, ", "), gateway)
}
