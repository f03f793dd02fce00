package node

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"frond/internal/dataplane"
	"frond/internal/dhcp"
)

// TestStrictGuardAwaitsLeases has a strict guard set nothing until the leases are
// known, for a while; then it goes on without, and is strict once they are.
func TestStrictGuardAwaitsLeases(t *testing.T) {
	r := began(t)
	r.step()
	before := r.guard.sets
	r.adopt(parse(t, leasingDocument+"guard: {strict: on}\n", "leaf1"), nil)
	r.step()
	if r.guard.sets != before {
		t.Errorf("rules are set before leases are known: %+v", r.guard.rules)
	}
	r.now = r.now.Add(strictPatience)
	r.step()
	if r.guard.sets != before+1 || r.guard.rules.Strict || len(r.guard.rules.Gateways) == 0 {
		t.Errorf("after a while without the store: %+v", r.guard.rules)
	}
	mac := dataplane.MAC{2, 0, 0, 0, 0, 9}
	r.dhcp.report.Synced = true
	r.dhcp.leases = []dhcp.Lease{
		{Segment: "blue", Address: netip.MustParseAddr("172.16.0.12"), MAC: mac, State: "leased"},
		{Segment: "blue", Address: netip.MustParseAddr("172.16.0.13"), MAC: mac, State: "offered"},
		{Segment: "blue", Address: netip.MustParseAddr("172.16.0.14"), MAC: mac, State: "declined"},
		{Segment: "blue", Address: netip.MustParseAddr("172.16.0.15"), MAC: mac, State: "ended"},
		{Segment: "blue", Address: netip.MustParseAddr("172.16.0.16"), MAC: mac, State: "ended", Kept: time.Minute},
	}
	r.now = r.now.Add(time.Second)
	r.step()
	var holders []string
	for _, h := range r.guard.rules.Holders {
		holders = append(holders, h.IP.String()+" "+h.MAC.String())
	}
	want := []string{"172.16.0.10 02:00:00:00:00:01", "172.16.0.12 " + mac.String(), "172.16.0.13 " + mac.String(), "172.16.0.16 " + mac.String()}
	if diff := cmp.Diff(want, holders); diff != "" || !r.guard.rules.Strict {
		t.Errorf("strict %t, %s\n%s", r.guard.rules.Strict, strings.Join(holders, ", "), diff)
	}
}

// TestStrictGuardAndALeaseOfNow has a guest of a strict guard be known by its
// lease at once, though the rules were made before that was given.
func TestStrictGuardAndALeaseOfNow(t *testing.T) {
	r := began(t)
	r.dhcp.report.Synced = true
	r.adopt(parse(t, leasingDocument+"guard: {strict: on}\n", "leaf1"), nil)
	r.step()
	mac, at := dataplane.MAC{2, 0, 0, 0, 0, 9}, netip.MustParseAddr("172.16.0.12")
	r.overlayChanged(dataplane.LocalMACs{{VNI: 7, MAC: mac, Port: "tap1"}})
	r.overlayChanged(dataplane.LocalAddresses{{VNI: 7, MAC: mac, IP: at, Port: "tap1"}})
	if _, held := r.segments.stations.Holder(7, at); held {
		t.Error("it is believed without a lease")
	}
	r.leased([]dataplane.LocalAddress{{VNI: 7, MAC: mac, IP: at, Port: "tap1"}})
	if holder, _ := r.segments.stations.Holder(7, at); holder.MAC != mac {
		t.Errorf("leased to %s, and held by %s", mac, holder.MAC)
	}
}

// TestStrictGuardAndAnOffer has the rules of a strict guard let a guest speak from
// an address that it is only about to be given.
func TestStrictGuardAndAnOffer(t *testing.T) {
	r := began(t)
	r.dhcp.report.Synced = true
	r.adopt(parse(t, leasingDocument+"guard: {strict: on}\n", "leaf1"), nil)
	r.step()
	own := dataplane.GuestAddress{MAC: dataplane.MAC{2, 0, 0, 0, 0, 9}, IP: netip.MustParseAddr("172.16.0.12")}
	r.dhcp.leases = []dhcp.Lease{{Segment: "blue", Address: own.IP, MAC: own.MAC, State: "offered"}}
	r.kept([]dataplane.LocalAddress{{VNI: 7, MAC: own.MAC, IP: own.IP, Port: "tap1"}})
	r.now = r.now.Add(time.Second) // rules are not made without a pause
	r.step()
	if !slices.Contains(r.guard.rules.Holders, own) {
		t.Errorf("it may not: %+v", r.guard.rules.Holders)
	}
	if _, held := r.segments.stations.Holder(7, own.IP); held {
		t.Error("others are told that it is there already")
	}
}

// TestStrictGuardWithoutLeases has a strict guard await no leases where guests
// make their addresses themselves, which needs no store.
func TestStrictGuardWithoutLeases(t *testing.T) {
	r := began(t)
	r.adopt(parse(t, testDocument+`segments:
  own: {vni: 7, nodes: [leaf1], prefix6: "fd00:7::/64", gateway: {address6: "fd00:7::1"}}
guard: {strict: on}
`, "leaf1"), nil)
	r.step()
	if !r.guard.rules.Strict {
		t.Errorf("it is not strict: %+v", r.guard.rules)
	}
}

// TestGuardFull names what the rules have no room for.
func TestGuardFull(t *testing.T) {
	r := began(t)
	for untold, want := range map[int]string{
		0: "",
		3: "guard-full kernel: the guard's rules have no room for 3 addresses and MACs of guests, and others can take them: make segments smaller, or turn the guard off",
	} {
		r.guarded.untold = untold
		got := ""
		for _, c := range r.guestConditions(r.now) {
			got += c.Name + " " + c.Subject + ": " + c.Text
		}
		if got != want {
			t.Errorf("%d: %q, want %q", untold, got, want)
		}
	}
}
