package plan

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"frond/internal/dataplane"
	"frond/internal/fabric"
)

func TestUplink(t *testing.T) {
	document := `
fabric: apollo
underlay: {loopbacks: [10.0.0.0/16, "fd00:10::/48"]}
nodes:
  leaf1: {loopback: 10.0.200.1, advertise: [192.0.2.0/24]}
  exit1: {role: exit, loopback: 10.0.100.1, uplink: {port: up0, masquerade: true, preference: 200}}
  exit2: {role: exit, loopback: 10.0.100.2, uplink: {port: up0, masquerade: true}}
  exit3: {role: exit, loopback: 10.0.100.3, uplink: {port: up0, preference: 200}}
  exit4: {role: exit, loopback: 10.0.100.4, uplink: {port: up0, preference: 1}}
  exit5: {role: exit, loopback: 10.0.100.5}
segments:
  blue: {vni: 1, nodes: [leaf1], prefix: 172.16.0.0/24, prefix6: "fd00:172::/64"}
  red: {vni: 2, nodes: [leaf1]}
`
	f, err := fabric.Parse("fabric.yaml", []byte(document), ".")
	if err != nil {
		t.Fatal(err)
	}
	sources := parsePrefixes("10.0.0.0/16", "172.16.0.0/24", "fd00:10::/48", "fd00:172::/64")
	tests := []struct {
		node       string
		none       bool
		prepend    uint8
		masquerade dataplane.Masquerade
	}{
		{node: "leaf1", none: true},
		{node: "exit1", masquerade: dataplane.Masquerade{Port: "up0", Sources: sources}},
		{node: "exit2", prepend: prependPerRank, masquerade: dataplane.Masquerade{Port: "up0", Sources: sources}},
		{node: "exit3"},
		{node: "exit4", prepend: 2 * prependPerRank},
		{node: "exit5", none: true},
	}
	for _, test := range tests {
		p, err := For(f, test.node)
		if err != nil {
			t.Fatal(err)
		}
		if (p.Uplink == nil) != test.none {
			t.Errorf("%s has the uplink %+v", test.node, p.Uplink)
		}
		if test.none {
			continue
		}
		if diff := cmp.Diff(test.masquerade, p.Uplink.Masquerade, netipValues); diff != "" {
			t.Errorf("%s: source NAT differs (-want +got):\n%s", test.node, diff)
		}
		if route := p.Uplink.Announce(Defaults[1]); route.Prepend != test.prepend || route.Prefix.String() != "::/0" {
			t.Errorf("%s announces %+v, want it longer by %d", test.node, route, test.prepend)
		}
	}
}

func TestRankIsBounded(t *testing.T) {
	var f fabric.Fabric
	for preference := range 100 {
		f.Nodes = append(f.Nodes, fabric.Node{Uplink: &fabric.Uplink{Preference: preference}})
	}
	if got := uplinkOf(&f, f.Nodes[0]).Prepend; got != prependPerRank*maxRank {
		t.Errorf("the last of 100 ranks prepends %d", got)
	}
}
