package guard

import (
	"net/netip"
	"testing"

	"frond/internal/bgp"
	"frond/internal/fabric"
)

const document = `
fabric: apollo
underlay: {loopbacks: [10.0.0.0/16, "fd00:10::/48"]}
nodes:
  spine1: {role: spine, loopback: 10.0.254.1, asn: 65000}
  spine2: {role: spine, loopback: 10.0.254.2, asn: 65000}
  leaf1:  {loopback: 10.0.200.1, asn: 1, anycast: [10.0.200.0/32]}
  leaf2:  {loopback: 10.0.200.2, asn: 2, anycast: [10.0.200.0/32], advertise: [192.0.2.0/24]}
  leaf3:  {loopback: 10.0.200.3, asn: 3}
  edge1:  {role: exit, loopback: 10.0.100.1, asn: 9, uplink: {port: up0}}
segments:
  blue: {vni: 100, nodes: [leaf1, leaf2], prefix: 172.16.0.0/24, prefix6: "fd00:172::/64", gateway: {address: 172.16.0.1, address6: "fd00:172::1"}}
  red:  {vni: 200, nodes: [leaf2, leaf3], prefix: 172.17.0.0/16, gateway: {address: 172.17.0.1, mode: elected}}
  bare: {vni: 300, nodes: [leaf3]}
`

func parse(t testing.TB, text string) *fabric.Fabric {
	t.Helper()
	f, err := fabric.Parse("fabric.yaml", []byte(text), ".")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// routesOf are the rules of a node of the document above.
func routesOf(t testing.TB, node string) *Routes {
	f := parse(t, document)
	self, ok := f.Node(node)
	if !ok {
		t.Fatalf("no node %s", node)
	}
	return RoutesFor(f, self)
}

// tells is the teller of a path that begins with the peer.
func tells(path ...uint32) bgp.Teller { return bgp.Teller{ASN: path[0], Path: path} }

func TestUnicast(t *testing.T) {
	r := routesOf(t, "leaf1")
	for _, test := range []struct {
		prefix string
		teller bgp.Teller
		want   bgp.Refusal
	}{
		{"10.0.200.2/32", tells(65000, 2), ""},
		{"fd00:10::a00:c802/128", tells(65000, 2), ""},
		{"10.0.254.1/32", tells(65000), ""},
		{"10.0.254.2/32", bgp.Teller{ASN: 65000, Internal: true}, ""}, // between spines that share their AS
		{"10.0.200.2/32", tells(65000, 3), OtherOrigin},
		{"fd00:10::a00:c802/128", tells(65000, 3), OtherOrigin},
		{"10.0.200.2/32", tells(3), OtherOrigin},
		{"10.0.200.1/32", tells(65000, 2), OwnAddress},
		{"fd00:10::a00:c801/128", tells(65000, 2), OwnAddress},
		{"10.0.200.9/32", tells(65000, 2), NoNode},
		{"fd00:10::99/128", tells(65000, 2), NoNode},
		{"10.0.200.2/31", tells(65000, 2), NotInDocument}, // shorter than a loopback
		{"10.0.0.0/16", tells(65000, 2), NotInDocument},
		{"10.0.200.0/32", tells(65000, 2), ""}, // anycast, of leaf1 too
		{"10.0.200.0/32", tells(65000, 3), OtherOrigin},
		{"192.0.2.0/24", tells(65000, 2), ""},
		{"192.0.2.0/24", tells(65000, 3), OtherOrigin},
		{"192.0.2.0/25", tells(65000, 2), NotInDocument},
		{"192.0.2.1/32", tells(65000, 2), NotInDocument},
		{"0.0.0.0/0", tells(65000, 9), ""},
		{"0.0.0.0/0", tells(65000, 9, 9, 9), ""}, // prepended
		{"::/0", tells(65000, 9), ""},
		{"0.0.0.0/0", tells(65000, 2), NotAnExit},
		{"::/0", tells(2), NotAnExit},
		{"0.0.0.0/1", tells(65000, 9), NotInDocument},
		{"172.16.0.0/24", tells(65000, 2), ""},
		{"fd00:172::/64", tells(65000, 2), ""},
		{"172.16.0.0/24", tells(65000, 3), OutsideSegment},
		{"172.16.0.0/25", tells(65000, 2), NotInDocument},
		{"172.16.0.0/23", tells(65000, 2), NotInDocument},
		{"172.16.0.77/32", tells(65000, 2), ""},
		{"fd00:172::77/128", tells(65000, 2), ""},
		{"172.16.0.77/32", tells(65000, 3), OutsideSegment},
		{"fd00:172::77/128", tells(65000, 3), OutsideSegment},
		{"172.17.255.77/32", tells(65000, 3), ""},
		{"172.17.255.77/32", tells(65000, 65000), OutsideSegment},
		{"172.16.0.1/32", tells(65000, 2), GatewayAddress},
		{"fd00:172::1/128", tells(65000, 2), GatewayAddress},
		{"172.17.0.1/32", tells(65000, 2), ""}, // elected: one node has it
		{"8.8.8.8/32", tells(65000, 2), NotInDocument},
		{"10.0.200.2/32", tells(65000, 77, 2), PathOfNobody},
		{"10.0.200.2/32", tells(77, 2), PathOfNobody},
		{"10.0.200.2/32", bgp.Teller{ASN: 77, Internal: true, Path: []uint32{2}}, PathOfNobody},
		{"10.0.200.2/32", bgp.Teller{ASN: 3, Path: []uint32{2}}, PathNotOfTeller},
		{"10.0.200.3/32", bgp.Teller{ASN: 3}, PathNotOfTeller},
		{"10.0.200.2/32", bgp.Teller{ASN: 65000, Path: []uint32{65000, 3, 2}, Sets: true}, PathWithSet},
	} {
		if got := r.Unicast(netip.MustParsePrefix(test.prefix), test.teller); got != test.want {
			t.Errorf("%s by %v: %q, want %q", test.prefix, test.teller, got, test.want)
		}
	}
}

func TestUnicastWithoutExitsAndSegments(t *testing.T) {
	f := parse(t, "fabric: apollo\nunderlay: {loopbacks: [10.0.0.0/16]}\nnodes: {leaf1: {loopback: 10.0.0.1, asn: 1}, leaf2: {loopback: 10.0.0.2, asn: 2}}\n")
	r := RoutesFor(f, f.Nodes[0])
	for prefix, want := range map[string]bgp.Refusal{"10.0.0.2/32": "", "0.0.0.0/0": NotAnExit, "172.16.0.1/32": NotInDocument} {
		if got := r.Unicast(netip.MustParsePrefix(prefix), tells(2)); got != want {
			t.Errorf("%s: %q, want %q", prefix, got, want)
		}
	}
}

func TestEVPN(t *testing.T) {
	r := routesOf(t, "leaf1")
	claim := func(vni uint32, rd string, vteps ...string) Claim {
		c := Claim{VNI: vni}
		if rd != "" {
			c.RD = netip.MustParseAddr(rd)
		}
		for _, vtep := range vteps {
			c.VTEPs = append(c.VTEPs, netip.MustParseAddr(vtep))
		}
		return c
	}
	prefix := func(text string) Claim {
		c := claim(200, "10.0.200.2", "10.0.200.2")
		c.Prefix = netip.MustParsePrefix(text)
		return c
	}
	for name, test := range map[string]struct {
		claim  Claim
		teller bgp.Teller
		want   bgp.Refusal
	}{
		"as it should be":                  {claim(100, "10.0.200.2", "10.0.200.2", "10.0.200.2"), tells(65000, 2), ""},
		"IPv6":                             {claim(100, "10.0.200.2", "fd00:10::a00:c802"), tells(65000, 2), ""},
		"a distinguisher of no node":       {claim(100, "192.0.2.9", "10.0.200.2"), tells(65000, 2), ""},
		"no distinguisher by an address":   {claim(100, "", "10.0.200.2"), tells(65000, 2), ""},
		"another's VTEP":                   {claim(100, "10.0.200.3", "10.0.200.2"), tells(65000, 3), OtherVTEP},
		"another's tunnel":                 {claim(200, "10.0.200.3", "10.0.200.3", "10.0.200.2"), tells(65000, 3), OtherVTEP},
		"a VTEP of nobody":                 {claim(100, "10.0.200.2", "192.0.2.1"), tells(65000, 2), OtherVTEP},
		"our VTEP":                         {claim(100, "10.0.200.2", "10.0.200.1"), tells(65000, 1), OwnAddress},
		"another's distinguisher":          {claim(200, "10.0.200.2", "10.0.200.3"), tells(65000, 3), OtherRD},
		"a segment of others":              {claim(100, "10.0.200.3", "10.0.200.3"), tells(65000, 3), OutsideSegment},
		"a segment of nobody":              {claim(101, "10.0.200.2", "10.0.200.2"), tells(65000, 2), UnknownSegment},
		"no segment":                       {claim(0, "10.0.200.2", "10.0.200.2"), tells(65000, 2), ""},
		"a path of nobody":                 {claim(100, "10.0.200.2", "10.0.200.2"), tells(65000, 7, 2), PathOfNobody},
		"a prefix of a segment":            {prefix("172.17.0.0/16"), tells(65000, 2), ""},
		"a default route":                  {prefix("0.0.0.0/0"), tells(65000, 2), NotAnExit},
		"a loopback of another as prefix":  {prefix("10.0.200.3/32"), tells(65000, 2), OtherOrigin},
		"this node's loopback as a prefix": {prefix("10.0.200.1/32"), tells(65000, 2), OwnAddress},
	} {
		if got := r.EVPN(test.claim, test.teller); got != test.want {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
}

func BenchmarkUnicast(b *testing.B) {
	r := routesOf(b, "leaf1")
	guest, teller := netip.MustParsePrefix("172.17.255.77/32"), tells(65000, 3)
	for b.Loop() {
		if r.Unicast(guest, teller) != "" {
			b.Fatal("refused")
		}
	}
}
