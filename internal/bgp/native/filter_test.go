package native

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	seam "frond/internal/bgp"
)

// except is a filter that refuses what is inside these prefixes, and EVPN
// routes that begin so.
type except struct {
	Prefixes []netip.Prefix
	NLRI     string
}

func (e *except) Unicast(p netip.Prefix, t seam.Teller) seam.Refusal {
	if slices.ContainsFunc(e.Prefixes, func(o netip.Prefix) bool { return o.Overlaps(p) && o.Bits() <= p.Bits() }) {
		return seam.Refusal(fmt.Sprintf("AS %d tells %v", t.ASN, t.Path))
	}
	return ""
}

func (e *except) EVPN(r seam.EVPNRoute, _ seam.Teller) seam.Refusal {
	if e.NLRI != "" && strings.HasPrefix(r.NLRI, e.NLRI) {
		return "so it begins"
	}
	return ""
}

func refusing(prefixes ...string) *except {
	e := &except{}
	for _, p := range prefixes {
		e.Prefixes = append(e.Prefixes, netip.MustParsePrefix(p))
	}
	return e
}

// TestFilter changes what is taken in of a peer while the session goes on, and
// looks at what is passed on.
func TestFilter(t *testing.T) {
	a, b, ofB, ofA := pair(t)
	c := namespace(t, "filter-c")
	ofC, ofAfromC := cable(t, a, c, "eth2")
	dA, dB := desired(1, ofB, ofC), desired(2, ofA)
	dB.Routes = append(dB.Routes, seam.Route{Prefix: netip.MustParsePrefix("20.0.0.0/24")}, seam.Route{Prefix: netip.MustParsePrefix("20.0.1.0/24")})
	dB.Routes = append(dB.Routes, seam.Route{EVPN: &seam.EVPNRoute{NLRI: "\x03\x04test", NextHop: dB.RouterID}})
	x, y, z := startSpeaker(t, a, dA), startSpeaker(t, b, dB), startSpeaker(t, c, desired(3, ofAfromC))
	z.reaches("20.0.1.0/24", 1) // nothing is refused without a filter

	var flaps uint64 // a collision of the first connections may have cost one
	x.eventually("session up", func() bool {
		flaps = x.peers[ofB].Flaps
		return x.peers[ofB].State == seam.Established
	})
	e := refusing("20.0.0.0/24", "fd00::/64")
	e.NLRI = "\x03"
	dA.Filter = e
	x.set(dA)
	for _, gone := range []string{"20.0.0.0/24", "fd00::2/128", "fd00::3/128"} {
		x.reaches(gone, 0)
	}
	z.reaches("20.0.0.0/24", 0)
	x.eventually("the EVPN route is refused", func() bool { return x.evpn["\x03\x04test"].Gone })
	x.eventually("what is refused is told", func() bool {
		p := x.peers[ofB]
		i := slices.IndexFunc(p.Refused.Standing, func(r seam.Refused) bool { return r.Prefix == netip.MustParsePrefix("20.0.0.0/24") })
		return len(p.Refused.Standing) == 3 && p.Refused.Count >= 3 && p.Received[seam.IPv4] == 2 && p.Received[seam.EVPN] == 0 &&
			i >= 0 && p.Refused.Standing[i].Origin == 4200000002 && p.Refused.Standing[i].Why == "AS 4200000002 tells [4200000002]"
	})

	dB.Routes = slices.Delete(dB.Routes, 2, 3) // 20.0.0.0/24 is taken back
	dB.Routes = append(dB.Routes, seam.Route{Prefix: netip.MustParsePrefix("20.0.0.7/32")})
	y.set(dB)
	x.eventually("another is refused in its place", func() bool {
		standing := x.peers[ofB].Refused.Standing
		has := func(text string) bool {
			return slices.ContainsFunc(standing, func(r seam.Refused) bool { return r.Prefix == netip.MustParsePrefix(text) })
		}
		return len(standing) == 3 && has("20.0.0.7/32") && !has("20.0.0.0/24")
	})

	dA.Filter = refusing("20.0.1.0/24")
	x.set(dA)
	x.reaches("20.0.0.7/32", 1)
	z.reaches("20.0.0.7/32", 1)
	x.reaches("fd00::2/128", 1)
	x.reaches("20.0.1.0/24", 0)
	x.eventually("the EVPN route is taken in", func() bool { return !x.evpn["\x03\x04test"].Gone })
	x.eventually("one is refused", func() bool { return len(x.peers[ofB].Refused.Standing) == 1 })

	dA.Filter = nil
	x.set(dA)
	x.reaches("20.0.1.0/24", 1)
	x.eventually("nothing is refused, and no session was lost", func() bool {
		return len(x.peers[ofB].Refused.Standing) == 0 && x.peers[ofB].Flaps == flaps && x.peers[ofB].Received[seam.IPv4] == 3
	})
}

// TestFlood has a peer tell more than is remembered of what is refused.
func TestFlood(t *testing.T) {
	a, b, ofB, ofA := pair(t)
	dA, dB := desired(1, ofB), desired(2, ofA)
	dA.Filter = refusing("20.0.0.0/8")
	for i := range 5000 {
		addr := netip.AddrFrom4([4]byte{20, 0, byte(i >> 8), byte(i)})
		dB.Routes = append(dB.Routes, seam.Route{Prefix: netip.PrefixFrom(addr, 32)})
	}
	x, y := startSpeaker(t, a, dA), startSpeaker(t, b, dB)
	x.reaches("10.0.0.2/32", 1)
	x.eventually("all is refused", func() bool {
		p := x.peers[ofB]
		return p.Refused.Count == 5000 && len(p.Refused.Standing) == seam.MaxRefused && p.Received[seam.IPv4] == 1
	})
	dB.Routes = dB.Routes[:2]
	y.set(dB)
	x.eventually("nothing stands", func() bool { return len(x.peers[ofB].Refused.Standing) == 0 })
}
