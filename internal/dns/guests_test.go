package dns

import (
	"net/netip"
	"testing"
	"time"

	wire "github.com/miekg/dns"
)

// called is a guest, named by the address that it has had since a minute.
func called(name, segment, owner, address string, minute int64) Guest {
	return Guest{
		Name: name, Segment: segment, Owner: owner,
		Address: netip.MustParseAddr(address), Since: time.Unix(60*minute, 0),
	}
}

func TestWhatGuestsCallThemselves(t *testing.T) {
	g := newGuests()
	z := newZone(testDesired, g)
	want := func(when string, answers map[string]string) {
		t.Helper()
		for name, want := range answers {
			kind := wire.TypeA
			switch {
			case len(name) > 5 && name[len(name)-5:] == "arpa.":
				kind = wire.TypePTR
			case name[0] == '6':
				name, kind = name[1:], wire.TypeAAAA
			}
			f, _ := z.lookup(wire.Question{Name: name, Qtype: kind, Qclass: wire.ClassINET}, "gw.")
			if got := brief(f); got != want {
				t.Errorf("%s: %s %s is %q, want %q", when, name, wire.TypeToString[kind], got, want)
			}
		}
	}
	g.learn([]Guest{
		called("App", "blue", "a", "172.16.0.40", 2), called("app", "blue", "a", "fd00:1::40", 3),
		called("app", "blue", "b", "172.16.0.41", 1), // the eldest
		called("web", "blue", "c", "172.16.0.42", 0), // the document's
		called("app", "gone", "d", "172.16.0.43", 0), // a segment without names
		called("two.labels", "blue", "e", "172.16.0.44", 0),
	})
	want("two of one name", map[string]string{
		"APP.blue.apollo.":          "NOERROR A:172.16.0.41",
		"6app.blue.apollo.":         "NOERROR of apollo.",
		"41.0.16.172.in-addr.arpa.": "NOERROR PTR:app.blue.apollo.",
		"40.0.16.172.in-addr.arpa.": "NXDOMAIN of 0.16.172.in-addr.arpa.",
		"web.blue.apollo.":          "NOERROR A:172.16.0.11 A:172.16.0.12",
		"42.0.16.172.in-addr.arpa.": "NXDOMAIN of 0.16.172.in-addr.arpa.",
		"app.gone.apollo.":          "NXDOMAIN of apollo.",
		"43.0.16.172.in-addr.arpa.": "NXDOMAIN of 0.16.172.in-addr.arpa.",
		"two.labels.blue.apollo.":   "NXDOMAIN of apollo.",
		"x.app.blue.apollo.":        "NXDOMAIN of apollo.",
	})
	g.learn([]Guest{called("other", "blue", "b", "172.16.0.41", 1)})
	want("the eldest has another name", map[string]string{
		"app.blue.apollo.":          "NOERROR A:172.16.0.40",
		"6app.blue.apollo.":         "NOERROR AAAA:fd00:1::40",
		"other.blue.apollo.":        "NOERROR A:172.16.0.41",
		"40.0.16.172.in-addr.arpa.": "NOERROR PTR:app.blue.apollo.",
	})
	g.learn([]Guest{called("", "blue", "a", "172.16.0.40", 2), called("", "blue", "a", "fd00:1::40", 2), called("", "blue", "x", "172.16.0.99", 2)})
	want("gone", map[string]string{"app.blue.apollo.": "NXDOMAIN of apollo."})
	g.learn([]Guest{called("", "", "", "172.16.0.41", 0), called("", "", "", "172.16.0.42", 0), called("", "", "", "172.16.0.43", 0)})
	if len(g.of)+len(g.named) > 0 {
		t.Errorf("left are %v and %v", g.of, g.named)
	}
}

func TestOneNameOfManyAddresses(t *testing.T) {
	g := newGuests()
	for i := range 3 * maxShared {
		g.learn([]Guest{{Name: "many", Segment: "blue", Owner: "a", Address: netip.AddrFrom4([4]byte{172, 16, 1, byte(i)})}})
	}
	if n := len(g.addresses("many.blue", nil)); n != maxShared {
		t.Errorf("answered with %d addresses", n)
	}
}

// TestWhatHypervisorsCallGuests has instances of a hypervisor, one without an
// address, beside guests that call themselves the same, and longer.
func TestWhatHypervisorsCallGuests(t *testing.T) {
	g := newGuests()
	g.learn([]Guest{
		called("app", "blue", "thief", "172.16.0.40", 1),
		called("idle", "blue", "thief", "172.16.0.41", 1),
		called("idle", "blue", "i2", "172.16.0.42", 5), // leased before it ended
		called("other", "blue", "i1", "172.16.0.43", 5),
		called("free", "blue", "x", "172.16.0.44", 5),
	})
	d := testDesired
	d.Instances = []Instance{
		{"App", "blue", "i1", addrs("172.16.0.43", "fd00:1::43")},
		{"app", "blue", "i1b", addrs("172.16.0.45", "172.16.0.43")}, // its second interface
		{"idle", "blue", "i2", nil},
		{"web", "blue", "i3", addrs("172.16.0.46")}, // the document's
		{"two.labels", "blue", "i4", addrs("172.16.0.47")},
		{"app", "gone", "i5", addrs("172.16.0.48")},
	}
	z := newZone(d, g)
	for _, test := range []struct {
		name string
		kind uint16
		want string
	}{
		{"app.blue.apollo.", wire.TypeA, "NOERROR A:172.16.0.43 A:172.16.0.45"},
		{"APP.blue.apollo.", wire.TypeAAAA, "NOERROR AAAA:fd00:1::43"},
		{"43.0.16.172.in-addr.arpa.", wire.TypePTR, "NOERROR PTR:app.blue.apollo."},
		{"40.0.16.172.in-addr.arpa.", wire.TypePTR, "NXDOMAIN of 0.16.172.in-addr.arpa."},
		{"idle.blue.apollo.", wire.TypeA, "NOERROR A:172.16.0.42"},
		{"42.0.16.172.in-addr.arpa.", wire.TypePTR, "NOERROR PTR:idle.blue.apollo."},
		{"41.0.16.172.in-addr.arpa.", wire.TypePTR, "NXDOMAIN of 0.16.172.in-addr.arpa."},
		{"other.blue.apollo.", wire.TypeA, "NOERROR A:172.16.0.43"}, // what it calls itself besides
		{"free.blue.apollo.", wire.TypeA, "NOERROR A:172.16.0.44"},
		{"web.blue.apollo.", wire.TypeA, "NOERROR A:172.16.0.11 A:172.16.0.12"},
		{"46.0.16.172.in-addr.arpa.", wire.TypePTR, "NXDOMAIN of 0.16.172.in-addr.arpa."},
		{"47.0.16.172.in-addr.arpa.", wire.TypePTR, "NXDOMAIN of 0.16.172.in-addr.arpa."},
		{"app.gone.apollo.", wire.TypeA, "NXDOMAIN of apollo."},
		{"48.0.16.172.in-addr.arpa.", wire.TypePTR, "NXDOMAIN of 0.16.172.in-addr.arpa."},
	} {
		f, _ := z.lookup(wire.Question{Name: test.name, Qtype: test.kind, Qclass: wire.ClassINET}, "gw.")
		if got := brief(f); got != test.want {
			t.Errorf("%s %s is %q, want %q", test.name, wire.TypeToString[test.kind], got, test.want)
		}
	}
}
