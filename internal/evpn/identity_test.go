package evpn

import (
	"net/netip"
	"testing"

	"frond/internal/bgp"
)

// A node that gets another name tells the same under it, and hears what it
// took for its own before.
func TestIdentityChanges(t *testing.T) {
	vtepD := netip.MustParseAddr("10.0.200.9")
	r := newRig(t, vtepA, 100)
	r.appears(100, mac1, "g1")
	r.speaks(100, mac1, ip4)
	r.sticks(100, mac2, "g2")
	ipv4 := gateway
	ipv4.Address6 = netip.Prefix{}
	r.gateway(ipv4)
	theirs, ours := macip(vtepD, testMAC(3), "172.16.0.13", 2), macip(vtepA, testMAC(4), "", 0)
	r.learn(theirs, flood(vtepD, 100), ours)
	r.wantMAC(testMAC(3), vtepD)
	r.wantMAC(testMAC(4), nowhere)
	r.check()
	before := r.told

	identity := Config{ASN: 64009, RouterID: vtepD, VTEP: vtepD}
	r.SetIdentity(identity)
	r.wantMAC(testMAC(3), nowhere) // leads to this very node now
	r.wantMAC(testMAC(4), vtepA)
	r.wantTold(before[:3]...)
	if len(r.wire) != 5 {
		t.Errorf("%d routes are told, want those of two stations, an address, the segment and a prefix: %v", len(r.wire), r.told)
	}
	for _, wire := range r.wire {
		route, err := Decode(wire)
		if err != nil {
			t.Fatal(err)
		}
		a := route.attributes()
		if a.VTEP != vtepD || a.ASN != 64009 || a.RD != NewRD(vtepD, 100) {
			t.Errorf("%s is told with %+v", route, a)
		}
	}
	for _, m := range r.MACs(100) {
		if m.Local && m.VTEP != vtepD {
			t.Errorf("%s is said to be at %s", m.MAC, m.VTEP)
		}
	}
	r.check()
	r.SetIdentity(identity)
	if r.Changes().Routes {
		t.Error("the same name again changes what is told")
	}
	r.Learn([]bgp.EVPNPath{gone(theirs), gone(flood(vtepD, 100)), gone(ours)})
	r.check()
	if len(r.routes)+len(r.vteps) > 0 {
		t.Errorf("left behind: %v %v", r.routes, r.vteps)
	}
}
