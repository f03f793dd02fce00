package plan

import (
	"strings"
	"testing"

	"frond/internal/fabric"
)

func TestStore(t *testing.T) {
	const head = "fabric: apollo\nunderlay: {loopbacks: [10.0.0.0/16]}\nnodes:\n" +
		"  leaf1: {loopback: 10.0.200.1}\n  leaf2: {loopback: 10.0.200.2}\n"
	const spines = "  spine1: {role: spine, loopback: 10.0.254.1}\n  spine2: {role: spine, loopback: 10.0.254.2}\n"
	segment := func(more string) string {
		return "segments:\n  blue: {vni: 1, nodes: [leaf1], prefix: 172.16.0.0/24, " + more + "}\n"
	}
	const dhcp, elected, anycast = "dhcp: {range: 172.16.0.9-172.16.0.20}", "gateway: {address: 172.16.0.1, mode: elected}", "gateway: {address: 172.16.0.1}"
	for name, test := range map[string]struct{ document, members string }{
		"nothing needs it":          {head + spines + segment(anycast), ""},
		"named, nothing needs it":   {head + segment(anycast) + "store: {members: [leaf1]}\n", ""},
		"off":                       {head + segment(anycast) + "store: off\n", ""},
		"spines first, DHCP":        {head + spines + segment(dhcp), "spine1@10.0.254.1 spine2@10.0.254.2 leaf1@10.0.200.1"},
		"fewer than three, elected": {head + segment(elected), "leaf1@10.0.200.1"},
		"named":                     {head + spines + segment(dhcp) + "store: {members: [leaf2]}\n", "leaf2@10.0.200.2"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := fabric.Parse("fabric.yaml", []byte(test.document), "")
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range f.Nodes {
				p, err := For(f, n.Name)
				if err != nil {
					t.Fatal(err)
				}
				if (p.Store == nil) != (test.members == "") {
					t.Fatalf("%s: %+v", n.Name, p.Store)
				}
				if p.Store == nil {
					continue
				}
				var members []string
				for _, m := range p.Store.Members {
					members = append(members, m.Name+"@"+m.Address.String())
				}
				got := strings.Join(members, " ")
				if got != test.members || p.Store.Member != strings.Contains(got, n.Name+"@") {
					t.Errorf("%s: member %t of %s, want %s", n.Name, p.Store.Member, got, test.members)
				}
			}
		})
	}
}
