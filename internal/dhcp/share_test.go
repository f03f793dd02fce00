package dhcp

import (
	"fmt"
	"testing"

	"frond/internal/dataplane"
	"frond/internal/kv"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
)

// limited is a segment with 12 addresses of which one port may have 4.
func limited() Segment {
	s := blue("172.16.0.11", "172.16.0.22")
	s.PortLimit = 4
	return s
}

// at has what follows come from a port.
func (b *bench) at(port string) { b.port = dataplane.LocalPort{VNI: b.port.VNI, Port: port} }

// as is an identifier of a client.
func as(n int) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte(fmt.Sprintf("client %d", n))))
}

// TestStarvation has one guest say to be thousands of clients, one after the
// other and all at once, with one MAC and with as many.
func TestStarvation(t *testing.T) {
	for name, mac := range map[string]func(n int) int{"one MAC": func(int) int { return 1 }, "many": func(n int) int { return n }} {
		for _, atOnce := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, at once %t", name, atOnce), func(t *testing.T) {
				b := newBench(t, kv.NewRecords(), "n1", limited())
				for n := range 3000 {
					m := message(t, dhcpv4.MessageTypeDiscover, guestMAC(mac(n)), as(n))
					b.a.heard(b.port, clientFrame(guestMAC(mac(n)), m.ToBytes()), b.now)
					if !atOnce && n < 100 {
						b.settle()
					}
				}
				b.settle()
				if got := b.a.book.held[place{"n1", "g1", false}]; got != 4 || b.a.counts.Crowded == 0 || b.a.counts.Exhausted > 0 {
					t.Errorf("%d addresses are held: %+v", got, b.a.counts)
				}
				conditions := b.a.report(b.now).Conditions
				if len(conditions) != 1 || conditions[0].Name != ConditionCrowded || conditions[0].Subject != "g1" {
					t.Errorf("conditions: %+v", conditions)
				}
				b.at("g2")
				for n := range 4 {
					b.lease(10_000 + n)
				}
				b.now += crowdedTime
				if got := b.a.report(b.now).Conditions; len(got) > 0 {
					t.Errorf("conditions long after: %+v", got)
				}
				b.at("g1")
				b.lease(20_000, as(20_000)) // offers end
			})
		}
	}
}

// TestStarvationByRequest has a guest ask for address after address as one that
// knows them from before.
func TestStarvationByRequest(t *testing.T) {
	b := newBench(t, kv.NewRecords(), "n1", limited())
	for n, a := 0, ip("172.16.0.11"); a.Compare(ip("172.16.0.22")) <= 0; n, a = n+1, a.Next() {
		b.say(dhcpv4.MessageTypeRequest, n, wanting(a))
	}
	if got := len(b.a.book.entries); got != 4 {
		t.Errorf("%d addresses are held", got)
	}
}

// TestStarvationByDecline has a guest decline one address after the other.
func TestStarvationByDecline(t *testing.T) {
	b := newBench(t, kv.NewRecords(), "n1", limited())
	for n := range 20 {
		if offer := b.say(dhcpv4.MessageTypeDiscover, n); offer != nil {
			b.say(dhcpv4.MessageTypeDecline, n, wanting(addr(offer.YourIPAddr)))
		}
	}
	if got := b.a.book.held[place{"n1", "g1", false}]; got != 4 || len(b.a.book.entries) != 4 {
		t.Errorf("%d addresses are held, %d known", got, len(b.a.book.entries))
	}
	b.at("g2")
	b.lease(100)
}

// TestStarvationByClaims has a guest answer for all addresses that others are
// to be given.
func TestStarvationByClaims(t *testing.T) {
	s := limited()
	b := newBench(t, kv.NewRecords(), "n1", s)
	for a := ip("172.16.0.11"); a.Compare(ip("172.16.0.22")) <= 0; a = a.Next() {
		b.answering[a] = guestMAC(666)
	}
	b.claimant = "liar"
	for n := range 4 {
		b.at(fmt.Sprintf("g%d", n))
		b.lease(n)
	}
	if got := b.a.book.held[place{"n1", "liar", false}]; got != 4 {
		t.Errorf("%d addresses are set aside on its word", got)
	}
}

// TestReservedBesidesShare has a client get what is reserved for it although
// its port has its share.
func TestReservedBesidesShare(t *testing.T) {
	s := limited()
	s.Reservations = []Reservation{{Client: ClientOf(guestMAC(9)), Address: ip("172.16.0.9")}}
	b := newBench(t, kv.NewRecords(), "n1", s)
	for n := range 4 {
		b.lease(n)
	}
	if got := b.lease(9); got != ip("172.16.0.9") {
		t.Errorf("it gets %s", got)
	}
	if got := b.say(dhcpv4.MessageTypeDiscover, 5); got != nil {
		t.Errorf("one too many is offered %s", got.YourIPAddr)
	}
	b.say(dhcpv4.MessageTypeRelease, 0, having(b.a.book.of(s, ClientOf(guestMAC(0))).address))
	b.say(dhcpv4.MessageTypeRelease, 1, having(b.a.book.of(s, ClientOf(guestMAC(1))).address))
	b.lease(5)
}

// TestStarvationOfIPv6 has one guest say to be as many clients as there are
// addresses: half are left to the others.
func TestStarvationOfIPv6(t *testing.T) {
	b := newBench(t, kv.NewRecords(), "n1", blue6("fd00:16::1:0", "fd00:16::1:f"))
	for n := range 100 {
		b.say6(dhcpv6.MessageTypeSolicit, n, identity(1), rapid6)
	}
	if got := len(b.a.book.entries); got != 8 {
		t.Errorf("%d addresses are held", got)
	}
	conditions := b.a.report(b.now).Conditions
	if len(conditions) != 1 || conditions[0].Name != ConditionCrowded || conditions[0].Subject != "g1" {
		t.Errorf("conditions: %+v", conditions)
	}
	b.at("g2")
	for n := range 8 {
		b.lease6(1000 + n)
	}
}
