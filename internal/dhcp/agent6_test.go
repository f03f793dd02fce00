package dhcp

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"frond/internal/dataplane"
	"frond/internal/kv"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

// blue6 is a segment whose guests are given IPv6 addresses.
func blue6(first, last string) Segment {
	return Segment{
		Name: "blue", VNI: 100, Prefix: netip.MustParsePrefix("fd00:16::/64"),
		Server: ip("fe80::68:ff:fe00:64"), Router: ip("fd00:16::1"), MAC: dataplane.MAC{2, 0x68, 0, 0, 0, 100},
		Ranges: []Range{{ip(first), ip(last)}}, Lease: 10 * time.Minute, Grace: time.Hour,
		DNS: []netip.Addr{ip("172.16.0.1"), ip("fd00:16::1")}, Search: []string{"blue.apollo"}, NTP: []netip.Addr{ip("192.0.2.1"), ip("2001:db8::123")},
	}
}

func duidOf(guest int) dhcpv6.DUID {
	mac := guestMAC(guest)
	return &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr(mac[:])}
}

// identity is an IA_NA with addresses.
func identity(id byte, addresses ...netip.Addr) dhcpv6.Modifier {
	return func(m dhcpv6.DHCPv6) {
		ia := &dhcpv6.OptIANA{IaId: [4]byte{3: id}}
		for _, a := range addresses {
			ia.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: a.AsSlice()})
		}
		m.AddOption(ia)
	}
}

// to names the server.
func to(s Segment) dhcpv6.Modifier {
	return dhcpv6.WithServerID(serverDUID(&segment{Segment: s}))
}

var rapid6 = dhcpv6.WithOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit})

// message6Of is a client's message.
func message6Of(t testing.TB, kind dhcpv6.MessageType, guest int, options ...dhcpv6.Modifier) *dhcpv6.Message {
	t.Helper()
	m, err := dhcpv6.NewMessage(append([]dhcpv6.Modifier{dhcpv6.WithClientID(duidOf(guest))}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	m.MessageType = kind
	return m
}

// clientFrame6 is a frame from a client.
func clientFrame6(mac dataplane.MAC, payload []byte) []byte {
	frame := buildFrame6(mac, dataplane.MAC{0x33, 0x33, 0, 1, 0, 2}, mac.LinkLocal().Addr(), allServers, payload)
	udp := frame[sizeEthernet+sizeIPv6:]
	udp[0], udp[1], udp[2], udp[3] = udp[2], udp[3], udp[0], udp[1]
	return frame
}

func replyIn6(t testing.TB, s Sending) *dhcpv6.Message {
	t.Helper()
	m, err := dhcpv6.MessageFromBytes(s.Frame[sizeEthernet+sizeIPv6+sizeUDP:])
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// say6 has a client send a message, and returns the answer to it, nil if none.
func (b *bench) say6(kind dhcpv6.MessageType, guest int, options ...dhcpv6.Modifier) *dhcpv6.Message {
	b.t.Helper()
	m := message6Of(b.t, kind, guest, options...)
	b.replies6 = nil
	b.a.heard(b.port, clientFrame6(guestMAC(guest), m.ToBytes()), b.now)
	b.settle()
	var found *dhcpv6.Message
	for _, r := range b.replies6 {
		if r.TransactionID != m.TransactionID {
			continue
		}
		if found != nil {
			b.t.Errorf("%s is answered twice", kind)
		}
		found = r
	}
	return found
}

// told6 is an answer in one line.
func told6(m *dhcpv6.Message) string {
	if m == nil {
		return "nothing"
	}
	words := []string{m.MessageType.String()}
	if m.Options.GetOne(dhcpv6.OptionRapidCommit) != nil {
		words = append(words, "rapid")
	}
	if status := m.Options.Status(); status != nil {
		words = append(words, status.StatusCode.String())
	}
	for _, ia := range m.Options.IANA() {
		text := fmt.Sprintf("%d:", ia.IaId[3])
		for _, a := range ia.Options.Addresses() {
			text += fmt.Sprintf("%s/%s/%s", a.IPv6Addr, a.PreferredLifetime, a.ValidLifetime)
		}
		if status := ia.Options.Status(); status != nil {
			text += status.StatusCode.String()
		}
		words = append(words, text)
	}
	for _, ia := range m.Options.IATA() {
		words = append(words, "temporary:"+ia.Options.Status().StatusCode.String())
	}
	for _, ia := range m.Options.IAPD() {
		words = append(words, "prefix:"+ia.Options.Status().StatusCode.String())
	}
	return strings.Join(words, " ")
}

func (b *bench) want6(when string, m *dhcpv6.Message, want string) {
	b.t.Helper()
	if got := told6(m); got != want {
		b.t.Errorf("%s: answered with %q, want %q", when, got, want)
	}
}

// lease6 gets a client an address the long way.
func (b *bench) lease6(guest int, options ...dhcpv6.Modifier) netip.Addr {
	b.t.Helper()
	offer := b.say6(dhcpv6.MessageTypeSolicit, guest, append(options, identity(1))...)
	if offer == nil || offer.Options.OneIANA() == nil || offer.Options.OneIANA().Options.OneAddress() == nil {
		b.t.Fatalf("guest %d is offered %s", guest, told6(offer))
	}
	a := address6(offer.Options.OneIANA().Options.OneAddress().IPv6Addr)
	s := b.a.segments[link{b.port.VNI, true}].Segment
	b.want6("asked for the offer", b.say6(dhcpv6.MessageTypeRequest, guest, append(options, identity(1, a), to(s))...), "REPLY 1:"+a.String()+"/10m0s/10m0s")
	return a
}

func TestLeaseOfIPv6(t *testing.T) {
	store := kv.NewRecords()
	s := blue6("fd00:16::1:0", "fd00:16::1:ff")
	b := newBench(t, store, "n1", s)
	fqdn := dhcpv6.WithOption(&dhcpv6.OptFQDN{DomainName: &rfc1035label.Labels{Labels: []string{"web.example.org"}}})
	a := b.lease6(1, fqdn)
	if !s.Prefix.Contains(a) || a.Less(ip("fd00:16::1:0")) || ip("fd00:16::1:ff").Less(a) {
		t.Errorf("given is %s", a)
	}
	if want := (dataplane.LocalAddress{VNI: 100, MAC: guestMAC(1), IP: a, Port: "g1"}); !slices.Contains(b.bound, want) {
		t.Errorf("the fabric is told of %v, want %v", b.bound, want)
	}
	if got := b.named[a]; got.Name != "web" || got.MAC != guestMAC(1) {
		t.Errorf("its name is %+v", got)
	}
	l := b.record(a)
	if l.Kind != leased || l.MAC != guestMAC(1) || l.Hold != s.hold() || l.Client != Client(duidOf(1).ToBytes())+"\x00\x00\x00\x01" {
		t.Errorf("written is %+v", l)
	}
	if len(b.probes) > 0 {
		t.Errorf("probed by ARP are %v", b.probes)
	}
	if list := b.a.leases("blue", b.now); len(list) != 1 || list[0].Address != a || list[0].State != "leased" {
		t.Errorf("the leases are %+v", list)
	}
	usual := "REPLY 1:" + a.String() + "/10m0s/10m0s"
	b.now += s.Lease / 2
	b.want6("renewed", b.say6(dhcpv6.MessageTypeRenew, 1, identity(1, a), to(s)), usual)
	b.want6("rebound", b.say6(dhcpv6.MessageTypeRebind, 1, identity(1, a)), usual)
	b.want6("asked again", b.say6(dhcpv6.MessageTypeSolicit, 1, identity(1)), "ADVERTISE 1:"+a.String()+"/10m0s/10m0s")
	b.want6("in one step", b.say6(dhcpv6.MessageTypeSolicit, 1, identity(1), rapid6), "REPLY rapid 1:"+a.String()+"/10m0s/10m0s")
	b.want6("another interface of the machine", b.say6(dhcpv6.MessageTypeRenew, 1, identity(2, a), to(s)), "REPLY 2:NoBinding")
	b.want6("somebody else", b.say6(dhcpv6.MessageTypeRenew, 2, identity(1, a), to(s)), "REPLY 1:NoBinding")
	b.want6("here", b.say6(dhcpv6.MessageTypeConfirm, 1, identity(1, a)), "REPLY Success")
	b.want6("elsewhere", b.say6(dhcpv6.MessageTypeConfirm, 1, identity(1, ip("fd00:17::1"))), "REPLY NotOnLink")
	b.want6("nowhere", b.say6(dhcpv6.MessageTypeConfirm, 1, identity(1)), "nothing")

	other := s
	other.MAC[5]++
	b.want6("another server", b.say6(dhcpv6.MessageTypeRenew, 1, identity(1, a), to(other)), "nothing")
	b.want6("of another segment", b.say6(dhcpv6.MessageTypeRequest, 3, identity(1, ip("fd00:17::1")), to(s)), "REPLY 1:NotOnLink")
	b.want6("still of another segment", b.say6(dhcpv6.MessageTypeRenew, 3, identity(1, ip("fd00:17::1")), to(s)), "REPLY 1:fd00:17::1/0s/0s")

	b.away = true
	b.want6("without the store", b.say6(dhcpv6.MessageTypeRenew, 1, identity(1, a), to(s)), usual)
	b.away = false
	b.settle()

	two := newBench(t, store, "n2", s)
	two.want6("of a guest that has moved", two.say6(dhcpv6.MessageTypeRenew, 1, identity(1, a), to(s)), usual)
	two.want6("released", two.say6(dhcpv6.MessageTypeRelease, 1, identity(1, a), to(s)), "REPLY Success")
	two.settle()
	if l := two.record(a); l.Kind != released {
		t.Errorf("n1 may have promised it, but it is %+v", l)
	}
}

func TestIPv6AddressThatSomebodyHas(t *testing.T) {
	s := blue6("fd00:16::1:0", "fd00:16::1:1")
	b := newBench(t, kv.NewRecords(), "n1", s)
	a := b.lease6(1)
	b.at("g2") // each port has half of the two
	other := b.say6(dhcpv6.MessageTypeRequest, 2, identity(1, a), to(s))
	free := ip("fd00:16::1:0")
	if a == free {
		free = ip("fd00:16::1:1")
	}
	b.want6("another's address", other, "REPLY 1:"+free.String()+"/10m0s/10m0s")
	b.want6("full", b.say6(dhcpv6.MessageTypeSolicit, 3, identity(1)), "ADVERTISE 1:NoAddrsAvail")
	b.want6("full, in one step", b.say6(dhcpv6.MessageTypeRequest, 3, identity(1), to(s)), "REPLY 1:NoAddrsAvail")
	if b.a.counts.Exhausted != 2 {
		t.Errorf("counted are %+v", b.a.counts)
	}
	report := b.a.report(b.now)
	if len(report.Conditions) != 1 || report.Conditions[0].Subject != "blue (IPv6)" {
		t.Errorf("reported is %+v", report)
	}
	b.at("g1")
	b.want6("declined", b.say6(dhcpv6.MessageTypeDecline, 1, identity(1, a), to(s)), "REPLY Success")
	b.settle()
	if l := b.record(a); l.Kind != declined {
		t.Errorf("written is %+v", l)
	}

	elsewhere := newBench(t, kv.NewRecords(), "n1", s)
	elsewhere.a.observe(map[dataplane.NeighborKey]dataplane.MAC{{VNI: 100, IP: a}: guestMAC(9)})
	if got := elsewhere.lease6(1); got != free {
		t.Errorf("%s is given, which a guest of another node has", got)
	}
}

func TestReservationOfIPv6(t *testing.T) {
	s := blue6("fd00:16::1:0", "fd00:16::1:ff")
	s.Reservations = []Reservation{
		{Client: ClientOf(guestMAC(1)), Address: ip("fd00:16::10")},
		{Client: Client(duidOf(2).ToBytes()), Address: ip("fd00:16::1:5")},
	}
	b := newBench(t, kv.NewRecords(), "n1", s)
	for guest, want := range map[int]netip.Addr{1: ip("fd00:16::10"), 2: ip("fd00:16::1:5")} {
		if got := b.lease6(guest); got != want {
			t.Errorf("guest %d has %s, want %s", guest, got, want)
		}
	}
	b.want6("reserved for another", b.say6(dhcpv6.MessageTypeRenew, 3, identity(1, ip("fd00:16::10")), to(s)), "REPLY 1:NoBinding")
}

func TestWhatElseGuestsAskByDHCPv6(t *testing.T) {
	wishes := dhcpv6.WithRequestedOptions(dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionDomainSearchList, dhcpv6.OptionNTPServer)
	stateless := blue6("fd00:16::1:0", "fd00:16::1:ff")
	stateless.Ranges = nil
	b := newBench(t, kv.NewRecords(), "n1", stateless)
	b.a.synced = false // needs no leases
	m := b.say6(dhcpv6.MessageTypeInformationRequest, 1, wishes)
	b.want6("information", m, "REPLY")
	if got := fmt.Sprint(m.Options.DNS(), m.Options.DomainSearchList().Labels, m.Options.NTPServers()); got != "[fd00:16::1] [blue.apollo] [2001:db8::123]" {
		t.Errorf("told is %s", got)
	}
	if !bytes.Equal(m.Options.ClientID().ToBytes(), duidOf(1).ToBytes()) || m.Options.InformationRefreshTime(0) != refreshTime {
		t.Errorf("the answer is %s", m.Summary())
	}
	if m := b.say6(dhcpv6.MessageTypeInformationRequest, 1); m.Options.DNS() != nil || m.Options.DomainSearchList() != nil || m.Options.NTPServers() != nil {
		t.Errorf("told unasked: %s", m.Summary())
	}
	b.want6("no addresses are given", b.say6(dhcpv6.MessageTypeSolicit, 1, identity(1)), "ADVERTISE 1:NoAddrsAvail")
	if len(b.a.report(b.now).Pools) > 0 {
		t.Errorf("reported is %+v", b.a.report(b.now))
	}

	b = newBench(t, kv.NewRecords(), "n1", blue6("fd00:16::1:0", "fd00:16::1:0"))
	b.a.synced = false
	b.want6("a release before the leases are known", b.say6(dhcpv6.MessageTypeRelease, 1, identity(1, ip("fd00:16::1:0")), to(blue6("fd00:16::1", "fd00:16::1"))), "nothing")
	b.want6("a solicitation before the leases are known", b.say6(dhcpv6.MessageTypeSolicit, 1, identity(1)), "nothing")
	b.a.synced = true
	prefix := dhcpv6.WithOption(&dhcpv6.OptIAPD{IaId: [4]byte{1}})
	temporary := dhcpv6.WithOption(&dhcpv6.OptIATA{IaId: [4]byte{1}})
	b.want6("more than is given", b.say6(dhcpv6.MessageTypeSolicit, 1, identity(1), identity(2), prefix, temporary),
		"ADVERTISE 1:fd00:16::1:0/10m0s/10m0s 2:NoAddrsAvail temporary:NoAddrsAvail prefix:NoPrefixAvail")
	b.want6("a prefix alone", b.say6(dhcpv6.MessageTypeSolicit, 1, prefix), "ADVERTISE prefix:NoPrefixAvail")
	for name, m := range map[string]*dhcpv6.Message{
		"a solicitation to one server":         message6Of(t, dhcpv6.MessageTypeSolicit, 1, identity(1), to(blue6("fd00:16::1", "fd00:16::1"))),
		"a request to all":                     message6Of(t, dhcpv6.MessageTypeRequest, 1, identity(1)),
		"a server's message":                   message6Of(t, dhcpv6.MessageTypeAdvertise, 1, identity(1)),
		"a question for information with more": message6Of(t, dhcpv6.MessageTypeInformationRequest, 1, identity(1)),
		"a client without identifier":          {MessageType: dhcpv6.MessageTypeSolicit},
	} {
		before := b.a.counts.Malformed
		b.a.heard(b.port, clientFrame6(guestMAC(1), m.ToBytes()), b.now)
		if b.settle(); b.a.counts.Malformed != before+1 {
			t.Errorf("%s is taken in", name)
		}
	}
}

func TestFrames6(t *testing.T) {
	payload := []byte("a payload of odd length")
	frame := clientFrame6(guestMAC(1), payload)
	d, ok := parseFrame6(append(bytes.Clone(frame), 0, 0, 0))
	if !ok || !bytes.Equal(d.payload, payload) || d.mac != guestMAC(1) || d.from != guestMAC(1).LinkLocal().Addr() {
		t.Errorf("read is %+v, %t", d, ok)
	}
	for name, spoil := range map[string]func(f []byte) []byte{
		"cut off":           func(f []byte) []byte { return f[:len(f)-1] },
		"no header":         func(f []byte) []byte { return f[:30] },
		"IPv4":              func(f []byte) []byte { f[12] = 8; return f },
		"version":           func(f []byte) []byte { f[14] = 0x45; return f },
		"TCP":               func(f []byte) []byte { f[20] = 6; return f },
		"routed":            func(f []byte) []byte { f[22] = 0x20; return f },
		"to one server":     func(f []byte) []byte { f[38] = 0xfe; return f },
		"from many":         func(f []byte) []byte { f[6] = 1; return f },
		"another port":      func(f []byte) []byte { f[57] = 1; return f },
		"datagram too long": func(f []byte) []byte { f[59]++; return f },
		"datagram of none":  func(f []byte) []byte { f[58], f[59] = 0, 7; return f },
		"payload of none":   func(f []byte) []byte { f[18], f[19] = 0, 7; return f },
	} {
		if got, ok := parseFrame6(spoil(bytes.Clone(frame))); ok {
			t.Errorf("%s: taken for %+v", name, got)
		}
	}
	packet := frame[sizeEthernet:]
	pseudo := sum(packet[8:40]) + protocolUDP + uint32(len(packet)-sizeIPv6)
	if got := fold(pseudo + sum(packet[sizeIPv6:])); got != 0xffff {
		t.Errorf("the datagram's sum is %#x", got)
	}
}

// FuzzHeard6 has an agent hear anything by DHCPv6: it does not crash, and what
// it says can be read.
func FuzzHeard6(f *testing.F) {
	s := blue6("fd00:16::1:0", "fd00:16::1:3")
	for _, kind := range []dhcpv6.MessageType{
		dhcpv6.MessageTypeSolicit, dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRebind,
		dhcpv6.MessageTypeConfirm, dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline, dhcpv6.MessageTypeInformationRequest,
	} {
		options := []dhcpv6.Modifier{dhcpv6.WithRequestedOptions(dhcpv6.OptionDNSRecursiveNameServer, dhcpv6.OptionNTPServer)}
		if kind != dhcpv6.MessageTypeInformationRequest {
			options = append(options, identity(1, ip("fd00:16::1:1")), rapid6, dhcpv6.WithOption(&dhcpv6.OptIAPD{}))
		}
		for _, options := range [][]dhcpv6.Modifier{options, append(options, to(s))} {
			f.Add(clientFrame6(guestMAC(1), message6Of(f, kind, 1, options...).ToBytes()))
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		b := newBench(t, kv.NewRecords(), "n1", s)
		for range 3 {
			b.a.heard(b.port, frame, b.now)
			b.settle()
			b.now += time.Second
		}
		for _, r := range b.replies6 {
			for _, ia := range r.Options.IANA() {
				if given := ia.Options.OneAddress(); given != nil && given.ValidLifetime > 0 && !s.Prefix.Contains(address6(given.IPv6Addr)) {
					t.Errorf("given is %s", given.IPv6Addr)
				}
			}
		}
	})
}
