// Package lab builds whole fabrics on one machine: every node is a network
// namespace with the real agent in it, every cable a veth pair. It breaks
// them on purpose, and proves that they work.
//
// What a lab is, is a pure value (Topology); Up makes it, Down removes it, and
// everything between works on what is there, so each command is a process of
// its own and none has to keep running.
package lab

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"frond/internal/fabric"
)

// InputError is about what the lab was asked for, not about the lab.
type InputError struct{ err error }

func (e InputError) Error() string { return e.err.Error() }

// Unwrap gives the cause, if there is one.
func (e InputError) Unwrap() error { return errors.Unwrap(e.err) }

func inputf(format string, args ...any) error { return InputError{fmt.Errorf(format, args...)} }

// Topology is who is cabled to whom.
type Topology struct {
	Nodes  []Node  `json:"nodes"`
	Cables []Cable `json:"cables"`
	// Uplinks are the cables of exits to the namespace internet, which is no
	// node of the fabric.
	Uplinks []Cable `json:"uplinks,omitempty"`
	Guests  []Guest `json:"guests,omitempty"`
}

// Node is a namespace with an agent.
type Node struct {
	Name string      `json:"name"`
	Role fabric.Role `json:"role"`
}

// Cable connects two ports of different nodes.
type Cable struct {
	ID int `json:"id"` // unique in its lab, for as long as the cable exists
	A  End `json:"a"`
	B  End `json:"b"`
}

// End is a port of a node, in text NODE:PORT.
type End struct{ Node, Port string }

// ParseEnd reads NODE:PORT, or NODE alone.
func ParseEnd(text string) (End, error) {
	node, port, _ := strings.Cut(text, ":")
	if node == "" || strings.Contains(port, ":") || strings.HasSuffix(text, ":") {
		return End{}, inputf("%q: want NODE:PORT, as in leaf1:eth1", text)
	}
	return End{Node: node, Port: port}, nil
}

func (e End) String() string {
	if e.Port == "" {
		return e.Node
	}
	return e.Node + ":" + e.Port
}

// MarshalText is String.
func (e End) MarshalText() ([]byte, error) { return []byte(e.String()), nil }

// UnmarshalText is ParseEnd.
func (e *End) UnmarshalText(text []byte) (err error) {
	*e, err = ParseEnd(string(text))
	return err
}

func (c Cable) String() string { return c.A.String() + "–" + c.B.String() }

// At returns the end at a node, and the end at the other one.
func (c Cable) At(node string) (near, far End, ok bool) {
	switch node {
	case c.A.Node:
		return c.A, c.B, true
	case c.B.Node:
		return c.B, c.A, true
	}
	return End{}, End{}, false
}

// Between returns the cables between two nodes, in the order of their ends a
// and b; an end without a port stands for all ports of its node. That there is
// none is an error.
func (t Topology) Between(a, b End) ([]Cable, error) {
	for _, e := range []End{a, b} {
		if err := t.checkPlace(e.Node); err != nil {
			return nil, err
		}
	}
	var found []Cable
	for _, c := range t.AllCables() {
		if a.covers(c.A) && b.covers(c.B) || a.covers(c.B) && b.covers(c.A) {
			found = append(found, c)
		}
	}
	if len(found) == 0 {
		return nil, inputf("no cable between %s and %s: %s", a, b, t.describe(a.Node))
	}
	return found, nil
}

func (e End) covers(other End) bool {
	return e.Node == other.Node && (e.Port == "" || e.Port == other.Port)
}

// describe tells what a node is cabled to, to help whoever named it wrongly.
func (t Topology) describe(node string) string {
	var ends []string
	for _, c := range t.AllCables() {
		if near, far, ok := c.At(node); ok {
			ends = append(ends, near.Port+" to "+far.String())
		}
	}
	if len(ends) == 0 {
		return node + " has no cable"
	}
	return node + " has " + strings.Join(ends, ", ")
}

func (t Topology) checkNode(name string) error {
	if slices.ContainsFunc(t.Nodes, func(n Node) bool { return n.Name == name }) {
		return nil
	}
	names := make([]string, len(t.Nodes))
	for i, n := range t.Nodes {
		names[i] = n.Name
	}
	return inputf("no node %q: there are %s", name, strings.Join(names, ", "))
}

// Degree is the number of cables at a node.
func (t Topology) Degree(node string) (n int) {
	for _, c := range t.Cables {
		if _, _, ok := c.At(node); ok {
			n++
		}
	}
	return n
}

// cableAt finds the cable that is plugged into a port.
func (t Topology) cableAt(e End) (Cable, bool) {
	for _, c := range t.AllCables() {
		if c.A == e || c.B == e {
			return c, true
		}
	}
	return Cable{}, false
}

// connect adds a cable. Ports that are not named are the next free ones of
// eth1, eth2, …
func (t *Topology) connect(a, b End) {
	t.Cables = append(t.Cables, Cable{ID: t.nextID(), A: t.named(a), B: t.named(b)})
}

func (t *Topology) nextID() int {
	id := 1
	for _, c := range t.AllCables() {
		id = max(id, c.ID+1)
	}
	return id
}

func (t *Topology) named(e End) End {
	for n := 1; e.Port == ""; n++ {
		free := End{e.Node, fmt.Sprintf("eth%d", n)}
		if _, taken := t.cableAt(free); !taken {
			return free
		}
	}
	return e
}

// portName is what the kernel takes as a name of an interface
// (dev_valid_name in net/core/dev.c), without what would confuse a reader.
var portName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$`)

// check says what is wrong with a topology for the nodes of a document.
func (t Topology) check(f *fabric.Fabric) error {
	plugged := map[End]Cable{}
	for _, c := range t.Cables {
		if c.A.Node == c.B.Node {
			return inputf("cable %s: both ends are at %s", c, c.A.Node)
		}
		for _, e := range []End{c.A, c.B} {
			if other, taken := plugged[e]; taken {
				return inputf("cable %s: port %s is taken by cable %s", c, e, other)
			}
			plugged[e] = c
			if err := checkPort(f, e); err != nil {
				return inputf("cable %s: %w", c, err)
			}
		}
	}
	return t.checkUplinks(f)
}

// checkPort refuses a port that the node's agent would leave alone.
func checkPort(f *fabric.Fabric, e End) error {
	node, err := f.Find(e.Node)
	if err != nil {
		return err
	}
	if !portName.MatchString(e.Port) {
		return inputf("port %q is no name of an interface: want at most 15 letters, digits, dots and dashes", e.Port)
	}
	if !matches(node.Ports, e.Port) || matches(node.ReservedPorts, e.Port) {
		return inputf("port %s is not the fabric's by the document: ports are %q, reserved %q", e, node.Ports, node.ReservedPorts)
	}
	return nil
}

func matches(globs []string, name string) bool {
	return slices.ContainsFunc(globs, func(glob string) bool {
		ok, err := path.Match(glob, name)
		return ok && err == nil
	})
}
