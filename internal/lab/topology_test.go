package lab

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"frond/internal/fabric"
)

func TestParseShape(t *testing.T) {
	for _, tc := range []struct {
		text          string
		nodes, cables int
		first, last   string // cable
	}{
		{"spine-leaf:2x3", 5, 6, "leaf1:eth1–spine1:eth1", "leaf3:eth2–spine2:eth3"},
		{"spine-leaf:1x1", 2, 1, "leaf1:eth1–spine1:eth1", "leaf1:eth1–spine1:eth1"},
		{"chain:6", 6, 5, "node1:eth1–node2:eth1", "node5:eth2–node6:eth1"},
		{"ring:3", 3, 3, "node1:eth1–node2:eth1", "node3:eth2–node1:eth2"},
		{"hub:4", 5, 4, "leaf1:eth1–hub:eth1", "leaf4:eth1–hub:eth4"},
		{"parallel:2", 2, 2, "node1:eth1–node2:eth1", "node1:eth2–node2:eth2"},
	} {
		topology, err := ParseShape(tc.text)
		if err != nil {
			t.Errorf("%s: %v", tc.text, err)
			continue
		}
		if len(topology.Nodes) != tc.nodes || len(topology.Cables) != tc.cables {
			t.Errorf("%s: %d nodes, %d cables; want %d, %d", tc.text, len(topology.Nodes), len(topology.Cables), tc.nodes, tc.cables)
		}
		first, last := topology.Cables[0].String(), topology.Cables[len(topology.Cables)-1].String()
		if first != tc.first || last != tc.last {
			t.Errorf("%s: from %s to %s; want %s, %s", tc.text, first, last, tc.first, tc.last)
		}
		f, err := fabric.Parse("fabric.yaml", Document("lab", topology), ".")
		if err != nil {
			t.Errorf("%s: its document: %v", tc.text, err)
			continue
		}
		if err := topology.check(f); err != nil {
			t.Errorf("%s: %v", tc.text, err)
		}
	}
	for _, text := range []string{
		"", "star:3", "chain", "chain:x", "chain:1", "ring:2", "hub:0", "parallel:0", "spine-leaf:2", "spine-leaf:2x3x4",
		"spine-leaf:0x3", "spine-leaf:-1x-3", "chain:201", "spine-leaf:100x100", "parallel:2001",
	} {
		var input InputError
		if _, err := ParseShape(text); !errors.As(err, &input) {
			t.Errorf("%q: %v; want an InputError", text, err)
		}
	}
}

const document = `
fabric: t
underlay: {loopbacks: [10.0.0.0/16], ports: ["eth*", "en*"]}
nodes:
  spine1: {role: spine, loopback: 10.0.254.1}
  leaf1: {loopback: 10.0.200.1, reserved_ports: [eth9]}
  leaf2: {loopback: 10.0.200.2}
`

func load(t *testing.T, text string) *fabric.Fabric {
	t.Helper()
	f, err := fabric.Parse("fabric.yaml", []byte(text), ".")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCabled(t *testing.T) {
	f := load(t, document)
	for _, tc := range []struct {
		name  string
		lines []string
		want  []string
		err   string
	}{
		{"none", nil, []string{"leaf1:eth1–spine1:eth1", "leaf2:eth1–spine1:eth2"}, ""},
		{"only comments", []string{"# nothing", ""}, []string{"leaf1:eth1–spine1:eth1", "leaf2:eth1–spine1:eth2"}, ""},
		{"named", []string{"leaf1:eth4 spine1:enp1 # first"}, []string{"leaf1:eth4–spine1:enp1"}, ""},
		{"named ports are not given away", []string{"leaf1 spine1", "leaf1:eth1 leaf2:eth1"}, []string{"leaf1:eth1–leaf2:eth1", "leaf1:eth2–spine1:eth1"}, ""},
		{"parallel", []string{"leaf1 leaf2", "leaf1 leaf2"}, []string{"leaf1:eth1–leaf2:eth1", "leaf1:eth2–leaf2:eth2"}, ""},
		{"one end", []string{"leaf1"}, nil, "two ends"},
		{"three ends", []string{"leaf1 leaf2 spine1"}, nil, "two ends"},
		{"no port", []string{"leaf1: spine1"}, nil, "NODE:PORT"},
		{"two colons", []string{"leaf1:eth1:2 spine1"}, nil, "NODE:PORT"},
		{"no such node", []string{"leaf7 spine1"}, nil, "leaf7"},
		{"itself", []string{"leaf1 leaf1"}, nil, "both ends"},
		{"taken twice", []string{"leaf1:eth1 spine1:eth1", "leaf2:eth1 spine1:eth1"}, nil, "taken"},
		{"no port of the fabric", []string{"leaf1:wlan0 spine1"}, nil, "not the fabric's"},
		{"reserved", []string{"leaf1:eth9 spine1"}, nil, "not the fabric's"},
		{"too long", []string{"leaf1:eth1234567890123 spine1"}, nil, "15"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			topology, err := Cabled(f, tc.lines)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v; want one about %q", err, tc.err)
				}
				return
			}
			var got []string
			for _, c := range topology.Cables {
				got = append(got, c.String())
			}
			if d := cmp.Diff(tc.want, got); err != nil || d != "" {
				t.Errorf("%v\n%s", err, d)
			}
		})
	}
}

func TestTopologyAsJSON(t *testing.T) {
	want := SpineLeaf(2, 2)
	text, err := json.Marshal(want)
	if err != nil || !strings.Contains(string(text), `{"id":1,"a":"leaf1:eth1","b":"spine1:eth1"}`) {
		t.Errorf("%s, %v", text, err)
	}
	var got Topology
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestBetween(t *testing.T) {
	topology := Parallel(3)
	for _, tc := range []struct {
		a, b string
		want string
	}{
		{"node1", "node2", "[1 2 3]"},
		{"node2", "node1", "[1 2 3]"},
		{"node1:eth2", "node2", "[2]"},
		{"node2", "node1:eth3", "[3]"},
		{"node1:eth2", "node2:eth2", "[2]"},
		{"node1:eth2", "node2:eth3", "no cable between node1:eth2 and node2:eth3: node1 has eth1 to node2:eth1, eth2 to node2:eth2, eth3 to node2:eth3"},
		{"node1", "node1", "no cable between node1 and node1: node1 has eth1 to node2:eth1, eth2 to node2:eth2, eth3 to node2:eth3"},
		{"node1", "node9", `no node "node9": there are node1, node2`},
	} {
		a, _ := ParseEnd(tc.a)
		b, _ := ParseEnd(tc.b)
		cables, err := topology.Between(a, b)
		var ids []int
		for _, c := range cables {
			ids = append(ids, c.ID)
		}
		got := fmt.Sprint(ids)
		if err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("%s, %s: %s; want %s", tc.a, tc.b, got, tc.want)
		}
	}
}

func TestRecablePlan(t *testing.T) {
	for _, tc := range []struct {
		name, a, b string
		want       string // the next topology
		removed    int
		err        string
	}{
		{"other end moves", "leaf1:eth1", "spine2:eth7", "1 leaf1:eth1–spine2:eth7, 2 leaf1:eth2–spine2:eth1", 0, ""},
		{"the other way round", "spine1:eth1", "spine2:eth7", "1 spine2:eth7–spine1:eth1, 2 leaf1:eth2–spine2:eth1", 0, ""},
		{"only b had a cable", "leaf2:eth1", "spine1:eth1", "1 leaf2:eth1–spine1:eth1, 2 leaf1:eth2–spine2:eth1", 0, ""},
		{"neither had", "leaf2:eth1", "spine1:eth2", "1 leaf1:eth1–spine1:eth1, 2 leaf1:eth2–spine2:eth1, 3 leaf2:eth1–spine1:eth2", 0, ""},
		{"both had", "spine1:eth1", "spine2:eth1", "1 spine2:eth1–spine1:eth1", 1, ""},
		{"as it is", "spine1:eth1", "leaf1:eth1", "", 0, "already"},
		{"no port", "spine1:eth1", "leaf2", "", 0, "name the port"},
		{"no node", "spine1:eth1", "leaf3:eth1", "", 0, "no node"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := SpineLeaf(2, 1)
			before.Nodes = append(before.Nodes, Node{Name: "leaf2", Role: fabric.Leaf})
			a, _ := ParseEnd(tc.a)
			b, _ := ParseEnd(tc.b)
			next, move, err := before.recable(a, b)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Errorf("error %v; want one about %q", err, tc.err)
				}
				return
			}
			var got []string
			for _, c := range next.Cables {
				got = append(got, fmt.Sprint(c.ID, " ", c))
			}
			if s := strings.Join(got, ", "); err != nil || s != tc.want || len(move.remove) != tc.removed {
				t.Errorf("%s, %d removed, %v; want %s, %d removed", s, len(move.remove), err, tc.want, tc.removed)
			}
			if d := cmp.Diff(SpineLeaf(2, 1).Cables, before.Cables); d != "" {
				t.Errorf("the topology before has changed: %s", d)
			}
		})
	}
}

func TestNextHops(t *testing.T) {
	cut := SpineLeaf(2, 2).Whole(States{1: {Cut: true}}) // leaf1–spine1
	mixed := SpineLeaf(2, 2)
	mixed.connect(End{Node: "leaf1"}, End{Node: "leaf2"})
	apart := Topology{Nodes: append(Chain(2).Nodes, Node{Name: "alone"}), Cables: Chain(2).Cables}
	for _, tc := range []struct {
		name     string
		topology Topology
		from, to string
		want     []string
	}{
		{"leaf to leaf", SpineLeaf(2, 3), "leaf1", "leaf3", []string{"eth1", "eth2"}},
		{"leaf to spine", SpineLeaf(2, 3), "leaf1", "spine2", []string{"eth2"}},
		{"spine to spine", SpineLeaf(2, 3), "spine1", "spine2", []string{"eth1", "eth2", "eth3"}},
		{"itself", SpineLeaf(2, 3), "leaf1", "leaf1", nil},
		{"cut: one left", cut, "leaf1", "leaf2", []string{"eth2"}},
		{"cut: others know", cut, "leaf2", "leaf1", []string{"eth2"}},
		{"cut: around", cut, "leaf1", "spine1", []string{"eth2"}},
		{"shorter beats more", mixed, "leaf1", "leaf2", []string{"eth3"}},
		{"ring, opposite", Ring(6), "node1", "node4", []string{"eth1", "eth2"}},
		{"ring, near", Ring(6), "node1", "node3", []string{"eth1"}},
		{"parallel", Parallel(3), "node1", "node2", []string{"eth1", "eth2", "eth3"}},
		{"no way", apart, "node1", "alone", nil},
	} {
		got := NextHops(tc.topology)[tc.from][tc.to]
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%s: %s", tc.name, d)
		}
	}
}

func TestNames(t *testing.T) {
	for name, good := range map[string]bool{
		"frond": true, "a": true, "l2": true, "twentycharactersatmos": false, "": false, "a-b": false, "2a": false, "A": false, "a.b": false, "../a": false,
	} {
		if err := CheckName(name); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}
