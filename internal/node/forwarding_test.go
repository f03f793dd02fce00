package node

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/kernel"
	"frond/internal/status"
)

// fakeLookups is a kernel that holds what its fields say.
type fakeLookups struct {
	routes    map[string]kernel.RouteLookup
	macs      map[string]kernel.MACLookup
	neighbors map[string]dataplane.MAC
	addresses []netip.Prefix
	broken    error
}

func (f *fakeLookups) LookupRoute(to netip.Addr) (kernel.RouteLookup, error) {
	return f.routes[to.String()], f.broken
}

func (f *fakeLookups) LookupMAC(bridge, vxlan string, mac dataplane.MAC) (kernel.MACLookup, error) {
	if bridge != "br-blue" || vxlan != "vx-blue" {
		return kernel.MACLookup{}, errors.New("asked for " + bridge + " and " + vxlan)
	}
	return f.macs[mac.String()], f.broken
}

func (f *fakeLookups) LookupNeighbor(_ string, ip netip.Addr) (dataplane.MAC, error) {
	return f.neighbors[ip.String()], nil
}

func (f *fakeLookups) Addresses(string) ([]netip.Prefix, error) { return f.addresses, nil }

func TestForwarding(t *testing.T) {
	r := began(t, link("eth0", 1), link("eth1", 2), link("wan", 3))
	r.plan = parse(t, segmentDocument, "leaf1").plan
	r.step()
	r.hear("eth0", "fe80::1")
	r.hear("eth1", "fe80::3")
	r.session(spine1, bgp.Established)
	n := &Node{requests: make(chan func(*loop)), ended: make(chan struct{})}
	go func() {
		for f := range n.requests {
			f(r.loop)
		}
	}()
	defer close(n.requests)

	here, there := dataplane.MAC{2, 0, 0, 0, 0, 1}, dataplane.MAC{2, 0, 0, 0, 0, 2}
	k := &fakeLookups{
		routes: map[string]kernel.RouteLookup{
			"10.0.200.1": {Prefix: r.prefix("10.0.200.1/32"), Port: "lo"},
			"10.0.200.2": {Prefix: r.prefix("10.0.200.2/32"), Legs: []kernel.LegLookup{
				{Port: "eth0", Via: addr("fe80::1")}, {Port: "eth1", Via: addr("fe80::3"), Problem: "no carrier"}, {Port: "eth0", Via: addr("fe80::9")}}},
			"192.0.2.1":  {Prefix: r.prefix("0.0.0.0/0"), Legs: []kernel.LegLookup{{Port: "wan"}}},
			"172.16.0.2": {Prefix: r.prefix("172.16.0.0/24"), Legs: []kernel.LegLookup{{Port: "br-blue", Neighbor: there}}},
			"172.16.0.3": {Prefix: r.prefix("172.16.0.0/24"), Legs: []kernel.LegLookup{{Port: "br-blue"}}},
			"172.16.0.1": {Prefix: r.prefix("172.16.0.1/32"), Port: "br-blue"},
			"10.9.0.1":   {Refused: "no route"},
			"10.9.0.2":   {Refused: "an unreachable route", Prefix: r.prefix("10.9.0.0/24")},
		},
		macs: map[string]kernel.MACLookup{
			here.String():  {Known: true, Port: "tap0"},
			there.String(): {Known: true, Port: "vx-blue", VTEP: addr("10.0.200.2")},
		},
		neighbors: map[string]dataplane.MAC{"172.16.0.2": there},
	}
	n.kernel = k
	toBlue := []status.Leg{{Port: "br-blue", Segment: "blue", MAC: there.String()}}
	abroad := status.Forwarding{Action: status.Encapsulate, VTEP: "10.0.200.2", VNI: 100}
	outside := status.Forwarding{Action: status.Forward, Match: "0.0.0.0/0", Legs: []status.Leg{{Port: "wan", Outside: true}}}
	gateway := []netip.Prefix{r.prefix("fe80::1/64"), r.prefix("172.16.0.1/24")}
	for name, test := range map[string]struct {
		to        status.Destination
		addresses []netip.Prefix // of the segment's bridge
		want      status.Forwarding
	}{
		"own address": {to: status.Destination{Address: "10.0.200.1"}, want: status.Forwarding{Action: status.Deliver, Match: "10.0.200.1/32", Port: "lo"}},
		"legs": {to: status.Destination{Address: "10.0.200.2"}, want: status.Forwarding{Action: status.Forward, Match: "10.0.200.2/32", Legs: []status.Leg{
			{Port: "eth0", Via: "fe80::1", Node: "spine1"}, {Port: "eth1", Via: "fe80::3", Problem: "no carrier"}, {Port: "eth0", Via: "fe80::9"}}}},
		"outside":            {to: status.Destination{Address: "192.0.2.1"}, want: outside},
		"into a segment":     {to: status.Destination{Address: "172.16.0.2"}, want: status.Forwarding{Action: status.Forward, Match: "172.16.0.0/24", Legs: toBlue}},
		"not resolved there": {to: status.Destination{Address: "172.16.0.3"}, want: status.Forwarding{Action: status.Forward, Match: "172.16.0.0/24", Legs: []status.Leg{{Port: "br-blue", Segment: "blue"}}}},
		"no route":           {to: status.Destination{Address: "10.9.0.1"}, want: status.Forwarding{Action: status.Drop, Reason: "no route to 10.9.0.1"}},
		"unreachable":        {to: status.Destination{Address: "10.9.0.2"}, want: status.Forwarding{Action: status.Drop, Match: "10.9.0.0/24", Reason: "an unreachable route to 10.9.0.2"}},

		"guest here":        {to: status.Destination{Segment: "blue", MAC: here.String()}, want: status.Forwarding{Action: status.Deliver, Port: "tap0", VNI: 100}},
		"guest elsewhere":   {to: status.Destination{Segment: "blue", MAC: there.String()}, want: abroad},
		"guest of nobody":   {to: status.Destination{Segment: "blue", MAC: "02:00:00:00:00:99"}, want: status.Forwarding{Action: status.Flood, VNI: 100}},
		"segment elsewhere": {to: status.Destination{Segment: "red", MAC: here.String()}, want: status.Forwarding{Action: status.Drop, Reason: "it takes no part in segment red"}},

		"guest to a neighbour": {to: status.Destination{Segment: "blue", Address: "172.16.0.2"}, want: abroad},
		"guest to nobody, no gateway": {to: status.Destination{Segment: "blue", Address: "192.0.2.1"},
			want: status.Forwarding{Action: status.Drop, Reason: "nobody on segment blue is known to have 192.0.2.1, and the segment has no gateway here"}},
		"guest to nobody": {to: status.Destination{Segment: "blue", Address: "172.16.0.9"}, addresses: gateway,
			want: status.Forwarding{Action: status.Drop, Reason: "nobody on segment blue is known to have 172.16.0.9"}},
		"guest by its gateway":      {to: status.Destination{Segment: "blue", Address: "192.0.2.1"}, addresses: gateway, want: outside},
		"guest to its gateway":      {to: status.Destination{Segment: "blue", Address: "172.16.0.1"}, addresses: gateway, want: status.Forwarding{Action: status.Deliver, Match: "172.16.0.1/32", Port: "br-blue"}},
		"guest by the other family": {to: status.Destination{Segment: "blue", Address: "fd00::9"}, addresses: gateway, want: status.Forwarding{Action: status.Drop, Reason: "nobody on segment blue is known to have fd00::9, and the segment has no gateway here"}},
	} {
		k.addresses = test.addresses
		got, err := n.Forwarding(t.Context(), test.to)
		if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	k.broken = errors.New("rtnetlink did not answer")
	if _, err := n.Forwarding(t.Context(), status.Destination{Address: "10.0.200.1"}); !errors.Is(err, k.broken) {
		t.Errorf("a kernel that does not answer: %v", err)
	}
	if nodes := n.Nodes(); len(nodes) != 2 || nodes[0].Name != "leaf1" || nodes[0].Loopback != "10.0.200.1" || nodes[0].Role != "leaf" {
		t.Errorf("nodes: %+v", nodes)
	}
}

// Who is behind a port stays known while BGP has no session with it.
func TestWhoWasBehindALegStaysKnown(t *testing.T) {
	r := began(t, link("eth0", 1))
	r.hear("eth0", "fe80::1")
	r.session(spine1, bgp.Established)
	r.gone(spine1)
	if got := r.nodesBehind()[r.leg(spine1)]; got != "spine1" {
		t.Errorf("behind %s is %q", spine1, got)
	}
}
