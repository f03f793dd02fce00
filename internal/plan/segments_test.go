package plan

import (
	"net/netip"
	"slices"
	"testing"

	"frond/internal/dataplane"
	"frond/internal/fabric"
)

const segmented = `
fabric: apollo
underlay:
  loopbacks: [10.0.0.0/16]
nodes:
  spine1: {role: spine, loopback: 10.0.254.1}
  leaf1:  {loopback: 10.0.200.1}
segments:
  blue: {vni: 100, nodes: ["leaf*"]}
  a-rather-long-name: {vni: 200, nodes: ["leaf*", spine1], bridge: lan0, mtu: 1500, mac_limit: 5}
`

func TestSegments(t *testing.T) {
	f, err := fabric.Parse("fabric.yaml", []byte(segmented), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	leaf, spine := netip.MustParseAddr("10.0.200.1"), netip.MustParseAddr("10.0.254.1")
	other := dataplane.Segment{Name: "a-rather-long-name", Bridge: "lan0", VXLAN: "vx-a-rather-lon", VNI: 200, MTU: 1500, MACLimit: 5}
	onLeaf, onSpine := other, other
	onLeaf.Local, onSpine.Local = leaf, spine
	for node, want := range map[string][]dataplane.Segment{
		"leaf1": {
			{Name: "blue", Bridge: "br-blue", VXLAN: "vx-blue", VNI: 100, Local: leaf, MTU: 8950, MACLimit: 1000},
			onLeaf,
		},
		"spine1": {onSpine},
	} {
		p, err := For(f, node)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Segments(9000); !slices.Equal(got, want) {
			t.Errorf("%s takes part in %+v, want %+v", node, got, want)
		}
	}
}
