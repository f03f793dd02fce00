package dhcp

import (
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"frond/internal/kv"
)

func calling(name string) dhcpv4.Modifier { return dhcpv4.WithOption(dhcpv4.OptHostName(name)) }

func TestNamesFollowLeases(t *testing.T) {
	store := kv.NewRecords()
	s := blue("172.16.0.11", "172.16.0.12")
	one, two := newBench(t, store, "n1", s), newBench(t, store, "n2", s)
	want := func(when string, a netip.Addr, name string) {
		t.Helper()
		for _, b := range []*bench{one, two} {
			b.settle()
			if got := b.named[a]; got.Name != name || name != "" && (got.Segment != "blue" || got.MAC != guestMAC(1)) {
				t.Errorf("%s: %s says %+v, want %q", when, b.a.node, got, name)
			}
		}
	}
	offer := one.say(dhcpv4.MessageTypeDiscover, 1, calling("web.example.org"))
	a := addr(offer.YourIPAddr)
	want("offered", a, "")
	one.lease(1, calling("web.example.org"))
	want("leased", a, "web")

	clear(one.named)
	one.now += s.Lease / 2
	one.say(dhcpv4.MessageTypeRequest, 1, having(a))
	one.settle()
	if len(one.named) > 0 {
		t.Errorf("told again with each renewal: %v", one.named)
	}
	one.now += s.Lease / 2
	asked := one.a.wall()
	one.say(dhcpv4.MessageTypeRequest, 1, having(a), calling("db"))
	two.now = one.now
	want("renamed", a, "db")

	if got := one.named[a].Since; got.Before(asked) {
		t.Errorf("it has its new name since %s, want %s: another may have had it for longer", got, asked)
	}

	renamed := s
	renamed.Name = "green"
	one.a.setSegments([]Segment{renamed}, one.now)
	one.settle()
	if got := one.named[a]; got.Segment != "green" {
		t.Errorf("of a segment with another name, %+v", got)
	}
	one.a.setSegments([]Segment{s}, one.now)

	one.now += s.hold() + s.Lease
	two.now = one.now
	want("ended", a, "")
	one.lease(1, calling("db"))
	want("leased again", a, "db")
	one.say(dhcpv4.MessageTypeRelease, 1, having(a))
	two.now = one.now
	want("released", a, "")
}

func TestWhatAClientCallsItself(t *testing.T) {
	for _, test := range []struct {
		option []byte // 81
		want   string
	}{
		{nil, ""},
		{[]byte{0, 0, 0}, ""},
		{[]byte("\x00\x00\x00web.example"), "web.example"},
		{[]byte("\x04\x00\x00\x03web\x07example\x00"), "web"},
		{[]byte("\x04\x00\x00\x09web"), ""},
		{[]byte{4, 0, 0, 0}, ""},
	} {
		m := message(t, dhcpv4.MessageTypeDiscover, guestMAC(1), dhcpv4.WithGeneric(dhcpv4.OptionFQDN, test.option))
		if got := hostname(m); got != test.want {
			t.Errorf("%q is read as %q, want %q", test.option, got, test.want)
		}
		dhcpv4.WithOption(dhcpv4.OptHostName("db"))(m)
		if got := hostname(m); got != "db" {
			t.Errorf("with option 12 too, %q", got)
		}
	}
}
