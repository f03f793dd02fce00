package evpn

import (
	"strings"
	"testing"

	"frond/internal/bgp"
	"frond/internal/dataplane"
)

func (r *rig) plugs(mac dataplane.MAC, port string) {
	r.Observe(dataplane.LocalPlaces{{VNI: 100, MAC: mac, Port: port, Held: true}})
}

// TestPlaces has a station be put behind port g1, and says where it is after
// each of what may happen then, and whether it is held there.
func TestPlaces(t *testing.T) {
	mac := testMAC(1)
	elsewhere := macip(vtepB, mac, "", 7)
	for _, test := range []struct {
		name string
		do   func(*rig)
		at   string // empty: at VTEP B
		held bool
	}{
		{"nothing", func(*rig) {}, "g1", true},
		{"heard there", func(r *rig) { r.appears(100, mac, "g1") }, "g1", true},
		{"heard on another port", func(r *rig) { r.appears(100, mac, "g2") }, "g1", true},
		{"silent, and then heard on another port", func(r *rig) { r.ages(100, mac, "g1"); r.appears(100, mac, "g2") }, "g1", true},
		{"put elsewhere", func(r *rig) { r.plugs(mac, "g2") }, "g2", true},
		{"put elsewhere, and the former port is gone", func(r *rig) { r.plugs(mac, "g2"); r.unplug(100, "g1") }, "g2", true},
		{"put elsewhere more often than it may move", func(r *rig) {
			for range maxMoves {
				r.plugs(mac, "g2")
				r.plugs(mac, "g1")
			}
		}, "g1", true},
		{"its port is gone", func(r *rig) { r.unplug(100, "g1"); r.appears(100, mac, "g2") }, "g2", false},
		{"no longer held", func(r *rig) {
			r.Observe(dataplane.LocalPlaces{{VNI: 100, MAC: mac, Port: "g1"}})
			r.appears(100, mac, "g2")
		}, "g2", false},
		{"moved to another node", func(r *rig) { r.learn(elsewhere) }, "", false},
		{"moved, and heard on another port", func(r *rig) { r.learn(elsewhere); r.appears(100, mac, "g2") }, "", false},
		{"moved, and heard on its port", func(r *rig) { r.learn(elsewhere); r.appears(100, mac, "g1") }, "g1", true},
		{"moved and gone from there", func(r *rig) { r.learn(elsewhere); r.Learn([]bgp.EVPNPath{gone(elsewhere)}) }, "g1", true},
		{"moved, its port is gone, and gone from there", func(r *rig) {
			r.learn(elsewhere)
			r.unplug(100, "g1")
			r.appears(100, mac, "g2")
			r.Learn([]bgp.EVPNPath{gone(elsewhere)})
		}, "g2", false},
	} {
		r := newRig(t, vtepA, 100)
		for range maxMoves + 1 { // it is frozen before
			r.appears(100, mac, "g1")
			r.appears(100, mac, "g2")
		}
		r.plugs(mac, "g1")
		test.do(r)
		r.check()
		macs := r.MACs(100)
		if len(macs) != 1 || macs[0].Port != test.at || macs[0].Held != test.held || !macs[0].Frozen.IsZero() {
			t.Errorf("%s: %+v", test.name, macs)
		}
	}
}

// TestSeenBesideItsPlace says so as long as it is true.
func TestSeenBesideItsPlace(t *testing.T) {
	r := newRig(t, vtepA, 100)
	mac := testMAC(1)
	said := func(when string, want bool) {
		t.Helper()
		problems := r.Problems()
		if is := len(problems) == 1 && strings.Contains(problems[0].Text, "is plugged in at port g1, and was seen at port g2"); is != want || !want && len(problems) > 0 {
			t.Errorf("%s: %+v", when, problems)
		}
	}
	r.plugs(mac, "g1")
	said("plugged in", false)
	r.appears(100, mac, "g2")
	said("seen elsewhere", true)
	r.appears(100, mac, "g1")
	said("heard where it is", false)
}

// TestPlacesOnAFullPort has a guest flood its own port: what was put there stays.
func TestPlacesOnAFullPort(t *testing.T) {
	r := newRig(t, vtepA, 100)
	r.plugs(testMAC(1), "g1")
	r.ages(100, testMAC(1), "g1")
	for n := range 20 {
		r.appears(100, testMAC(2+n), "g1")
	}
	r.check()
	if macs := r.MACs(100); len(macs) != 10 || macs[0].MAC != testMAC(1) {
		t.Errorf("%+v", macs)
	}
}
