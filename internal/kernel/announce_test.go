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

func TestAnnounceWithoutDevices(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	err := s.kernel.Announce([]dataplane.Segment{{Name: "blue", Bridge: "br-blue", VXLAN: "vx-blue"}})
	if err == nil || !strings.Contains(err.Error(), "announce the gateway of blue: find link br-blue") {
		t.Errorf("error %v", err)
	}
}
