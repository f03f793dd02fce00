package evpn

import (
	"net/netip"
	"slices"
	"testing"

	"frond/internal/bgp"
	"frond/internal/dataplane"
)

var gateway = dataplane.Gateway{
	MAC:        dataplane.MAC{2, 0x68, 0, 0, 0, 100},
	Address:    netip.MustParsePrefix("172.16.0.1/24"),
	Address6:   netip.MustParsePrefix("fd00::1/64"),
	HostRoutes: true,
}

func (r *rig) gateway(g dataplane.Gateway) {
	r.SetSegments([]dataplane.Segment{{Name: "s100", VNI: 100, MACLimit: 10, Gateway: g}})
	r.take()
}

// TestGatewayIsNobodys has guests and peers claim the gateway's MAC and
// addresses, before it is there and after.
func TestGatewayIsNobodys(t *testing.T) {
	const spoofer = 7
	for _, late := range []bool{false, true} {
		r := newRig(t, vtepA, 100)
		if !late {
			r.gateway(gateway)
		}
		r.appears(100, testMAC(spoofer), "tap7")
		r.speaks(100, testMAC(spoofer), gateway.Address.Addr())
		r.speaks(100, testMAC(spoofer), gateway.Address6.Addr())
		r.appears(100, gateway.MAC, "tap8")
		r.learn(
			macip(vtepB, gateway.MAC, "", 3),
			macip(vtepB, gateway.MAC, "172.16.0.1", 3),
			macip(vtepB, testMAC(9), "172.16.0.1", 4),
		)
		if late {
			r.gateway(gateway)
		}
		r.take()
		if at, known := r.macs[dataplane.MACKey{VNI: 100, MAC: gateway.MAC}]; known {
			t.Errorf("late %v: the gateway's MAC is at %s", late, at)
		}
		for _, p := range []netip.Prefix{gateway.Address, gateway.Address6} {
			if m, known := r.arp[dataplane.NeighborKey{VNI: 100, IP: p.Addr()}]; known {
				t.Errorf("late %v: %s is answered with %s", late, p.Addr(), m)
			}
		}
		r.wantMAC(testMAC(9), vtepB)
		r.wantTold("[2]:[0]:[48]:[02:00:00:00:00:07] 0")
		if len(r.Problems()) > 0 {
			t.Errorf("late %v: %v", late, r.Problems())
		}
	}
}

// TestHostRoutes come for guests of this node whose addresses the gateway
// serves, and go with them.
func TestHostRoutes(t *testing.T) {
	r := newRig(t, vtepA, 100)
	r.gateway(gateway)
	r.appears(100, testMAC(1), "tap1")
	for _, ip := range []string{"172.16.0.11", "fd00::11", "fe80::11", "10.0.0.2", "172.16.1.1"} {
		r.speaks(100, testMAC(1), netip.MustParseAddr(ip))
	}
	r.learn(macip(vtepB, testMAC(2), "172.16.0.12", 0))
	r.take()
	if want := []string{"172.16.0.11/32", "fd00::11/128"}; !slices.Equal(r.hosts, want) {
		t.Errorf("host routes %v, want %v", r.hosts, want)
	}
	off := gateway
	off.HostRoutes = false
	r.gateway(off)
	if len(r.hosts) > 0 {
		t.Errorf("host routes are off: %v", r.hosts)
	}
	r.gateway(gateway)
	if len(r.hosts) != 2 {
		t.Errorf("host routes are on again: %v", r.hosts)
	}
	r.learn(macip(vtepB, testMAC(1), "172.16.0.11", 1))
	r.take()
	if len(r.hosts) > 0 {
		t.Errorf("the guest has moved: %v", r.hosts)
	}
}

// TestElectedGateway follows one that comes here, goes on to another node that
// got it later, and is still told by the one that had it before.
func TestElectedGateway(t *testing.T) {
	elected := dataplane.Gateway{Address: gateway.Address, Address6: gateway.Address6, Elected: true}
	ip, ip6 := gateway.Address.Addr(), gateway.Address6.Addr()
	macB, macC := testMAC(0xb), testMAC(0xc)
	r := newRig(t, vtepA, 100)
	r.SetSegments([]dataplane.Segment{{Name: "s100", VNI: 100, MACLimit: 10, Local: vtepA, Gateway: elected}})
	r.take()
	own := dataplane.Segment{Local: vtepA, Gateway: elected}.BridgeMAC()
	macOnly := "[2]:[0]:[48]:[" + own.String() + "] 0"
	r.wantTold(macOnly)

	r.learn(macip(vtepB, macB, ip.String(), 4), macip(vtepB, macB, ip6.String(), 4))
	r.take()
	r.wantARP(ip, macB)

	held := func(term uint32) {
		r.SetHeld(map[uint32]uint32{100: term})
		r.take()
	}
	held(5)
	r.wantARP(ip, dataplane.MAC{})
	r.wantARP(ip6, dataplane.MAC{})
	r.wantTold(macOnly, "[2]:[0]:[48]:["+own.String()+"]:[128]:[fd00::1] 5", "[2]:[0]:[48]:["+own.String()+"]:[32]:[172.16.0.1] 5")

	// A guest that claims it is not heard, nor is one that has the bridge's MAC.
	r.appears(100, testMAC(1), "tap1")
	r.speaks(100, testMAC(1), ip)
	r.appears(100, own, "tap1")
	r.learn(macip(vtepC, macC, ip.String(), 6))
	r.take()
	r.wantARP(ip, dataplane.MAC{})

	held(0)
	r.wantARP(ip, macC) // though B goes on telling it
	r.wantTold("[2]:[0]:[48]:[02:00:00:00:00:01] 0", macOnly)
	if len(r.Problems()) > 0 || len(r.hosts) > 0 {
		t.Errorf("problems %v, host routes %v", r.Problems(), r.hosts)
	}
	r.SetSegments(nil)
	r.take()
	r.wantTold()
}

// TestPrefixes has who leads to the segment's prefixes tell them, with the MAC
// that routes there, and take none from others.
func TestPrefixes(t *testing.T) {
	r := newRig(t, vtepA, 100)
	set := func(g dataplane.Gateway) dataplane.MAC {
		segment := dataplane.Segment{Name: "s100", VNI: 100, MACLimit: 10, Local: vtepA, Gateway: g}
		r.SetSegments([]dataplane.Segment{segment})
		return segment.BridgeMAC()
	}
	want := func(when string, mac dataplane.MAC, prefixes ...string) {
		t.Helper()
		r.check()
		var got []string
		for _, wire := range r.wire {
			route, err := Decode(wire)
			if err != nil {
				t.Fatal(err)
			}
			if p, ok := route.(Prefix); ok {
				got = append(got, p.Prefix.String())
				if p.RouterMAC != mac || p.VNI != 100 || p.VTEP != vtepA || p.Gateway.IsValid() {
					t.Errorf("%s: %+v; want it by %s", when, p, mac)
				}
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, prefixes) {
			t.Errorf("%s: tells %v, want %v", when, got, prefixes)
		}
	}
	want("without a gateway", dataplane.MAC{})
	want("on every node", set(gateway), "172.16.0.0/24", "fd00::/64")

	theirs := Prefix{Attributes: attributesFor(vtepB, 100), Prefix: netip.MustParsePrefix("172.16.0.0/24")}
	r.learn(theirs)
	for _, route := range r.Routes() {
		if route.Type == typePrefix && route.Used != route.Local {
			t.Errorf("%+v: the node's own prefixes count, no others", route)
		}
	}

	ipv4 := gateway
	ipv4.Address6 = netip.Prefix{}
	want("without IPv6", set(ipv4), "172.16.0.0/24")
	elected := dataplane.Gateway{Address: gateway.Address, Elected: true}
	own := set(elected)
	want("elected elsewhere", own)
	r.SetHeld(map[uint32]uint32{100: 3})
	want("elected here", own, "172.16.0.0/24")
	r.SetHeld(nil)
	want("lost", own)
	r.Learn([]bgp.EVPNPath{gone(theirs)})
	want("all gone", own)
}
