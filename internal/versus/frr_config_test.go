package versus

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"frond/internal/fabric"
)

func TestFRRConfig(t *testing.T) {
	n := fabric.Node{
		Name: "leaf1", ASN: 65001,
		Loopback: netip.MustParseAddr("10.0.200.1"), Loopback6: netip.MustParseAddr("fd00::1"),
	}
	plain := frrStyle{}.frrConfig(n, []string{"eth1", "eth2"})
	const head = "frr defaults datacenter\nhostname leaf1\n"
	want := map[string]string{
		"zebra": head + "interface lo\n ip address 10.0.200.1/32\n ipv6 address fd00::1/128\n",
		"bgpd": head + `router bgp 65001
 bgp router-id 10.0.200.1
 bgp bestpath as-path multipath-relax
 neighbor eth1 interface remote-as external
 neighbor eth2 interface remote-as external
 address-family ipv4 unicast
  network 10.0.200.1/32
 exit-address-family
 address-family ipv6 unicast
  network fd00::1/128
  neighbor eth1 activate
  neighbor eth2 activate
 exit-address-family
 address-family l2vpn evpn
  neighbor eth1 activate
  neighbor eth2 activate
  advertise-all-vni
 exit-address-family
`,
		"staticd": head,
		"bfdd":    head,
	}
	if diff := cmp.Diff(want, plain); diff != "" {
		t.Error(diff)
	}

	tuned := frrStyle{tuned: true, bfd: 50 * time.Millisecond}.frrConfig(n, []string{"eth1"})
	for daemon, lines := range map[string][]string{
		"zebra": {"no zebra nexthop kernel enable\n", "interface eth1\n ipv6 nd ra-interval 1\n"},
		"bgpd":  {" neighbor eth1 timers 1 3\n", " neighbor eth1 timers connect 1\n", " neighbor eth1 bfd profile fast\n", " bgp graceful-restart\n"},
		"bfdd":  {" profile fast\n  detect-multiplier 3\n  transmit-interval 50\n  receive-interval 50\n"},
	} {
		for _, line := range lines {
			if !strings.Contains(tuned[daemon], line) {
				t.Errorf("%s tuned lacks %q:\n%s", daemon, line, tuned[daemon])
			}
		}
	}
}

func TestPrefixesBehindAreApart(t *testing.T) {
	seen := make(map[netip.Prefix]bool)
	for i := range 100_000 {
		p := prefixBehind(i)
		if seen[p] || p != p.Masked() || p.Addr().As4()[0] >= 100 {
			t.Fatalf("prefix %d: %s", i, p)
		}
		seen[p] = true
	}
}
