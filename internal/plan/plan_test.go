package plan

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/fabric"
)

const document = `
fabric: apollo
underlay:
  loopbacks: [10.0.0.0/16, "fd00:10::/48"]
  ports: ["en*", "eth*"]
  timers: {hold: 12s, keepalive: 4s}
nodes:
  spine1: {role: spine, loopback: 10.0.254.1, asn: 65000}
  spine2: {role: spine, loopback: 10.0.254.2, asn: 65000}
  leaf1:  {loopback: 10.0.200.1, reserved_ports: [eno1, "eth9*"], advertise: [192.0.2.0/24], anycast: [10.0.200.0/32]}
  edge1:  {role: exit, loopback: 10.0.100.1, uplink: {port: enp3s0, dhcp: true}}
segments:
  blue: {vni: 100, nodes: ["leaf*"], bridge: en-blue, prefix: 172.16.0.0/24}
`

func planOf(t *testing.T, node string) *Plan {
	t.Helper()
	f, err := fabric.Parse("fabric.yaml", []byte(document), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	p, err := For(f, node)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func parsePrefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func TestForUnknownNode(t *testing.T) {
	f, err := fabric.Parse("fabric.yaml", []byte(document), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := For(f, "leaf2"); err == nil || !strings.Contains(err.Error(), "leaf1") {
		t.Errorf("For(leaf2) = %v, want an error that names leaf1", err)
	}
}

func TestPrefixes(t *testing.T) {
	tests := []struct {
		node      string
		addresses []netip.Prefix
		originate []netip.Prefix
	}{
		{
			node:      "spine1",
			addresses: parsePrefixes("10.0.254.1/32", "fd00:10::a00:fe01/128"),
			originate: parsePrefixes("10.0.254.1/32", "fd00:10::a00:fe01/128"),
		}, {
			node:      "leaf1",
			addresses: parsePrefixes("10.0.200.0/32", "10.0.200.1/32", "fd00:10::a00:c801/128"),
			originate: parsePrefixes("10.0.200.0/32", "10.0.200.1/32", "192.0.2.0/24", "fd00:10::a00:c801/128"),
		},
	}
	for _, test := range tests {
		p := planOf(t, test.node)
		if !slices.Equal(p.Addresses, test.addresses) {
			t.Errorf("%s: Addresses = %v, want %v", test.node, p.Addresses, test.addresses)
		}
		if !slices.Equal(p.Originate, test.originate) {
			t.Errorf("%s: Originate = %v, want %v", test.node, p.Originate, test.originate)
		}
	}
}

func TestIsPort(t *testing.T) {
	tests := []struct {
		node, port string
		want       bool
	}{
		{"leaf1", "eth0", true},
		{"leaf1", "enp3s0", true},
		{"leaf1", "eno1", false},    // reserved by name
		{"leaf1", "eth90", false},   // reserved by pattern
		{"leaf1", "en-blue", false}, // the bridge of a segment
		{"leaf1", "lo", false},
		{"leaf1", "wlan0", false},
		{"leaf1", "xeth0", false},  // a glob matches the whole name
		{"edge1", "enp3s0", false}, // the uplink
		{"edge1", "enp3s00", true}, // not the uplink
		{"spine1", "eno1", true},   // reserved elsewhere
		{"spine1", "", false},
	}
	for _, test := range tests {
		if got := planOf(t, test.node).IsPort(test.port); got != test.want {
			t.Errorf("%s: IsPort(%q) = %v, want %v", test.node, test.port, got, test.want)
		}
	}
	all := &Plan{Node: fabric.Node{Ports: []string{"*"}}}
	if all.IsPort("lo") {
		t.Error(`ports: ["*"] makes lo a port`)
	}
}

func TestDesired(t *testing.T) {
	p := planOf(t, "leaf1")
	d := p.Desired([]string{"eth0", "eth1"})
	if want := []dataplane.Port{{Name: "eth0"}, {Name: "eth1"}}; !slices.Equal(d.Ports, want) {
		t.Errorf("Ports = %v, want %v", d.Ports, want)
	}
	if !slices.Equal(d.Addresses, p.Addresses) {
		t.Errorf("Addresses = %v, want %v", d.Addresses, p.Addresses)
	}
}

// TestSysctlsExist looks each value up in the running kernel: a misspelt path
// would never be missed otherwise, because absent files are skipped.
func TestSysctlsExist(t *testing.T) {
	for path := range Sysctls() {
		if OnlyInitial(path) {
			continue // the initial namespace alone has them
		}
		if _, err := os.Stat(filepath.Join("/proc/sys", path)); err != nil {
			t.Error(err)
		}
	}
}

func TestBGP(t *testing.T) {
	p := planOf(t, "spine1")
	p.Password, p.PreviousPassword = "swordfish", "haddock"
	expect := []netip.Addr{netip.MustParseAddr("fe80::2%eth1")}
	got := p.BGP(
		p.Peers([]dataplane.NextHop{
			{Port: "eth1", Via: netip.MustParseAddr("fe80::2")},
			{Port: "eth0", Via: netip.MustParseAddr("fe80::1")},
		}),
		bgp.GracefulRestart{Restarting: true, Expect: expect},
	)
	peer := func(addr string) bgp.Peer {
		return bgp.Peer{
			Addr: netip.MustParseAddr(addr),
			Hold: p.Hold, Keepalive: p.Keepalive, AllowInternal: true,
		}
	}
	want := bgp.Desired{
		ASN:      65000,
		RouterID: netip.MustParseAddr("10.0.254.1"),
		Hostname: "spine1",
		Keys:     bgp.Keys{Current: "swordfish", Previous: "haddock"},
		Peers:    []bgp.Peer{peer("fe80::1%eth0"), peer("fe80::2%eth1")},
		Routes: []bgp.Route{
			{Prefix: netip.MustParsePrefix("10.0.254.1/32")},
			{Prefix: netip.MustParsePrefix("fd00:10::a00:fe01/128")},
		},
		Restart: bgp.GracefulRestart{Time: restartTime, Watched: true, Restarting: true, Expect: expect},
	}
	if diff := cmp.Diff(want, got, netipValues); diff != "" {
		t.Errorf("BGP differs (-want +got):\n%s", diff)
	}
	if planOf(t, "leaf1").Peers([]dataplane.NextHop{{Port: "eth0", Via: expect[0]}})[0].AllowInternal {
		t.Error("a leaf accepts peers of its own AS, though nobody shares it")
	}
}

func TestRoute(t *testing.T) {
	const edge1 = 4200000000 + 100<<8 + 1
	leg := func(port, via string) dataplane.NextHop {
		return dataplane.NextHop{Port: port, Via: netip.MustParseAddr(via)}
	}
	path := func(peer string, as ...uint32) bgp.Path {
		return bgp.Path{Peer: netip.MustParseAddr(peer), ASPath: as}
	}
	tests := []struct {
		name     string
		paths    bgp.Paths
		nextHops []dataplane.NextHop
		source   string
		behind   string
	}{
		{
			name: "two ways",
			paths: bgp.Paths{
				Prefix: netip.MustParsePrefix("10.0.200.2/32"),
				Paths:  []bgp.Path{path("fe80::1%eth0"), path("fe80::2%eth1")},
			},
			nextHops: []dataplane.NextHop{leg("eth0", "fe80::1"), leg("eth1", "fe80::2")},
			source:   "10.0.200.1",
		}, {
			name: "IPv6",
			paths: bgp.Paths{
				Prefix: netip.MustParsePrefix("fd00:10::a00:c802/128"),
				Paths:  []bgp.Path{path("fe80::1%eth0")},
			},
			nextHops: []dataplane.NextHop{leg("eth0", "fe80::1")},
			source:   "fd00:10::a00:c801",
		}, {
			name: "the same way twice",
			paths: bgp.Paths{
				Prefix: netip.MustParsePrefix("10.0.200.2/32"),
				Paths:  []bgp.Path{path("fe80::1%eth0"), path("fe80::1%eth0")},
			},
			nextHops: []dataplane.NextHop{leg("eth0", "fe80::1")},
			source:   "10.0.200.1",
		}, {
			name: "behind a node, by both peers",
			paths: bgp.Paths{
				Prefix: netip.MustParsePrefix("192.0.2.0/24"),
				Paths:  []bgp.Path{path("fe80::1%eth0", 65001, 65001, edge1, 65009), path("fe80::2%eth1", 65002, edge1, edge1, 65009)},
			},
			nextHops: []dataplane.NextHop{leg("eth0", "fe80::1"), leg("eth1", "fe80::2")},
			source:   "10.0.200.1",
			behind:   "10.0.100.1/32",
		}, {
			name: "behind different nodes",
			paths: bgp.Paths{
				Prefix: netip.MustParsePrefix("192.0.2.0/24"),
				Paths:  []bgp.Path{path("fe80::1%eth0", 65001, edge1), path("fe80::2%eth1", 65002, 65003)},
			},
			nextHops: []dataplane.NextHop{leg("eth0", "fe80::1"), leg("eth1", "fe80::2")},
			source:   "10.0.200.1",
		}, {
			name: "behind one of two nodes that share an AS",
			paths: bgp.Paths{
				Prefix: netip.MustParsePrefix("192.0.2.0/24"),
				Paths:  []bgp.Path{path("fe80::1%eth0", 65001, 65000)},
			},
			nextHops: []dataplane.NextHop{leg("eth0", "fe80::1")},
			source:   "10.0.200.1",
		}, {
			name: "of the peer itself",
			paths: bgp.Paths{
				Prefix: netip.MustParsePrefix("192.0.2.0/24"),
				Paths:  []bgp.Path{path("fe80::1%eth0", edge1, edge1)},
			},
			nextHops: []dataplane.NextHop{leg("eth0", "fe80::1")},
			source:   "10.0.200.1",
		}, {
			name:   "unreachable",
			paths:  bgp.Paths{Prefix: netip.MustParsePrefix("10.0.200.2/32")},
			source: "10.0.200.1",
		}, {
			name:   "originated here",
			paths:  bgp.Paths{Prefix: netip.MustParsePrefix("192.0.2.0/24"), Local: true},
			source: "10.0.200.1",
		}, {
			name: "an own address from a peer",
			paths: bgp.Paths{
				Prefix: netip.MustParsePrefix("10.0.200.0/32"),
				Paths:  []bgp.Path{path("fe80::1%eth0")},
			},
			source: "10.0.200.1",
		},
	}
	p := planOf(t, "leaf1")
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			want := dataplane.RouteUpdate{Prefix: test.paths.Prefix, NextHops: test.nextHops, Source: netip.MustParseAddr(test.source)}
			if test.behind != "" {
				want.Behind = netip.MustParsePrefix(test.behind)
			}
			if diff := cmp.Diff(want, p.Route(test.paths), netipValues); diff != "" {
				t.Errorf("Route differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGateway(t *testing.T) {
	document := `
fabric: apollo
underlay: {loopbacks: [10.0.0.0/16]}
nodes: {leaf1: {loopback: 10.0.200.1}, leaf2: {loopback: 10.0.200.2}}
segments:
  blue: {vni: 258, nodes: [leaf1], prefix: 172.16.0.0/24, prefix6: "fd00:172::/64", gateway: {address: 172.16.0.1, address6: "fd00:172::1", host_routes: off}}
  red: {vni: 259, nodes: [leaf1], prefix: 172.17.0.0/24, gateway: {address: 172.17.0.1, mode: elected}}
`
	f, err := fabric.Parse("fabric.yaml", []byte(document), ".")
	if err != nil {
		t.Fatal(err)
	}
	p, err := For(f, "leaf1")
	if err != nil {
		t.Fatal(err)
	}
	segments := p.Segments(9000)
	want := dataplane.Gateway{
		MAC:     dataplane.MAC{2, 0x68, 0, 0, 1, 2},
		Address: netip.MustParsePrefix("172.16.0.1/24"), Address6: netip.MustParsePrefix("fd00:172::1/64"),
		LinkLocal: netip.MustParsePrefix("fe80::68:ff:fe00:102/64"),
	}
	if segments[0].Gateway != want {
		t.Errorf("the anycast gateway is %+v, want %+v", segments[0].Gateway, want)
	}
	if elected := (dataplane.Gateway{Address: netip.MustParsePrefix("172.17.0.1/24"), Elected: true}); segments[1].Gateway != elected {
		t.Errorf("the elected gateway is %+v, want %+v", segments[1].Gateway, elected)
	}
	if !slices.Contains(p.Originate, netip.MustParsePrefix("172.16.0.0/24")) || !slices.Contains(p.Originate, netip.MustParsePrefix("fd00:172::/64")) ||
		slices.Contains(p.Originate, netip.MustParsePrefix("172.17.0.0/24")) {
		t.Errorf("originated: %v", p.Originate)
	}
	other, err := For(f, "leaf2")
	if err != nil {
		t.Fatal(err)
	}
	if slices.Contains(other.Originate, netip.MustParsePrefix("172.16.0.0/24")) {
		t.Error("a node without the segment announces it")
	}
}

func TestLegAndAddress(t *testing.T) {
	addr := netip.MustParseAddr("fe80::1%eth0")
	leg := Leg(addr)
	if leg.Port != "eth0" || leg.Via != netip.MustParseAddr("fe80::1") {
		t.Errorf("Leg(%s) = %v", addr, leg)
	}
	if got := Address(leg); got != addr {
		t.Errorf("Address(Leg(%s)) = %s", addr, got)
	}
}

// netipValues compares what has no exported fields.
var netipValues = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}
