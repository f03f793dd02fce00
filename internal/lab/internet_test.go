package lab

import (
	"errors"
	"strings"
	"testing"

	"frond/internal/fabric"
)

func parseDocument(t *testing.T, text string) *fabric.Fabric {
	t.Helper()
	f, err := fabric.Parse("fabric.yaml", []byte(text), ".")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestWithExits(t *testing.T) {
	for shape, want := range map[string]struct {
		exits, cables int
	}{"spine-leaf:2x3": {2, 6 + 4}, "ring:3": {1, 3 + 3}, "spine-leaf:1x1": {maxExits, 1 + maxExits}} {
		topology, err := ParseShape(shape)
		if err != nil {
			t.Fatal(err)
		}
		topology, err = topology.WithExits(want.exits)
		if err != nil {
			t.Fatal(err)
		}
		f := parseDocument(t, string(WithSegment(Document("lab", topology), topology, false)))
		before := NextHops(topology)
		topology, err = topology.WithInternet(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := topology.check(f); err != nil {
			t.Error(err)
		}
		if len(topology.Cables) != want.cables || len(topology.Uplinks) != want.exits {
			t.Errorf("%s: %d cables, %d uplinks", shape, len(topology.Cables), len(topology.Uplinks))
		}
		if after := NextHops(topology); len(after["edge1"]["edge2"]) != len(before["edge1"]["edge2"]) {
			t.Errorf("%s: the internet is a way between exits", shape)
		}
		ids := map[int]bool{}
		for _, c := range topology.AllCables() {
			ids[c.ID] = true
		}
		if len(ids) != want.cables+want.exits {
			t.Errorf("%s: cables share numbers", shape)
		}
		if cables, err := topology.Between(End{Node: "edge1"}, End{Node: Internet}); err != nil || cables[0].String() != "edge1:up0–internet:eth1" {
			t.Errorf("%s: %v, %v", shape, cables, err)
		}
		if f.Segments[0].Gateway == nil || strings.Contains(strings.Join(f.Segments[0].Nodes, " "), "edge") {
			t.Errorf("%s: the segment is %+v", shape, f.Segments[0])
		}
	}
	var input InputError
	for _, n := range []int{-1, maxExits + 1} {
		if _, err := SpineLeaf(1, 1).WithExits(n); !errors.As(err, &input) {
			t.Errorf("%d exits: %v", n, err)
		}
	}
	if _, err := SpineLeaf(1, 1).Between(End{Node: "leaf1"}, End{Node: Internet}); err == nil || !strings.Contains(err.Error(), `no node "internet"`) {
		t.Errorf("without exits: %v", err)
	}
}

func TestUplinksOfADocument(t *testing.T) {
	const document = `
fabric: apollo
underlay: {loopbacks: [10.0.0.0/16], ports: ["*"]}
nodes:
  spine1: {role: spine, loopback: 10.0.254.1}
  edge1: {role: exit, loopback: 10.0.100.1, uplink: {port: eth1, address: 192.0.2.2/24, next_hop: 192.0.2.1}}
  edge2: {role: exit, loopback: 10.0.100.2, uplink: {port: enp3s0, dhcp: true}}
  edge3: {role: exit, loopback: 10.0.100.3, uplink: {port: enp3s0, next_hop6: "fe80::1"}}
  edge4: {role: exit, loopback: 10.0.100.4}
`
	f := parseDocument(t, document)
	topology, err := Cabled(f, []string{"edge1:eth2 spine1", "edge2 spine1"})
	if err != nil {
		t.Fatal(err)
	}
	all, err := routers(f, topology.Uplinks)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range all {
		line := r.cable.String()
		for _, a := range r.addresses {
			line += " " + a.String()
		}
		for _, a := range r.operator {
			line += " operator " + a.String()
		}
		got = append(got, line)
	}
	want := `edge1:eth1–internet:eth1 192.0.2.1/24
edge2:enp3s0–internet:eth2 203.0.113.5/30
edge3:enp3s0–internet:eth3 203.0.113.9/30 fe80::1/64 operator 203.0.113.10/30`
	if strings.Join(got, "\n") != want {
		t.Errorf("uplinks are\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
	for name, change := range map[string][2]string{
		"a node of that name":     {"edge4:", "internet:"},
		"a port without a name":   {"port: eth1", `port: "eth 1"`},
		"a cable at the same end": {"", ""},
	} {
		lines := []string{}
		if change[0] == "" {
			lines = append(lines, "edge1:eth1 spine1:eth1")
		}
		f, err := fabric.Parse("fabric.yaml", []byte(strings.Replace(document, change[0], change[1], 1)), ".")
		if err != nil {
			t.Logf("%s: the document itself is refused: %v", name, err)
			continue
		}
		var input InputError
		if _, err := Cabled(f, lines); !errors.As(err, &input) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSegmentWithDHCP has the document that is made up for guests with DHCP be
// valid, and its guests ask their gateway for names.
func TestSegmentWithDHCP(t *testing.T) {
	for exits, resolvers := range []int{1, 2} {
		topology, err := SpineLeaf(1, 2).WithExits(exits)
		if err != nil {
			t.Fatal(err)
		}
		s := parseDocument(t, string(WithSegment(Document("lab", topology), topology, true))).Segments[0]
		if s.DHCP == nil || !s.DNSNames || len(s.Resolvers()) != resolvers {
			t.Errorf("with %d exits, the segment is %+v", exits, s)
		}
	}
}
