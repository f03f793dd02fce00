package kernel_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"frond/internal/dataplane"
	"frond/internal/kernel"
)

// lookupText is a lookup as one line.
func lookupText(r kernel.RouteLookup) string {
	switch {
	case r.Refused != "":
		return r.Refused
	case r.Port != "":
		return fmt.Sprintf("%s local on %s", r.Prefix, r.Port)
	}
	text := r.Prefix.String()
	for _, leg := range r.Legs {
		text += " " + leg.Port
		if leg.Via.IsValid() {
			text += "/" + leg.Via.String()
		}
		if !leg.Neighbor.IsZero() {
			text += "=" + leg.Neighbor.String()
		}
		if leg.Problem != "" {
			text += "(" + leg.Problem + ")"
		}
	}
	return text
}

func TestLookupRoute(t *testing.T) {
	t.Parallel()
	s := newSpace(t, "eth0", "eth1", "eth2")
	for _, line := range []string{
		"link set lo up", "link set eth0 up", "link set eth1 up", "link set eth2 up",
		"addr add 10.0.0.1/32 dev lo", "addr add 192.0.2.1/24 dev eth2",
		"-6 nexthop add id 1 dev eth0 via fe80::1", "-6 nexthop add id 2 dev eth1 via fe80::2", "nexthop add id 3 group 1/2",
		"nexthop add id 4 blackhole", "-6 nexthop add id 5 blackhole", "-6 route add fd03::/64 nhid 5",
		"route add 10.1.0.0/16 nhid 3", "-6 route add fd01::/64 nhid 3",
		"route add 10.2.0.0/16 nhid 1", "route add 10.3.0.0/16 nhid 4",
		"route add 10.4.0.0/16 nexthop via inet6 fe80::1 dev eth0 nexthop via 192.0.2.7 dev eth2",
		"-6 route add fd04::/64 nexthop via fe80::1 dev eth0 nexthop via fe80::2 dev eth1",
		"route add blackhole 10.5.0.0/16", "route add unreachable 10.6.0.0/16", "-6 route add prohibit fd07::/64",
		"neigh add fe80::2 dev eth1 lladdr 02:00:00:00:00:02 nud permanent",
		"neigh add 192.0.2.8 dev eth2 nud failed",
	} {
		s.ip("%s", line)
	}
	for to, want := range map[string]string{
		"10.0.0.1":   "10.0.0.1/32 local on lo",
		"::1":        "::1/128 local on lo",
		"10.1.2.3":   "10.1.0.0/16 eth0/fe80::1 eth1/fe80::2=02:00:00:00:00:02",
		"fd01::1":    "fd01::/64 eth0/fe80::1 eth1/fe80::2=02:00:00:00:00:02",
		"10.2.0.1":   "10.2.0.0/16 eth0/fe80::1",
		"10.3.0.1":   "a blackhole route",
		"fd03::1":    "a blackhole route",
		"10.4.0.1":   "10.4.0.0/16 eth0/fe80::1 eth2/192.0.2.7",
		"fd04::1":    "fd04::/64 eth0/fe80::1 eth1/fe80::2=02:00:00:00:00:02",
		"10.5.0.1":   "a blackhole route",
		"10.6.0.1":   "an unreachable route",
		"fd07::1":    "a prohibiting route",
		"10.7.0.1":   "no route",
		"fd08::1":    "no route",
		"192.0.2.8":  "192.0.2.0/24 eth2(192.0.2.8 does not answer the kernel's neighbour discovery)",
		"192.0.2.99": "192.0.2.0/24 eth2",
	} {
		for _, compatible := range []string{"1", "0"} { // with 0, routes do not show their objects' legs
			command(t, "ip netns exec %s sysctl -qw net.ipv4.nexthop_compat_mode=%s", s.name, compatible)
			found, err := s.kernel.LookupRoute(netip.MustParseAddr(to))
			if got := lookupText(found); err != nil || got != want {
				t.Errorf("%s, compatible %s: %q, %v; want %q", to, compatible, got, err, want)
			}
		}
	}
	s.ipPeer("link set eth0 down")
	eventually(t, func() error {
		found, err := s.kernel.LookupRoute(netip.MustParseAddr("10.1.2.3"))
		if got := lookupText(found); err != nil || got != "10.1.0.0/16 eth1/fe80::2=02:00:00:00:00:02" {
			return fmt.Errorf("without carrier on eth0: %q, %w", got, err)
		}
		return nil
	})
	plain, err := s.kernel.LookupRoute(netip.MustParseAddr("10.4.0.1"))
	if got := lookupText(plain); err != nil || !strings.Contains(got, "eth0/fe80::1(the port has no carrier)") {
		t.Errorf("a route without objects: %q, %v", got, err)
	}
}

func TestLookupMAC(t *testing.T) {
	t.Parallel()
	a, b := newVTEPs(t, 1)
	join(a, b)
	segment := a.segment()
	segment.Gateway = dataplane.Gateway{MAC: dataplane.MAC{2, 0x68, 0, 0, 0, 100}, Address: netip.MustParsePrefix("172.16.0.254/24")}
	a.take([]dataplane.Segment{segment})
	a.settle()
	g1, g2 := a.guest(1), b.guest(2)
	g1.ping("172.16.0.2")
	a.Update(dataplane.OverlayUpdate{
		MACs:      map[dataplane.MACKey]netip.Addr{{VNI: 100, MAC: g2.mac}: b.address},
		Neighbors: map[dataplane.NeighborKey]dataplane.MAC{{VNI: 100, IP: netip.MustParseAddr("172.16.0.2")}: g2.mac},
	})
	a.settle()
	half := mac(7) // the bridge hands it to the VXLAN device, which knows of no VTEP
	command(t, "bridge -n %s fdb add %s dev vx-blue master static", a.name, half)

	for _, test := range []struct {
		mac  dataplane.MAC
		want kernel.MACLookup
	}{
		{g1.mac, kernel.MACLookup{Known: true, Port: strings.TrimSpace(portOf(t, a, g1))}},
		{g2.mac, kernel.MACLookup{Known: true, Port: "vx-blue", VTEP: b.address}},
		{segment.Gateway.MAC, kernel.MACLookup{Known: true, Own: true, Port: "br-blue"}},
		{half, kernel.MACLookup{}},
		{mac(99), kernel.MACLookup{}},
	} {
		got, err := a.kernel.LookupMAC("br-blue", "vx-blue", test.mac)
		if err != nil || got != test.want {
			t.Errorf("%s: %+v, %v; want %+v", test.mac, got, err, test.want)
		}
	}
	if _, err := a.kernel.LookupMAC("br-none", "vx-none", g1.mac); err == nil || !strings.Contains(err.Error(), "br-none") {
		t.Errorf("a bridge that is not there: %v", err)
	}
	if got, err := a.kernel.LookupNeighbor("br-blue", netip.MustParseAddr("172.16.0.2")); err != nil || got != g2.mac {
		t.Errorf("the neighbour entry of the other guest is %s, %v", got, err)
	}
	if got, err := a.kernel.LookupNeighbor("br-blue", netip.MustParseAddr("172.16.0.99")); err != nil || !got.IsZero() {
		t.Errorf("the neighbour entry of nobody is %s, %v", got, err)
	}
	addresses, err := a.kernel.Addresses("br-blue")
	if err != nil || len(addresses) != 1 || addresses[0] != segment.Gateway.Address {
		t.Errorf("the bridge has %v, %v", addresses, err)
	}
}

// portOf asks bridge(8) which port a guest is behind.
func portOf(t *testing.T, v *vtep, g *guest) string {
	t.Helper()
	fields := strings.Fields(command(t, "bridge -n %s fdb get %s br br-blue", v.name, g.mac))
	for i, field := range fields {
		if field == "dev" {
			return fields[i+1]
		}
	}
	t.Fatalf("no port in %v", fields)
	return ""
}
