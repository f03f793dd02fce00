package evpn

import (
	"fmt"
	"net/netip"
	"testing"

	"frond/internal/bgp"
	"frond/internal/dataplane"
)

// TestGuestsAreToldOfMovedAddresses has an address come to another MAC in all
// ways: guests here are told if they may know it at the former one, and do not
// hear the new owner themselves.
func TestGuestsAreToldOfMovedAddresses(t *testing.T) {
	at := func(vtep netip.Addr, mac dataplane.MAC, sequence uint32) Route {
		return macip(vtep, mac, ip4.String(), sequence)
	}
	forget := func(r *rig, route Route) { r.Learn([]bgp.EVPNPath{gone(route)}) }
	for name, test := range map[string]struct {
		before, do func(*rig)
		moved      bool
	}{
		"seen first": {func(*rig) {}, func(r *rig) { r.learn(at(vtepB, mac2, 0)) }, false},
		"another node's guest takes it from one elsewhere": {
			func(r *rig) { r.learn(at(vtepB, mac1, 0)) },
			func(r *rig) { r.learn(at(vtepC, mac2, 1)) }, true},
		"the same guest on another node": {
			func(r *rig) { r.learn(at(vtepB, mac1, 0)) },
			func(r *rig) { r.learn(at(vtepC, mac1, 1)) }, false},
		"another node's guest takes it from one here": {
			func(r *rig) { r.appears(100, mac1, "g1"); r.speaks(100, mac1, ip4) },
			func(r *rig) { r.learn(at(vtepB, mac2, 1)) }, true},
		"a guest here takes it, which the others hear": {
			func(r *rig) { r.learn(at(vtepB, mac1, 0)) },
			func(r *rig) { r.appears(100, mac2, "g2"); r.speaks(100, mac2, ip4) }, false},
		"another has it after its guest is gone": {
			func(r *rig) { r.learn(at(vtepB, mac1, 0)); r.take(); forget(r, at(vtepB, mac1, 0)) },
			func(r *rig) { r.learn(at(vtepC, mac2, 0)) }, true},
		"the same has it again": {
			func(r *rig) { r.learn(at(vtepB, mac1, 0)); r.take(); forget(r, at(vtepB, mac1, 0)) },
			func(r *rig) { r.learn(at(vtepB, mac1, 0)) }, false},
		"another has it after a guest here is unplugged": {
			func(r *rig) { r.appears(100, mac1, "g1"); r.speaks(100, mac1, ip4); r.take(); r.unplug(100, "g1") },
			func(r *rig) { r.learn(at(vtepB, mac2, 0)) }, true},
	} {
		r := newRig(t, vtepA, 100)
		test.before(r)
		r.take()
		test.do(r)
		overlay := r.Changes().Overlay
		if _, moved := overlay.Moved[dataplane.NeighborKey{VNI: 100, IP: ip4}]; moved != test.moved {
			t.Errorf("%s: guests are told: %t", name, moved)
		}
	}
}

func TestLostAddressesAreBounded(t *testing.T) {
	r := newRig(t, vtepA, 100)
	for n := range 2 * maxLost {
		route := macip(vtepB, mac1, fmt.Sprintf("172.16.%d.%d", n/250, 1+n%250), 0)
		r.learn(route)
		r.Learn([]bgp.EVPNPath{gone(route)})
	}
	if got := len(r.Table.segments[100].lost); got != maxLost {
		t.Errorf("%d addresses are remembered", got)
	}
}
