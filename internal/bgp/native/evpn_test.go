package native

import (
	"fmt"
	"net/netip"
	"testing"

	seam "frond/internal/bgp"
)

// Routes with equal attributes go into messages together, also when they come
// one after another.
func TestEVPNRoutesShareMessages(t *testing.T) {
	o := newOwner(t)
	n := o.neighbor(1)
	o.up(n, graceful(1))
	o.compose(n) // End-of-RIB
	routes := make([]seam.Route, 100)
	for i := range routes {
		routes[i].EVPN = &seam.EVPNRoute{
			NLRI: fmt.Sprintf("\x03\x04%04d", i), NextHop: netip.MustParseAddr("10.0.0.1"),
			ExtendedCommunities: []uint64{0x0002fde800000064},
		}
	}
	routes[99].EVPN.ExtendedCommunities = []uint64{0x0002fde8000000c8}
	for count := 1; count <= len(routes); count++ {
		o.originate(routes[:count])
	}
	if bodies := split(t, o.compose(n)); len(bodies) != 2 {
		t.Errorf("%d messages for two kinds of routes", len(bodies))
	}
}
