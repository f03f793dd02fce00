package node

import (
	"context"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"frond/internal/advertise"
	"frond/internal/dataplane"
)

// fakeAdvertiser notes what it was told.
type fakeAdvertiser struct {
	routers []advertise.Router
	sets    int
}

func (f *fakeAdvertiser) Withdraw(context.Context) error { return nil }

func (f *fakeAdvertiser) Set(r []advertise.Router) {
	f.routers = r
	f.sets++
}

const guestsDocument = testDocument + `segments:
  blue:
    vni: 100
    nodes: [leaf1, leaf2]
    prefix: 172.16.0.0/24
    prefix6: "fd00:1::/64"
    gateway: {address: 172.16.0.1, address6: "fd00:1::1"}
    dns: [9.9.9.9, "2620:fe::fe"]
  red:
    vni: 200
    nodes: [leaf1, leaf2]
    prefix6: "fd00:2::/64"
    gateway: {address6: "fd00:2::1", mode: elected}
    dns: [9.9.9.9, "2620:fe::fe"]
    dns_names: off
  quiet: {vni: 300, nodes: [leaf1], prefix6: "fd00:3::/64", gateway: {address6: "fd00:3::1"}, ra: off}
  only4: {vni: 400, nodes: [leaf1], prefix: 172.17.0.0/24, gateway: {address: 172.17.0.1}}
`

// A gateway that is on every node is told on the guests' ports, an elected
// one on the bridge where it is.
func TestRoutersAndTheirLinks(t *testing.T) {
	port := func(name string, index, master int) dataplane.Link {
		return dataplane.Link{Name: name, Index: index, Master: master, Up: true, Carrier: true}
	}
	unplugged := port("tap2", 22, 10)
	unplugged.Carrier = false
	r := began(t, link("eth0", 2))
	r.plan = parse(t, guestsDocument, "leaf1").plan
	r.setLinks(link("eth0", 2), port("br-blue", 10, 0), port("vx-blue", 11, 10), port("tap0", 20, 10),
		port("tap1", 21, 10), unplugged, port("other", 23, 12), port("br-red", 12, 0), port("br-quiet", 13, 0), port("tap3", 24, 13))
	want := []advertise.Router{{
		Segment: "blue", MAC: [6]byte{2, 0x68, 0, 0, 0, 100}, LinkLocal: netip.MustParseAddr("fe80::68:ff:fe00:64"),
		Prefix: netip.MustParsePrefix("fd00:1::/64"), MTU: 1450,
		DNS: []netip.Addr{netip.MustParseAddr("fd00:1::1")}, Search: []string{"blue.apollo"},
		Links: []advertise.Link{{Name: "tap0", Index: 20}, {Name: "tap1", Index: 21}},
	}, {
		Segment: "red", MAC: [6]byte{2, 0x66, 10, 0, 200, 1}, LinkLocal: netip.MustParseAddr("fe80::68:ff:fe00:c8"),
		Prefix: netip.MustParsePrefix("fd00:2::/64"), MTU: 1450,
		DNS: []netip.Addr{netip.MustParseAddr("2620:fe::fe")}, Shared: true,
	}}
	same := cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})
	if diff := cmp.Diff(want, r.ads.routers, same); diff != "" {
		t.Error(diff)
	}
	sets := r.ads.sets
	r.step()
	if r.ads.sets != sets {
		t.Error("told again though nothing has changed")
	}
	r.gates.held = map[string]uint32{"red": 7}
	r.step()
	want[1].Links = []advertise.Link{{Name: "br-red", Index: 12}}
	if diff := cmp.Diff(want, r.ads.routers, same); diff != "" {
		t.Errorf("with an elected gateway: %s", diff)
	}
}
