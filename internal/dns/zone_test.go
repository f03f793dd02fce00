package dns

import (
	"net/netip"
	"strings"
	"testing"

	wire "github.com/miekg/dns"
)

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, t := range texts {
		all = append(all, netip.MustParseAddr(t))
	}
	return all
}

var testDesired = Desired{
	Fabric:   "apollo",
	Prefixes: []netip.Prefix{netip.MustParsePrefix("172.16.0.0/24"), netip.MustParsePrefix("172.20.4.0/22"), netip.MustParsePrefix("192.0.2.128/25"), netip.MustParsePrefix("fd00:1::/64")},
	Names: []Name{
		{"web", "blue", addrs("172.16.0.11", "fd00:1::11")},
		{"WEB", "blue", addrs("172.16.0.12", "172.16.0.11")},
		{"only6", "blue", addrs("fd00:1::6")},
		{"db", "red", addrs("172.20.5.1")},
		{"part", "red", addrs("192.0.2.130")},
		{"not.one.label", "blue", addrs("172.16.0.66")},
		{"-bad", "blue", addrs("172.16.0.67")},
		{"", "blue", addrs("172.16.0.68")},
		{"under_score", "blue", addrs("172.16.0.69")},
	},
}

// brief is what was found, in one line.
func brief(f found) string {
	text := wire.RcodeToString[f.rcode]
	for _, rr := range f.answer {
		parts := strings.Fields(rr.String())
		text += " " + parts[3] + ":" + strings.Join(parts[4:], ",")
	}
	for _, rr := range f.authority {
		text += " of " + rr.Header().Name
	}
	return text
}

func TestLookup(t *testing.T) {
	z := newZone(testDesired, newGuests())
	for _, test := range []struct {
		name string
		kind uint16
		want string // empty: not ours
	}{
		{"web.blue.apollo.", wire.TypeA, "NOERROR A:172.16.0.11 A:172.16.0.12"},
		{"Web.BLUE.Apollo.", wire.TypeAAAA, "NOERROR AAAA:fd00:1::11"},
		{"only6.blue.apollo.", wire.TypeA, "NOERROR of apollo."},
		{"web.blue.apollo.", wire.TypeMX, "NOERROR of apollo."},
		{"web.red.apollo.", wire.TypeA, "NXDOMAIN of apollo."},
		{"www.web.blue.apollo.", wire.TypeA, "NXDOMAIN of apollo."},
		{"blue.apollo.", wire.TypeA, "NOERROR of apollo."},
		{"green.apollo.", wire.TypeA, "NXDOMAIN of apollo."},
		{"apollo.", wire.TypeA, "NOERROR of apollo."},
		{"apollo.", wire.TypeNS, "NOERROR NS:gw."},
		{"apollo.", wire.TypeSOA, "NOERROR SOA:gw.,hostmaster.apollo.,1,3600,600,86400,5"},
		{"apollo.example.", wire.TypeA, ""},
		{"xapollo.", wire.TypeA, ""},
		{".", wire.TypeNS, ""},
		{"11.0.16.172.in-addr.arpa.", wire.TypePTR, "NOERROR PTR:web.blue.apollo."},
		{"11.0.16.172.IN-ADDR.ARPA.", wire.TypeA, "NOERROR of 0.16.172.in-addr.arpa."},
		{"99.0.16.172.in-addr.arpa.", wire.TypePTR, "NXDOMAIN of 0.16.172.in-addr.arpa."},
		{"66.0.16.172.in-addr.arpa.", wire.TypePTR, "NXDOMAIN of 0.16.172.in-addr.arpa."},
		{"1.5.20.172.in-addr.arpa.", wire.TypePTR, "NOERROR PTR:db.red.apollo."},
		{"2.7.20.172.in-addr.arpa.", wire.TypePTR, "NXDOMAIN of 7.20.172.in-addr.arpa."},
		{"130.2.0.192.in-addr.arpa.", wire.TypePTR, "NOERROR PTR:part.red.apollo."},
		{"131.2.0.192.in-addr.arpa.", wire.TypePTR, "NXDOMAIN of 2.0.192.in-addr.arpa."},
		{"1.2.0.192.in-addr.arpa.", wire.TypePTR, ""},
		{"0.16.172.in-addr.arpa.", wire.TypePTR, ""},
		{"1.1.1.1.1.in-addr.arpa.", wire.TypePTR, ""},
		{"x.0.16.172.in-addr.arpa.", wire.TypePTR, ""},
		{"1.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.", wire.TypePTR, "NOERROR PTR:web.blue.apollo."},
		{"2.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa.", wire.TypePTR, "NXDOMAIN of 0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa."},
		{"2.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.0.0.0.0.0.d.f.ip6.arpa.", wire.TypePTR, ""},
		{"1.0.0.0.0.0.d.f.ip6.arpa.", wire.TypePTR, ""},
	} {
		f, ours := z.lookup(wire.Question{Name: test.name, Qtype: test.kind, Qclass: wire.ClassINET}, "gw.")
		if got := brief(f); ours != (test.want != "") || ours && got != test.want {
			t.Errorf("%s %s: %q (%v), want %q", test.name, wire.TypeToString[test.kind], got, ours, test.want)
		}
	}
	if _, ours := newZone(Desired{}, newGuests()).lookup(wire.Question{Name: "a.", Qtype: wire.TypeA}, "gw."); ours {
		t.Error("without a fabric every name is its own")
	}
}

func TestReversedOfEveryAddress(t *testing.T) {
	for _, a := range addrs("0.0.0.0", "255.255.255.255", "172.16.0.1", "::", "::1", "fd00:1::11", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff") {
		name, err := wire.ReverseAddr(a.String())
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := reversed(name); !ok || got != a {
			t.Errorf("%s is read as %v, %v", name, got, ok)
		}
	}
}
