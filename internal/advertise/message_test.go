package advertise

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mdlayher/ndp"
)

var testRouter = Router{
	Segment: "blue", MAC: [6]byte{2, 0x68, 0, 0, 0, 100}, LinkLocal: netip.MustParseAddr("fe80::68:ff:fe00:64"),
	Prefix: netip.MustParsePrefix("fd00:1::/64"), MTU: 1450,
	DNS: []netip.Addr{netip.MustParseAddr("fd00:1::1")}, Search: []string{"blue.apollo"},
}

func parse(t *testing.T, r Router, to target, m ndp.Message) *ndp.RouterAdvertisement {
	t.Helper()
	b, err := frame(r, to, m)
	if err != nil {
		t.Fatal(err)
	}
	if sum := checksum(icmpv6, b[offsetSource:sizeHeaders], b[sizeHeaders:]); sum != 0 {
		t.Errorf("the checksum is off by %#x", sum)
	}
	parsed, err := ndp.ParseMessage(b[sizeHeaders:])
	if err != nil {
		t.Fatal(err)
	}
	return parsed.(*ndp.RouterAdvertisement)
}

func TestAdvertisement(t *testing.T) {
	all := target{allNodesMAC, allNodes}
	narrow := testRouter
	narrow.Prefix, narrow.DNS, narrow.Search = netip.MustParsePrefix("fd00:2::/80"), nil, nil
	source := &ndp.LinkLayerAddress{Direction: ndp.Source, Addr: testRouter.MAC[:]}
	for _, test := range []struct {
		name string
		got  *ndp.RouterAdvertisement
		want *ndp.RouterAdvertisement
	}{
		{"router", parse(t, testRouter, all, advertisement(testRouter, nil)), &ndp.RouterAdvertisement{
			CurrentHopLimit: 64, RouterLifetime: 30 * time.Minute, OtherConfiguration: true, Options: []ndp.Option{
				source, ndp.NewMTU(1450),
				&ndp.PrefixInformation{PrefixLength: 64, Prefix: netip.MustParseAddr("fd00:1::"), OnLink: true, AutonomousAddressConfiguration: true,
					PreferredLifetime: 168 * time.Hour, ValidLifetime: 720 * time.Hour},
				&ndp.RecursiveDNSServer{Lifetime: 30 * time.Minute, Servers: testRouter.DNS},
				&ndp.DNSSearchList{Lifetime: 30 * time.Minute, DomainNames: testRouter.Search},
			}}},
		{"no /64, after another prefix", parse(t, narrow, all, advertisement(narrow, []netip.Prefix{testRouter.Prefix})), &ndp.RouterAdvertisement{
			CurrentHopLimit: 64, RouterLifetime: 30 * time.Minute, Options: []ndp.Option{
				source, ndp.NewMTU(1450),
				&ndp.PrefixInformation{PrefixLength: 80, Prefix: netip.MustParseAddr("fd00:2::"), OnLink: true,
					PreferredLifetime: 168 * time.Hour, ValidLifetime: 720 * time.Hour},
				&ndp.PrefixInformation{PrefixLength: 64, Prefix: netip.MustParseAddr("fd00:1::"), OnLink: true, AutonomousAddressConfiguration: true},
			}}},
		{"none any more", parse(t, testRouter, all, farewell(testRouter)), &ndp.RouterAdvertisement{
			CurrentHopLimit: 64, Options: []ndp.Option{
				source,
				&ndp.RecursiveDNSServer{Servers: testRouter.DNS},
				&ndp.DNSSearchList{DomainNames: testRouter.Search},
			}}},
	} {
		if diff := cmp.Diff(test.want, test.got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
}

// solicit is a frame that a guest sends.
func solicit(t testing.TB, from netip.Addr, options ...ndp.Option) []byte {
	t.Helper()
	r := Router{MAC: [6]byte{2, 0x67, 0, 0, 0, 1}, LinkLocal: from}
	b, err := frame(r, target{[6]byte{0x33, 0x33, 0, 0, 0, 2}, netip.MustParseAddr("ff02::2")}, &ndp.RouterSolicitation{Options: options})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSolicitor(t *testing.T) {
	guest, nobody := netip.MustParseAddr("fe80::67"), netip.IPv6Unspecified()
	own := &ndp.LinkLayerAddress{Direction: ndp.Source, Addr: []byte{2, 0x67, 0, 0, 0, 1}}
	sound := solicit(t, guest, own)
	changed := func(change func(b []byte) []byte) []byte { return change(append([]byte(nil), sound...)) }
	answerable := target{[6]byte{2, 0x67, 0, 0, 0, 1}, guest}
	for _, test := range []struct {
		name  string
		frame []byte
		want  target
		sound bool
	}{
		{"with an address", sound, answerable, true},
		{"without options", solicit(t, guest), answerable, true},
		{"padded to the least frame", append(solicit(t, guest), make([]byte, 20)...), answerable, true},
		{"nobody yet", solicit(t, nobody), target{}, true},
		{"from afar", solicit(t, netip.MustParseAddr("2001:db8::1")), target{}, true},
		{"nobody with a link-layer address", solicit(t, nobody, own), target{}, false},
		{"forwarded", changed(func(b []byte) []byte { b[offsetHopLimit] = 254; return b }), target{}, false},
		{"checksum", changed(func(b []byte) []byte { b[len(b)-1] ^= 1; return b }), target{}, false},
		{"cut short", sound[:len(sound)-1], target{}, false},
		{"headers only", sound[:sizeHeaders], target{}, false},
		{"empty", nil, target{}, false},
		{"from a group", changed(func(b []byte) []byte { b[offsetEtherSource] |= 1; return b }), target{}, false},
		{"an advertisement", func() []byte {
			b, _ := frame(testRouter, target{allNodesMAC, allNodes}, advertisement(testRouter, nil))
			return b
		}(), target{}, false},
	} {
		got, err := solicitor(test.frame)
		if got != test.want || (err == nil) != test.sound {
			t.Errorf("%s: %v, %v", test.name, got, err)
		}
	}
}

func FuzzSolicitor(f *testing.F) {
	f.Add(solicit(f, netip.MustParseAddr("fe80::67")))
	f.Add(solicit(f, netip.IPv6Unspecified()))
	f.Add([]byte(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		from, err := solicitor(b)
		if err != nil && from != (target{}) {
			t.Errorf("%v with %v", from, err)
		}
		if from.ip.IsValid() && !from.ip.IsLinkLocalUnicast() {
			t.Errorf("answers %v", from)
		}
	})
}
