package evpn

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	gobgp "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"frond/internal/bgp"
	"frond/internal/dataplane"
)

var (
	vtepA = netip.MustParseAddr("10.0.200.1")
	vtepB = netip.MustParseAddr("10.0.200.2")
	vtepC = netip.MustParseAddr("10.0.200.3")
	ip4   = netip.MustParseAddr("172.16.0.11")
	ip6   = netip.MustParseAddr("fd00:172:16::11")
	mac1  = dataplane.MAC{2, 0, 0, 0, 0, 1}
	mac2  = dataplane.MAC{2, 0, 0, 0, 0, 2}

	addresses = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
	networks  = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
)

func attributesFor(vtep netip.Addr, vni uint32) Attributes {
	return Attributes{RD: NewRD(vtep, uint16(vni)), VNI: vni, ASN: 64000, VTEP: vtep}
}

var examples = []struct {
	notation string
	route    Route
}{
	{"[2]:[0]:[48]:[02:00:00:00:00:01]", MACIP{Attributes: attributesFor(vtepA, 100), MAC: mac1}},
	{"[2]:[0]:[48]:[02:00:00:00:00:01]:[32]:[172.16.0.11]", MACIP{Attributes: attributesFor(vtepA, 100), MAC: mac1, IP: ip4, Sequence: 7}},
	{"[2]:[0]:[48]:[02:00:00:00:00:01]:[128]:[fd00:172:16::11]", MACIP{Attributes: attributesFor(vtepA, maxVNI), MAC: mac1, IP: ip6, Sticky: true}},
	{"[3]:[0]:[32]:[10.0.200.1]", Multicast{Attributes: attributesFor(vtepA, 100), Originator: vtepA}},
	{"[3]:[0]:[128]:[fd00::1]", Multicast{Attributes: Attributes{RD: NewRD(vtepA, 100), VNI: 100, VTEP: netip.MustParseAddr("fd00::1")}, Originator: netip.MustParseAddr("fd00::1")}},
	{"[5]:[0]:[24]:[172.16.0.0]", Prefix{Attributes: attributesFor(vtepA, 100), Prefix: netip.MustParsePrefix("172.16.0.0/24"), RouterMAC: mac2}},
	{"[5]:[0]:[64]:[fd00:172:16::]", Prefix{Attributes: attributesFor(vtepA, 100), Prefix: netip.MustParsePrefix("fd00:172:16::/64"), Gateway: ip6}},
}

func TestRoutesSurviveTheWire(t *testing.T) {
	for _, example := range examples {
		if got := example.route.String(); got != example.notation {
			t.Errorf("notation %s, want %s", got, example.notation)
		}
		got, err := Decode(example.route.Encode())
		if err != nil {
			t.Errorf("%s: %v", example.notation, err)
			continue
		}
		if diff := cmp.Diff(example.route, got, addresses, networks); diff != "" {
			t.Errorf("%s changed on its way (-sent +received):\n%s", example.notation, diff)
		}
	}
}

// Another implementation's codec has to read what is sent here, and to mean
// the same by it.
func TestAnotherCodecReadsTheRoutes(t *testing.T) {
	for _, example := range examples {
		wire := example.route.Encode()
		nlri, err := gobgp.NLRIFromSlice(gobgp.RF_EVPN, []byte(wire.NLRI))
		if err != nil {
			t.Errorf("%s: %v", example.notation, err)
			continue
		}
		a := example.route.attributes()
		evpn := nlri.(*gobgp.EVPNNLRI)
		if rd := evpn.RD().String(); rd != a.RD.String() {
			t.Errorf("%s: route distinguisher %s, want %s", example.notation, rd, a.RD)
		}
		switch route := example.route.(type) {
		case MACIP:
			got := evpn.RouteTypeData.(*gobgp.EVPNMacIPAdvertisementRoute)
			if got.MacAddress.String() != route.MAC.String() || got.IPAddress != route.IP || got.Labels[0] != route.VNI {
				t.Errorf("%s: read as %s", example.notation, got)
			}
		case Multicast:
			got := evpn.RouteTypeData.(*gobgp.EVPNMulticastEthernetTagRoute)
			if got.IPAddress != route.Originator {
				t.Errorf("%s: read as %s", example.notation, got)
			}
			var pmsi gobgp.PathAttributePmsiTunnel
			value := append([]byte{0xc0, 22, byte(len(wire.PMSI))}, wire.PMSI...)
			if err := pmsi.DecodeFromBytes(value); err != nil {
				t.Errorf("%s: PMSI: %v", example.notation, err)
			}
			tunnel, _ := pmsi.TunnelID.(*gobgp.IngressReplTunnelID)
			if pmsi.TunnelType != gobgp.PMSI_TUNNEL_TYPE_INGRESS_REPL || pmsi.Label != route.VNI || tunnel == nil || tunnel.Value != route.VTEP {
				t.Errorf("%s: PMSI read as %s", example.notation, &pmsi)
			}
		case Prefix:
			got := evpn.RouteTypeData.(*gobgp.EVPNIPPrefixRoute)
			if got.IPPrefix != route.Prefix.Addr() || int(got.IPPrefixLength) != route.Prefix.Bits() || got.Label != route.VNI {
				t.Errorf("%s: read as %s", example.notation, got)
			}
		}
	}
}

func TestAnotherCodecReadsTheCommunities(t *testing.T) {
	for c, want := range map[uint64]string{
		routeTarget(4200000000+0x00c801, 100): "45569:100",
		encapsulationVXLAN:                    "VXLAN",
		mobility(3, false):                    "mac-mobility: 3",
		mobility(4, true):                     "mac-mobility: 4, sticky",
		routerMAC(mac1):                       "router's mac: 02:00:00:00:00:01",
	} {
		got, err := gobgp.ParseExtended(binary.BigEndian.AppendUint64(nil, c))
		if err != nil || !strings.EqualFold(got.String(), want) {
			t.Errorf("%016x is read as %v (%v), want %s", c, got, err, want)
		}
	}
}

func TestVNIOfARoute(t *testing.T) {
	unlabelled := MACIP{Attributes: attributesFor(vtepB, 0), MAC: mac1}.Encode()
	for name, test := range map[string]struct {
		communities []uint64
		vni         uint32 // 0: not accepted
	}{
		"two-octet AS":                {[]uint64{0x0002_fde8_0000_0064}, 100},
		"RFC 8365 automatic":          {[]uint64{0x0002_fde8_1000_0064}, 100},
		"IPv4 address":                {[]uint64{0x0102_0a00_c802_0064}, 100},
		"four-octet AS":               {[]uint64{0x0202_fa56_ea01_0064}, 100},
		"the first that names one":    {[]uint64{0x0002_fde8_0000_0000, 0x0002_fde8_0000_0065}, 101},
		"no route target":             {nil, 0},
		"VXLAN among others":          {[]uint64{0x0002_fde8_0000_0064, 0x030c_0000_0000_000a, encapsulationVXLAN}, 100},
		"another encapsulation alone": {[]uint64{0x0002_fde8_0000_0064, 0x030c_0000_0000_000a}, 0},
	} {
		unlabelled.ExtendedCommunities = test.communities
		route, err := Decode(unlabelled)
		if test.vni == 0 {
			if err == nil {
				t.Errorf("%s: accepted as %v", name, route)
			}
			continue
		}
		if err != nil || route.attributes().VNI != test.vni {
			t.Errorf("%s: %v, %v; want VNI %d", name, route, err, test.vni)
		}
	}
}

func TestMalformedRoutes(t *testing.T) {
	good := MACIP{Attributes: attributesFor(vtepB, 100), MAC: mac1, IP: ip4}.Encode()
	flood := Multicast{Attributes: attributesFor(vtepB, 100), Originator: vtepB}.Encode()
	prefix := Prefix{Attributes: attributesFor(vtepB, 100), Prefix: netip.MustParsePrefix("10.1.0.0/16")}.Encode()
	with := func(r bgp.EVPNRoute, at int, value byte) bgp.EVPNRoute {
		b := []byte(r.NLRI)
		b[at] = value
		r.NLRI = string(b)
		return r
	}
	cut := func(r bgp.EVPNRoute, n int) bgp.EVPNRoute {
		r.NLRI = r.NLRI[:1] + string(rune(n)) + r.NLRI[2:2+n]
		return r
	}
	nextHop := func(r bgp.EVPNRoute, a string) bgp.EVPNRoute {
		r.NextHop, _ = netip.ParseAddr(a)
		return r
	}
	pmsi := func(value string) bgp.EVPNRoute {
		r := flood
		r.PMSI = value
		return r
	}
	for name, test := range map[string]struct {
		route  bgp.EVPNRoute
		unused bool
	}{
		"nothing":                        {bgp.EVPNRoute{}, false},
		"length too large":               {with(good, 1, 99), false},
		"length too small":               {with(good, 1, 3), false},
		"empty":                          {cut(good, 0), false},
		"ends in its MAC":                {cut(good, 25), false},
		"ends before its address length": {cut(good, 29), false},
		"ends in its address":            {cut(good, 32), false},
		"no label":                       {cut(good, 34), false},
		"half a label":                   {cut(good, 36), false},
		"MAC of 47 bits":                 {with(good, 24, 47), false},
		"multicast MAC":                  {with(good, 25, 3), false},
		"address of 31 bits":             {with(good, 31, 31), false},
		"address of 255 bits":            {with(good, 31, 255), false},
		"multicast address":              {with(good, 32, 224), false},
		"no next hop":                    {nextHop(good, ""), false},
		"next hop unspecified":           {nextHop(good, "0.0.0.0"), false},
		"next hop loopback":              {nextHop(good, "127.0.0.1"), false},
		"next hop multicast":             {nextHop(flood, "ff02::1"), false},
		"flood without originator":       {cut(flood, 12), false},
		"flood of no address":            {with(cut(flood, 13), 14, 0), false},
		"flood with more":                {with(flood, 14, 0), false},
		"PMSI cut off":                   {pmsi("\x00\x06\x00"), false},
		"PMSI without endpoint":          {pmsi("\x00\x06\x00\x00\x64"), false},
		"PMSI with half an endpoint":     {pmsi("\x00\x06\x00\x00\x64\x0a\x00"), false},
		"PMSI tunnel of another type":    {pmsi("\x00\x03\x00\x00\x64\x0a\x00\x00\x01"), true},
		"prefix length 33":               {with(prefix, 24, 33), false},
		"bits behind the prefix":         {with(prefix, 24, 8), false},
		"prefix cut off":                 {cut(prefix, 33), false},
		"Ethernet segment route":         {bgp.EVPNRoute{NLRI: "\x04\x01x", NextHop: vtepB}, true},
		"type of the future":             {bgp.EVPNRoute{NLRI: "\xff\x00", NextHop: vtepB}, true},
	} {
		route, err := Decode(test.route)
		if err == nil {
			t.Errorf("%s: accepted as %s", name, route)
		} else if errors.Is(err, errUnused) != test.unused {
			t.Errorf("%s: %v; unused should be %v", name, err, test.unused)
		}
	}
}

// Whatever a peer sends, decoding ends in an error or in a route that says
// the same after being sent on.
func FuzzDecode(f *testing.F) {
	for _, example := range examples {
		wire := example.route.Encode()
		var communities []byte
		for _, c := range wire.ExtendedCommunities {
			communities = binary.BigEndian.AppendUint64(communities, c)
		}
		f.Add([]byte(wire.NLRI), []byte(wire.PMSI), communities, wire.NextHop.AsSlice())
	}
	f.Fuzz(func(t *testing.T, nlri, pmsi, communities, nextHop []byte) {
		wire := bgp.EVPNRoute{NLRI: string(nlri), PMSI: string(pmsi)}
		wire.NextHop, _ = netip.AddrFromSlice(nextHop)
		for ; len(communities) >= 8; communities = communities[8:] {
			wire.ExtendedCommunities = append(wire.ExtendedCommunities, binary.BigEndian.Uint64(communities))
		}
		route, err := Decode(wire)
		if err != nil {
			return
		}
		again, err := Decode(route.Encode())
		if err != nil {
			t.Fatalf("%s cannot be read after being sent on: %v", route, err)
		}
		if again.String() != route.String() || again.attributes().VNI != route.attributes().VNI {
			t.Fatalf("%s became %s", route, again)
		}
		table := New(Config{ASN: 64000, RouterID: vtepA, VTEP: vtepA})
		table.SetSegments([]dataplane.Segment{{Name: "s", VNI: route.attributes().VNI}})
		table.Learn([]bgp.EVPNPath{{Key: "k", Route: wire}})
		table.Learn([]bgp.EVPNPath{{Key: "k", Gone: true}})
		if s := table.segments[route.attributes().VNI]; len(s.macs)+len(s.addresses)+len(s.floods)+len(s.flood)+len(table.routes)+len(table.vteps) > 0 {
			t.Fatalf("%s left something behind", route)
		}
	})
}
