package kernel_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"frond/internal/dataplane"
)

// TestAnnounce has guests of this node and of another one, who believe
// something else, hear where the gateway is. The bridges suppress neighbours:
// what they flood by themselves does not reach the other node.
func TestAnnounce(t *testing.T) {
	t.Parallel()
	a, b := newVTEPs(t, 1)
	join(a, b)
	segment := a.segment()
	segment.Gateway = dataplane.Gateway{
		Elected: true,
		Address: netip.MustParsePrefix("172.16.0.254/24"), Address6: netip.MustParsePrefix("fd00::ff/64"),
	}
	guests := []*guest{a.guest(1), b.guest(2)}
	for _, g := range guests {
		for _, address := range segment.Gateway.Addresses() {
			command(t, "ip -n %s neigh replace %s lladdr 02:00:00:00:00:99 dev eth0 nud stale", g.name, address.Addr())
		}
	}
	eventually(t, func() error {
		if err := a.kernel.Announce([]dataplane.Segment{segment}); err != nil {
			return err
		}
		for _, g := range guests {
			for _, address := range segment.Gateway.Addresses() {
				got := command(t, "ip -n %s neigh show %s", g.name, address.Addr())
				if want := segment.BridgeMAC().String(); !strings.Contains(got, want) {
					return fmt.Errorf("the guest behind %s believes %swant %s", g.port, got, want)
				}
			}
		}
		return nil
	})
}

// TestMovedNeighbors has a guest hear of addresses that have come to another MAC
// elsewhere, and of no other.
func TestMovedNeighbors(t *testing.T) {
	t.Parallel()
	a, b := newVTEPs(t, 1)
	join(a, b)
	here, there := a.guest(1), b.guest(2)
	moved := []netip.Addr{netip.MustParseAddr("172.16.0.9"), netip.MustParseAddr("fd00::9")}
	other := netip.MustParseAddr("172.16.0.10")
	for _, g := range []*guest{here, there} {
		for _, ip := range append(moved, other) {
			command(t, "ip -n %s neigh replace %s lladdr 02:00:00:00:00:99 dev eth0 nud stale", g.name, ip)
		}
	}
	u := dataplane.OverlayUpdate{
		Neighbors: map[dataplane.NeighborKey]dataplane.MAC{{VNI: 100, IP: other}: mac(10)},
		Moved:     make(map[dataplane.NeighborKey]struct{}),
	}
	for _, ip := range moved {
		key := dataplane.NeighborKey{VNI: 100, IP: ip}
		u.Neighbors[key], u.Moved[key] = mac(9), struct{}{}
	}
	a.Update(u)
	a.settle()
	a.noProblems()
	knows := func(g *guest, ip netip.Addr, mac string) bool {
		return strings.Contains(command(t, "ip -n %s neigh show %s", g.name, ip), mac)
	}
	eventually(t, func() error {
		for _, ip := range moved {
			if !knows(here, ip, mac(9).String()) {
				return fmt.Errorf("the guest is not told of %s", ip)
			}
		}
		return nil
	})
	if !knows(here, other, "02:00:00:00:00:99") {
		t.Errorf("the guest is told of %s, which has not moved", other)
	}
	if !knows(there, moved[0], "02:00:00:00:00:99") {
		t.Errorf("the guest of another node is told, too")
	}
}

func TestAnnounceWithoutDevices(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	err := s.kernel.Announce([]dataplane.Segment{{Name: "blue", Bridge: "br-blue", VXLAN: "vx-blue"}})
	if err == nil || !strings.Contains(err.Error(), "announce the gateway of blue: find link br-blue") {
		t.Errorf("error %v", err)
	}
}
