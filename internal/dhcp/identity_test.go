package dhcp

import (
	"net/netip"
	"testing"
	"time"

	"frond/internal/dataplane"
	"frond/internal/kv"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
)

// sayAs has a message come from a MAC, whatever it says its client's is, and
// returns the answer to it, nil if none.
func (b *bench) sayAs(source int, kind dhcpv4.MessageType, chaddr int, options ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	b.t.Helper()
	m := message(b.t, kind, guestMAC(chaddr), options...)
	b.a.heard(b.port, clientFrame(guestMAC(source), m.ToBytes()), b.now)
	for _, r := range b.settle() {
		if r.TransactionID == m.TransactionID {
			return r
		}
	}
	return nil
}

func identifier(octets string) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte(octets)))
}

// TestInAnothersName has a guest, 2, speak in the names of others that are
// behind another port.
func TestInAnothersName(t *testing.T) {
	const serial = "\xffserial"
	s := blue("172.16.0.11", "172.16.0.254")
	s.Reservations = []Reservation{{Client: ClientOf(guestMAC(9)), Address: ip("172.16.0.9")}}
	for name, client := range map[string]struct {
		id     []dhcpv4.Modifier // of the client that has a lease
		chaddr int               // that the other says to have
	}{
		"by its identifier":           {[]dhcpv4.Modifier{identifier(serial)}, 2},
		"by its identifier and MAC":   {[]dhcpv4.Modifier{identifier(serial)}, 1},
		"by its MAC":                  {nil, 1},
		"by its MAC as an identifier": {[]dhcpv4.Modifier{identifier(string(ClientOf(guestMAC(1))))}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, kv.NewRecords(), "n1", s)
			theirs := b.lease(1, client.id...)
			before := b.record(theirs)
			b.port.Port = "g2"
			asks := func(kind dhcpv4.MessageType, options ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
				return b.sayAs(2, kind, client.chaddr, append(options, client.id...)...)
			}
			asks(dhcpv4.MessageTypeRelease, having(theirs))
			asks(dhcpv4.MessageTypeDecline, wanting(theirs))
			if offer := asks(dhcpv4.MessageTypeDiscover); offer != nil && addr(offer.YourIPAddr) == theirs {
				t.Errorf("it is offered %s", theirs)
			}
			for how, options := range map[string][]dhcpv4.Modifier{
				"renews": {having(theirs)}, "returns to": {wanting(theirs)}, "chooses": {wanting(theirs), server(s)},
			} {
				if got := asks(dhcpv4.MessageTypeRequest, options...); kindOf(got) == dhcpv4.MessageTypeAck {
					t.Errorf("it %s what is another's: %v", how, got)
				}
			}
			if got := b.record(theirs); got != before {
				t.Errorf("the lease was %+v and is %+v", before, got)
			}
			b.port.Port = "g7" // it has moved
			if got := b.say(dhcpv4.MessageTypeRequest, 1, append(client.id, having(theirs))...); kindOf(got) != dhcpv4.MessageTypeAck {
				t.Errorf("the client itself is answered with %v", got)
			}
		})
	}
	b := newBench(t, kv.NewRecords(), "n1", s)
	if got := b.sayAs(2, dhcpv4.MessageTypeDiscover, 9); got != nil || b.a.counts.Posed != 1 {
		t.Errorf("who says to have the MAC that an address is reserved for is answered with %v", got)
	}
	if got := b.lease(2, identifier(string(ClientOf(guestMAC(9))))); got == ip("172.16.0.9") {
		t.Errorf("who says to be the MAC that %s is reserved for gets it", got)
	}
	if got := b.lease(9); got != ip("172.16.0.9") {
		t.Errorf("whom it is reserved for gets %s", got)
	}
}

// TestInTheNameOfWhoIsBeingServed has a guest use an identifier before the
// client has its lease by it.
func TestInTheNameOfWhoIsBeingServed(t *testing.T) {
	b := newBench(t, kv.NewRecords(), "n1", blue("172.16.0.11", "172.16.0.254"))
	id := identifier("\xffserial")
	first, second := message(t, dhcpv4.MessageTypeDiscover, guestMAC(1), id), message(t, dhcpv4.MessageTypeDiscover, guestMAC(2), id)
	b.a.heard(b.port, clientFrame(guestMAC(1), first.ToBytes()), b.now)
	b.port.Port = "g2"
	b.a.heard(b.port, clientFrame(guestMAC(2), second.ToBytes()), b.now)
	offers := make(map[dhcpv4.TransactionID]string)
	for _, m := range b.settle() {
		offers[m.TransactionID] = m.YourIPAddr.String()
	}
	if one, two := offers[first.TransactionID], offers[second.TransactionID]; one == "" || two == "" || one == two {
		t.Errorf("offered are %q", offers)
	}
}

// TestClones has two guests with one identifier have a lease each, and go on
// with it when the other is gone.
func TestClones(t *testing.T) {
	s := blue("172.16.0.11", "172.16.0.254")
	b := newBench(t, kv.NewRecords(), "n1", s)
	id := identifier("\xffserial")
	one := b.lease(1, id)
	b.port.Port = "g2"
	other := b.lease(2, id)
	if one == other {
		t.Fatalf("both have %s", one)
	}
	if again := b.lease(2, id); again != other {
		t.Errorf("the second one has %s, then %s", other, again)
	}
	for range 20 {
		b.now += s.Lease / 2
		if got := b.say(dhcpv4.MessageTypeRequest, 2, id, having(other)); kindOf(got) != dhcpv4.MessageTypeAck {
			t.Fatalf("%s after the other was heard last, the renewal is answered with %v", b.now, got)
		}
	}
	b.say(dhcpv4.MessageTypeRelease, 2, id, having(other))
	if got := b.record(other); got.Kind != "" {
		t.Errorf("what it has released is %+v", got)
	}
}

// TestAnotherMACBehindThePort has a guest keep its lease when its network
// device is replaced, and tell nobody of a MAC that it only speaks of.
func TestAnotherMACBehindThePort(t *testing.T) {
	b := newBench(t, kv.NewRecords(), "n1", blue("172.16.0.11", "172.16.0.254"))
	id := identifier("\xffserial")
	first := b.lease(1, id)
	if got := b.lease(2, id); got != first {
		t.Errorf("with another MAC it gets %s, not %s", got, first)
	}
	b.bound = nil
	offer := b.sayAs(2, dhcpv4.MessageTypeDiscover, 3)
	if offer == nil {
		t.Fatal("who asks for a MAC that nobody else has is offered nothing")
	}
	ack := b.sayAs(2, dhcpv4.MessageTypeRequest, 3, server(b.a.byPrefix[0].Segment), wanting(addr(offer.YourIPAddr)))
	if kindOf(ack) != dhcpv4.MessageTypeAck || len(b.bound) != 0 {
		t.Errorf("answered with %v, and told of %v", ack, b.bound)
	}
}

// TestInAnothersName6 is the same by DHCPv6.
func TestInAnothersName6(t *testing.T) {
	s := blue6("fd00:16::1:0", "fd00:16::1:ff")
	b := newBench(t, kv.NewRecords(), "n1", s)
	theirs := b.lease6(1)
	before := b.record(theirs)
	port := b.port
	b.port.Port = "g2"
	asks := func(source int, kind dhcpv6.MessageType, options ...dhcpv6.Modifier) *dhcpv6.Message {
		m := message6Of(t, kind, 1, options...)
		b.replies6 = nil
		b.a.heard(b.port, clientFrame6(guestMAC(source), m.ToBytes()), b.now)
		b.settle()
		for _, r := range b.replies6 {
			if r.TransactionID == m.TransactionID {
				return r
			}
		}
		return nil
	}
	asks(2, dhcpv6.MessageTypeRelease, identity(1, theirs), to(s))
	asks(2, dhcpv6.MessageTypeDecline, identity(1, theirs), to(s))
	for kind, options := range map[dhcpv6.MessageType][]dhcpv6.Modifier{
		dhcpv6.MessageTypeSolicit: {identity(1), rapid6}, dhcpv6.MessageTypeRequest: {identity(1, theirs), to(s)},
		dhcpv6.MessageTypeRenew: {identity(1, theirs), to(s)}, dhcpv6.MessageTypeRebind: {identity(1, theirs)},
	} {
		got := asks(2, kind, options...)
		if got == nil {
			continue
		}
		for _, a := range got.Options.OneIANA().Options.Addresses() {
			if address6(a.IPv6Addr) == theirs && a.ValidLifetime > 0 {
				t.Errorf("%s gets what is another's: %s", kind, told6(got))
			}
		}
	}
	if got := b.record(theirs); got != before {
		t.Errorf("the lease was %+v and is %+v", before, got)
	}
	if got := b.lease6(2); got == theirs {
		t.Errorf("it gets %s", got)
	}
	b.port = dataplane.LocalPort{VNI: port.VNI, Port: "g7"}
	b.now += time.Minute
	if got := asks(1, dhcpv6.MessageTypeRenew, identity(1, theirs), to(s)); got == nil || len(got.Options.OneIANA().Options.Addresses()) != 1 {
		t.Errorf("the client itself is answered with %s", told6(got))
	}
}

// FuzzImpostor has a guest say anything: leases of one behind another port, by
// DHCPv4 and DHCPv6, stay as they are.
func FuzzImpostor(f *testing.F) {
	const victim, impostor = 1, 2
	four, six := blue("172.16.0.11", "172.16.0.20"), blue6("fd00:16::1:0", "fd00:16::1:f")
	id := identifier("\xffserial")
	start := func(t *testing.T) (b *bench, leases map[netip.Addr]lease) {
		b = newBench(t, kv.NewRecords(), "n1", four)
		b.a.setSegments([]Segment{four, six}, b.now)
		leases = make(map[netip.Addr]lease)
		for _, address := range []netip.Addr{b.lease(victim, id), b.lease6(victim)} {
			leases[address] = b.record(address)
		}
		b.port.Port = "g2"
		return b, leases
	}
	_, known := start(&testing.T{})
	for address := range known {
		for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeRelease, dhcpv4.MessageTypeDecline} {
			if address.Is4() {
				m := message(f, kind, guestMAC(impostor), id, wanting(address), having(address))
				f.Add(clientFrame(guestMAC(impostor), m.ToBytes()))
			}
		}
		for _, kind := range []dhcpv6.MessageType{dhcpv6.MessageTypeSolicit, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline} {
			if address.Is6() {
				m := message6Of(f, kind, victim, identity(1, address), to(six))
				f.Add(clientFrame6(guestMAC(impostor), m.ToBytes()))
			}
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) >= 12 && dataplane.MAC(frame[6:12]) == guestMAC(victim) {
			return // it has moved there
		}
		b, leases := start(t)
		for range 2 {
			b.a.heard(b.port, frame, b.now)
			b.a.tick(b.now + time.Second)
			if c, ok := b.a.commit(b.now); ok {
				b.a.answered(c, b.store.Commit(c.txn), nil, b.now)
			}
			b.now += time.Second
		}
		for address, before := range leases {
			if got := b.record(address); got != before {
				t.Errorf("the lease was %+v and is %+v", before, got)
			}
		}
		for _, bound := range b.a.take().bound {
			if _, theirs := leases[bound.IP]; theirs {
				t.Errorf("%s is told to be at %s", bound.IP, bound.MAC)
			}
		}
	})
}
