package fabric

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDeriveASN(t *testing.T) {
	for loopback, want := range map[string]uint32{
		"10.0.0.0":       4200000000,
		"10.0.0.1":       4200000001,
		"10.0.1.0":       4200000256,
		"10.0.200.1":     4200051201,
		"11.0.200.1":     4200051201, // the first byte does not count
		"10.255.255.255": 4216777215,
	} {
		if got := deriveASN(netip.MustParseAddr(loopback)); got != want {
			t.Errorf("%s: got %d, want %d", loopback, got, want)
		}
	}
}

func TestDeriveLoopback6(t *testing.T) {
	for _, test := range []struct{ prefix, loopback, want string }{
		{"fd00:10::/48", "10.0.200.1", "fd00:10::a00:c801"},
		{"2001:db8:1:2::/64", "10.0.0.0", "2001:db8:1:2::a00:0"},
		{"fd00::1:0:0/96", "255.255.255.255", "fd00::1:ffff:ffff"},
	} {
		prefix := netip.MustParsePrefix(test.prefix)
		got := deriveLoopback6(prefix, netip.MustParseAddr(test.loopback))
		if got.String() != test.want || !prefix.Contains(got) {
			t.Errorf("%s in %s: got %s, want %s", test.loopback, test.prefix, got, test.want)
		}
	}
}

// The derived prefix must never change: every node's address is in it.
func TestDerivePrefix6(t *testing.T) {
	for name, want := range map[string]string{ // the end of `printf apollo | sha256sum`
		"apollo": "fdcc:a6cf:35b7::/48",
		"tiny":   "fd25:21dd:e10c::/48",
	} {
		got := derivePrefix6(name)
		if got.String() != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
		if got != got.Masked() || !netip.MustParsePrefix("fd00::/8").Contains(got.Addr()) {
			t.Errorf("%s: %s is no unique local prefix", name, got)
		}
	}
}

func TestSharedASN(t *testing.T) {
	const document = `
fabric: apollo
underlay: {loopbacks: [10.0.0.0/16]}
nodes:
  spine1: {role: spine, loopback: 10.0.254.1, asn: 64512}
  spine2: {role: spine, loopback: 10.0.254.2, asn: 64512}
  spine3: {role: spine, loopback: 10.0.254.3, asn: 64513}
  leaf1: {loopback: 10.0.200.1}
`
	f, err := Parse("fabric.yaml", []byte(document), "")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, n := range f.Nodes {
		got[n.Name] = n.InternalPeers
	}
	want := map[string]bool{"spine1": true, "spine2": true, "spine3": false, "leaf1": false}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("InternalPeers (-want +got):\n%s", diff)
	}
}

// What a position names must hold wherever the mistake is made: the nodes may
// stand before the underlay that they refer to.
func TestOrderOfKeysDoesNotMatter(t *testing.T) {
	const document = `
segments: {blue: {vni: 7, nodes: ["leaf*"]}}
nodes: {leaf1: {loopback: 10.0.200.1}}
underlay: {loopbacks: [10.0.0.0/16]}
fabric: apollo
`
	f, err := Parse("fabric.yaml", []byte(document), "")
	if err != nil {
		t.Fatal(err)
	}
	if f.Name != "apollo" || len(f.Nodes) != 1 || len(f.Segments) != 1 || f.Segments[0].Nodes[0] != "leaf1" {
		t.Errorf("got %+v", f)
	}
}

func TestHostName(t *testing.T) {
	for name, want := range map[string]bool{
		"a":                     true,
		"leaf1":                 true,
		"1leaf":                 true, // RFC 1123 §2.1 lets a digit begin
		"rack-3.leaf-1.example": true,
		strings.Repeat("a", 63): true,
		strings.Repeat("a", 64): false,
		"":                      false,
		"-a":                    false,
		"a-":                    false,
		"a..b":                  false,
		".a":                    false,
		"a.":                    false,
		"Leaf1":                 false,
		"leaf_1":                false,
		"léaf":                  false,
		"leaf 1":                false,
	} {
		if got := hostName(name); got != want {
			t.Errorf("%q: got %v", name, got)
		}
	}
}

func TestIsHost(t *testing.T) {
	for _, test := range []struct {
		network, address string
		want             bool
	}{
		{"10.0.0.0/24", "10.0.0.0", false},
		{"10.0.0.0/24", "10.0.0.1", true},
		{"10.0.0.0/24", "10.0.0.255", false},
		{"10.0.0.0/24", "10.0.1.1", false},
		{"10.0.0.0/31", "10.0.0.0", true},
		{"10.0.0.0/31", "10.0.0.1", true},
		{"10.0.0.7/32", "10.0.0.7", true},
		{"fd00::/64", "fd00::", false},
		{"fd00::/64", "fd00::ffff:ffff:ffff:ffff", true},
		{"fd00::/127", "fd00::", true},
		{"fd00::/64", "10.0.0.1", false},
	} {
		if got := isHost(netip.MustParsePrefix(test.network), netip.MustParseAddr(test.address)); got != test.want {
			t.Errorf("%s in %s: got %v", test.address, test.network, got)
		}
	}
}

func TestClaims(t *testing.T) {
	var c claims
	for _, p := range []string{"10.0.0.0/16", "10.2.0.0/16", "10.1.0.0/24", "fd00::/48", "9.0.0.0/8"} {
		if other, ok := c.add(netip.MustParsePrefix(p), p); !ok {
			t.Fatalf("%s overlaps with %s", p, other.field)
		}
	}
	for p, want := range map[string]string{
		"10.0.0.0/16":   "10.0.0.0/16", // equal
		"10.0.255.0/24": "10.0.0.0/16", // inside
		"10.0.0.0/24":   "10.0.0.0/16", // inside, same address
		"10.1.0.0/16":   "10.1.0.0/24", // around, same address
		"10.2.0.0/15":   "10.2.0.0/16",
		"9.255.0.0/32":  "9.0.0.0/8",
		"fd00::1/128":   "fd00::/48",
		"10.1.1.0/24":   "",
		"10.3.0.0/16":   "",
		"8.0.0.0/8":     "",
		"fd00:0:1::/48": "",
		"::/8":          "",
	} {
		if got, _ := c.overlap(netip.MustParsePrefix(p)); got.field != want {
			t.Errorf("%s: got %q, want %q", p, got.field, want)
		}
	}
	if other, ok := c.overlap(netip.MustParsePrefix("10.0.0.0/8")); !ok || !strings.HasPrefix(other.field, "10.") {
		t.Errorf("10.0.0.0/8 around three: got %v, %v", other, ok)
	}
}

func TestNearest(t *testing.T) {
	words := []string{"role", "loopback", "loopback6", "asn", "ports"}
	for wrong, want := range map[string]string{
		"rol": "role", "ROLE": "role", "loopbcak": "loopback", "port": "ports", "ans": "asn",
		"x": "", "": "", "advertise": "", strings.Repeat("loopback", 100): "",
	} {
		if got := nearest(wrong, words); got != want {
			t.Errorf("%.20s: got %q, want %q", wrong, got, want)
		}
	}
}
