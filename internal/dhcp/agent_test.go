package dhcp

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"frond/internal/dataplane"
	"frond/internal/kv"

	"github.com/google/go-cmp/cmp"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
)

// bench is one agent, its store and a clock, without any delay.
type bench struct {
	t     *testing.T
	a     *agent
	store *kv.Records
	now   time.Duration
	away  bool
	port  dataplane.LocalPort
	// answering are MACs of guests that have addresses of their own.
	answering map[netip.Addr]dataplane.MAC
	probes    []netip.Addr
	named     map[netip.Addr]Named // as it was told
	bound     []dataplane.LocalAddress
	replies6  []*dhcpv6.Message // that nobody has looked at
	claimant  string            // the port that they are behind; empty: the client's own
}

func newBench(t *testing.T, store *kv.Records, node string, s Segment) *bench {
	t.Helper()
	b := &bench{t: t, store: store, now: time.Hour, port: dataplane.LocalPort{VNI: s.VNI, Port: "g1"}, answering: map[netip.Addr]dataplane.MAC{}, named: map[netip.Addr]Named{}}
	b.a = newAgent(node, node+"-1", func() time.Time { return time.Unix(0, 0).Add(b.now) })
	b.a.setSegments([]Segment{s}, b.now)
	store.Follow(func(c kv.Change) { b.a.changed(c, b.now) })
	b.a.changed(store.Whole(), b.now)
	b.settle()
	return b
}

// settle carries everything out that is to be done, and returns the answers.
func (b *bench) settle() []*dhcpv4.DHCPv4 {
	b.t.Helper()
	var replies []*dhcpv4.DHCPv4
	for range 100 {
		b.a.tick(b.now)
		if c, ok := b.a.commit(b.now); ok {
			if len(c.txn.Then) > kv.MostOperations {
				b.t.Fatalf("a transaction of %d operations is none that etcd takes", len(c.txn.Then))
			}
			if b.away {
				b.a.answered(c, kv.Outcome{}, net.ErrClosed, b.now)
			} else {
				b.a.answered(c, b.store.Commit(c.txn), nil, b.now)
			}
		}
		out := b.a.take()
		maps.Copy(b.named, out.named)
		b.bound = append(b.bound, out.bound...)
		for _, f := range out.frames {
			if f.Frame[12] == etherIPv6>>8 {
				b.replies6 = append(b.replies6, replyIn6(b.t, f))
				continue
			}
			if f.Port.Port != "" {
				replies = append(replies, replyIn(b.t, f))
				continue
			}
			address := netip.AddrFrom4([4]byte(f.Frame[sizeEthernet+24:]))
			b.probes = append(b.probes, address)
			if mac, ok := b.answering[address]; ok {
				from := b.port
				if b.claimant != "" {
					from.Port = b.claimant
				}
				b.a.heard(from, arpAnswer(mac, address), b.now)
			}
		}
		b.now += probeTime / 10
	}
	return replies
}

func arpAnswer(mac dataplane.MAC, address netip.Addr) []byte {
	frame := arpProbe(mac, netip.AddrFrom4([4]byte{}))
	frame[sizeEthernet+7] = arpReply
	copy(frame[sizeEthernet+14:], address.AsSlice())
	return frame
}

// say has a client send a message, and returns the answer to it, nil if none.
func (b *bench) say(kind dhcpv4.MessageType, guest int, options ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	b.t.Helper()
	m := message(b.t, kind, guestMAC(guest), options...)
	b.a.heard(b.port, clientFrame(guestMAC(guest), m.ToBytes()), b.now)
	var found *dhcpv4.DHCPv4
	for _, r := range b.settle() {
		if r.TransactionID == m.TransactionID {
			if found != nil {
				b.t.Errorf("%s is answered twice", kind)
			}
			found = r
		}
	}
	return found
}

func server(s Segment) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(s.Server.AsSlice()))
}

func wanting(a netip.Addr) dhcpv4.Modifier {
	return dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(a.AsSlice()))
}

func having(a netip.Addr) dhcpv4.Modifier {
	return func(m *dhcpv4.DHCPv4) { m.ClientIPAddr = a.AsSlice() }
}

// lease gets a client an address the long way.
func (b *bench) lease(guest int, options ...dhcpv4.Modifier) netip.Addr {
	b.t.Helper()
	offer := b.say(dhcpv4.MessageTypeDiscover, guest, options...)
	if kindOf(offer) != dhcpv4.MessageTypeOffer {
		b.t.Fatalf("guest %d is offered nothing: %v", guest, offer)
	}
	a := addr(offer.YourIPAddr)
	s := b.a.segments[link{vni: b.port.VNI}].Segment
	ack := b.say(dhcpv4.MessageTypeRequest, guest, append(options, server(s), wanting(a))...)
	if kindOf(ack) != dhcpv4.MessageTypeAck || addr(ack.YourIPAddr) != a {
		b.t.Fatalf("guest %d does not get %s: %v", guest, a, ack)
	}
	return a
}

func kindOf(m *dhcpv4.DHCPv4) dhcpv4.MessageType {
	if m == nil {
		return dhcpv4.MessageTypeNone
	}
	return m.MessageType()
}

func (b *bench) record(a netip.Addr) lease {
	b.t.Helper()
	var l lease
	e := b.a.book.entries[a]
	if e != nil {
		l = e.lease
	}
	if _, stored := b.store.Get(leasesPrefix + a.String()); stored != (e != nil) {
		b.t.Errorf("%s: the node knows %v, the store %v", a, e != nil, stored)
	}
	return l
}

// TestKeptBeforeItIsOffered has an address be told of that is kept for a client
// while it is probed, and once more when it is offered again.
func TestKeptBeforeItIsOffered(t *testing.T) {
	s := blue("172.16.0.11", "172.16.0.254")
	b := newBench(t, kv.NewRecords(), "n1", s)
	discover := clientFrame(guestMAC(1), message(t, dhcpv4.MessageTypeDiscover, guestMAC(1)).ToBytes())
	b.a.heard(b.port, discover, b.now)
	if c, ok := b.a.commit(b.now); ok {
		b.a.answered(c, b.store.Commit(c.txn), nil, b.now)
	}
	out := b.a.take()
	if len(out.frames) != 1 || out.frames[0].Port.Port != "" {
		t.Fatalf("sent is %+v, want a probe by all ports", out.frames)
	}
	probed := netip.AddrFrom4([4]byte(out.frames[0].Frame[sizeEthernet+24:]))
	want := []dataplane.LocalAddress{{VNI: s.VNI, MAC: guestMAC(1), IP: probed, Port: b.port.Port}}
	if !slices.Equal(out.kept, want) || len(out.bound) > 0 {
		t.Errorf("while it is probed: kept %+v, bound %+v, want %+v kept", out.kept, out.bound, want)
	}
	if replies := b.settle(); len(replies) != 1 {
		t.Fatalf("answered with %v", replies)
	}
	b.a.heard(b.port, discover, b.now)
	if out := b.a.take(); !slices.Equal(out.kept, want) || len(out.frames) != 1 {
		t.Errorf("offered again: kept %+v, sent %d", out.kept, len(out.frames))
	}
}

func TestLeaseFromTheFirstMessageToTheLast(t *testing.T) {
	s := blue("172.16.0.11", "172.16.0.254")
	b := newBench(t, kv.NewRecords(), "n1", s)
	offer := b.say(dhcpv4.MessageTypeDiscover, 1)
	a := addr(offer.YourIPAddr)
	if diff := cmp.Diff([]netip.Addr{a}, b.probes, cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
		t.Error("probed before it is offered:", diff)
	}
	if got := b.record(a); got.Kind != offered || got.Hold != offerHold || got.Client != ClientOf(guestMAC(1)) {
		t.Errorf("after the offer: %+v", got)
	}
	ack := b.say(dhcpv4.MessageTypeRequest, 1, server(s), wanting(a))
	if kindOf(ack) != dhcpv4.MessageTypeAck || ack.IPAddressLeaseTime(0) != s.Lease || ack.IPAddressRenewalTime(0) != s.Lease/2 {
		t.Fatalf("the answer to the request is %v", ack)
	}
	if got := b.record(a); got.Kind != leased || got.Hold != s.Lease+s.Grace || got.Moved {
		t.Errorf("after the acknowledgement: %+v", got)
	}
	b.now += 5 * time.Minute
	before := b.store.Revision()
	if renewed := b.say(dhcpv4.MessageTypeRequest, 1, having(a)); kindOf(renewed) != dhcpv4.MessageTypeAck || renewed.IPAddressLeaseTime(0) != s.Lease {
		t.Errorf("the renewal is answered with %v", renewed)
	}
	if b.store.Revision() != before+1 {
		t.Errorf("a renewal is written %d times", b.store.Revision()-before)
	}
	if again := b.lease(1); again != a || len(b.probes) != 1 {
		t.Errorf("the client gets %s then, after %d probes", again, len(b.probes))
	}
	if b.say(dhcpv4.MessageTypeRelease, 1, having(a)) != nil || b.record(a).Kind != "" {
		t.Errorf("after the release: %+v", b.record(a))
	}
	if again := b.lease(1); again != a || len(b.probes) != 2 {
		t.Errorf("the client that has released %s gets %s, after %d probes", a, again, len(b.probes))
	}
	b.now += s.Lease + s.Grace
	b.settle()
	if other, ok := b.a.segments[link{vni: 100}].pool.pick("x", func(x netip.Addr) bool { return x == a }); !ok || other != a {
		t.Error("nobody else can have it when it is over")
	}
	if again := b.lease(1); again != a || len(b.probes) != 3 {
		t.Errorf("the client that comes back gets %s, after %d probes", again, len(b.probes))
	}
}

func TestAnswersToRequests(t *testing.T) {
	s := blue("172.16.0.11", "172.16.0.254")
	s.Reservations = []Reservation{{Client: ClientOf(guestMAC(9)), Address: ip("172.16.0.9"), Hostname: "nine"}}
	free := ip("172.16.0.20")
	for name, test := range map[string]struct {
		guest int
		with  []dhcpv4.Modifier
		want  dhcpv4.MessageType
	}{
		"another server's offer":         {1, []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IP{9, 9, 9, 9})), wanting(free)}, dhcpv4.MessageTypeNone},
		"nothing asked for":              {1, nil, dhcpv4.MessageTypeNone},
		"of another network":             {1, []dhcpv4.Modifier{wanting(ip("10.0.0.1"))}, dhcpv4.MessageTypeNak},
		"not offered":                    {1, []dhcpv4.Modifier{server(s), wanting(free)}, dhcpv4.MessageTypeNak},
		"somebody else's":                {1, []dhcpv4.Modifier{wanting(ip("172.16.0.200"))}, dhcpv4.MessageTypeNak},
		"somebody else's, renewed":       {1, []dhcpv4.Modifier{having(ip("172.16.0.200"))}, dhcpv4.MessageTypeNak},
		"reserved for another":           {1, []dhcpv4.Modifier{wanting(ip("172.16.0.9"))}, dhcpv4.MessageTypeNak},
		"the gateway":                    {1, []dhcpv4.Modifier{wanting(ip("172.16.0.1"))}, dhcpv4.MessageTypeNak},
		"outside of the range":           {1, []dhcpv4.Modifier{wanting(ip("172.16.5.5"))}, dhcpv4.MessageTypeNak},
		"forgotten by the store":         {1, []dhcpv4.Modifier{wanting(free)}, dhcpv4.MessageTypeAck},
		"forgotten by the store, renews": {1, []dhcpv4.Modifier{having(free)}, dhcpv4.MessageTypeAck},
		"its reservation":                {9, []dhcpv4.Modifier{wanting(ip("172.16.0.9"))}, dhcpv4.MessageTypeAck},
		"not its reservation":            {9, []dhcpv4.Modifier{wanting(ip("172.16.0.99"))}, dhcpv4.MessageTypeAck},
	} {
		b := newBench(t, kv.NewRecords(), "n1", s)
		b.store.Commit(kv.Txn{Then: []kv.Operation{kv.Put(leasesPrefix+"172.16.0.200", lease{Client: "other", Kind: leased, Hold: time.Hour}.encode())}})
		got := b.say(dhcpv4.MessageTypeRequest, test.guest, test.with...)
		if kindOf(got) != test.want {
			t.Errorf("%s: answered with %v, want %v", name, got, test.want)
		}
	}
}

func TestReservation(t *testing.T) {
	s := blue("172.16.0.11", "172.16.0.254")
	b := newBench(t, kv.NewRecords(), "n1", s)
	before := b.lease(9)
	s.Reservations = []Reservation{
		{Client: ClientOf(guestMAC(9)), Address: ip("172.16.0.9"), Hostname: "nine"},
		{Client: "\xffserial", Address: ip("172.16.0.30")},
	}
	b.a.setSegments([]Segment{s}, b.now)
	if got := b.say(dhcpv4.MessageTypeRequest, 9, having(before)); kindOf(got) != dhcpv4.MessageTypeNak {
		t.Errorf("a client that should move is answered with %v", got)
	}
	if got := b.lease(9); got != ip("172.16.0.9") {
		t.Errorf("the client gets %s instead of its reservation", got)
	}
	id := dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte("\xffserial")))
	if got := b.lease(3, id); got != ip("172.16.0.30") {
		t.Errorf("the client with an identifier gets %s", got)
	}
	offer := b.say(dhcpv4.MessageTypeDiscover, 9)
	if offer.HostName() != "nine" {
		t.Errorf("its name is %q", offer.HostName())
	}
}

func TestAddressThatSomebodyHas(t *testing.T) {
	s := blue("172.16.0.11", "172.16.0.14")
	b := newBench(t, kv.NewRecords(), "n1", s)
	first, _ := b.a.segments[link{vni: 100}].pool.pick(ClientOf(guestMAC(1)), anyAddress)
	b.answering[first] = guestMAC(77)
	got := b.lease(1)
	if got == first || b.a.counts.Conflicts != 1 || b.record(first).Kind != declined {
		t.Errorf("it gets %s although %s has it: %+v, %+v", got, guestMAC(77), b.record(first), b.a.counts)
	}
	if b.say(dhcpv4.MessageTypeDecline, 1, wanting(got)) != nil || b.record(got).Kind != declined {
		t.Errorf("what it declines is %+v", b.record(got))
	}
	next := b.lease(1)
	if next == got || next == first {
		t.Errorf("it gets %s again", next)
	}
	// What EVPN knows of other nodes needs no probe.
	left := ip("172.16.0.11")
	for ; b.a.book.entries[left] != nil; left = left.Next() {
	}
	b.a.observe(map[dataplane.NeighborKey]dataplane.MAC{{VNI: 100, IP: left}: guestMAC(88)})
	if got := b.say(dhcpv4.MessageTypeDiscover, 2); got != nil {
		t.Errorf("it is offered %s, which %s has on another node", got.YourIPAddr, guestMAC(88))
	}
	b.a.observe(map[dataplane.NeighborKey]dataplane.MAC{{VNI: 100, IP: left}: {}})
	if got := b.lease(2); got != left {
		t.Errorf("it gets %s, want %s", got, left)
	}
	clear(b.answering)
	b.now += declineHold
	if got := b.say(dhcpv4.MessageTypeDiscover, 3); got == nil {
		t.Error("what was declined is set aside for ever")
	}
}

func TestRapidCommit(t *testing.T) {
	b := newBench(t, kv.NewRecords(), "n1", blue("172.16.0.11", "172.16.0.254"))
	rapid := dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionRapidCommit, nil))
	for range 2 {
		got := b.say(dhcpv4.MessageTypeDiscover, 1, rapid)
		if kindOf(got) != dhcpv4.MessageTypeAck || !got.Options.Has(dhcpv4.OptionRapidCommit) || len(b.probes) != 1 {
			t.Errorf("answered with %v after %d probes", got, len(b.probes))
		}
	}
	if b.store.Revision() != 2 {
		t.Errorf("it took %d transactions", b.store.Revision()-1)
	}
}

func TestStoreAway(t *testing.T) {
	s := blue("172.16.0.11", "172.16.0.254")
	b := newBench(t, kv.NewRecords(), "n1", s)
	a := b.lease(1)
	b.away = true
	if got := b.say(dhcpv4.MessageTypeDiscover, 2); got != nil {
		t.Errorf("a new client is offered %v", got)
	}
	left := func() time.Duration { return b.a.book.entries[a].promised(b.a.run, b.now) }
	if left() < s.Lease+s.Grace-10*time.Second {
		t.Errorf("only %s can be promised", left())
	}
	for left() > 3*leastPromise {
		b.now += min(s.Lease/2, left()/3)
		want := min(s.Lease, left()).Truncate(time.Second)
		got := b.say(dhcpv4.MessageTypeRequest, 1, having(a))
		if term := got.IPAddressLeaseTime(0); kindOf(got) != dhcpv4.MessageTypeAck || term > want || term < want-2*time.Second {
			t.Fatalf("with %s left the answer is %v", left(), got)
		}
		if reboot := b.say(dhcpv4.MessageTypeRequest, 1, wanting(a)); kindOf(reboot) != dhcpv4.MessageTypeAck {
			t.Errorf("with %s left the reboot is answered with %v", left(), reboot)
		}
	}
	b.now += left()
	if got := b.say(dhcpv4.MessageTypeRequest, 1, having(a)); got != nil {
		t.Errorf("when nothing can be promised any more the answer is %v", got)
	}
	b.away = false
	b.now += time.Minute
	if got := b.say(dhcpv4.MessageTypeRequest, 1, having(a)); kindOf(got) != dhcpv4.MessageTypeAck {
		t.Errorf("when the store is back the answer is %v", got)
	}
}

func TestGuestThatMoves(t *testing.T) {
	s := blue("172.16.0.11", "172.16.0.254")
	store := kv.NewRecords()
	one, two := newBench(t, store, "n1", s), newBench(t, store, "n2", s)
	a := one.lease(1)
	if got := two.say(dhcpv4.MessageTypeRequest, 1, wanting(a)); kindOf(got) != dhcpv4.MessageTypeAck {
		t.Fatalf("on its new node it is answered with %v", got)
	}
	if got := two.record(a); got.Node != "n2" || !got.Moved {
		t.Errorf("written is %+v", got)
	}
	if one.a.book.entries[a].promised(one.a.run, one.now) != 0 {
		t.Error("the old node promises it still")
	}
	two.say(dhcpv4.MessageTypeRelease, 1, having(a))
	if got := two.record(a); got.Kind != released || got.Hold < s.Lease+s.Grace-time.Minute {
		t.Errorf("what it releases, and the old node may have promised, is %+v", got)
	}
	if err := one.a.releaseByHand(a, one.now); err == nil {
		t.Error("a node ends what another one has given")
	}
}

func TestRestartedAgentGoesOn(t *testing.T) {
	s := blue("172.16.0.11", "172.16.0.254")
	store := kv.NewRecords()
	before := newBench(t, store, "n1", s)
	a := before.lease(1)
	after := newBench(t, store, "n1", s)
	after.a.run = "n1-2"
	after.a.adopt(after.now)
	after.settle()
	after.away = true
	if got := after.say(dhcpv4.MessageTypeRequest, 1, having(a)); kindOf(got) != dhcpv4.MessageTypeAck {
		t.Errorf("the store is away after the restart, and the answer is %v", got)
	}
}

func TestPoolThatIsFull(t *testing.T) {
	s := blue("172.16.0.11", "172.16.0.20")
	b := newBench(t, kv.NewRecords(), "n1", s)
	for i := range 10 {
		b.lease(i)
		conditions := b.a.report(b.now).Conditions
		if is := len(conditions) == 1 && conditions[0].Name == ConditionPool; is != (i >= 8) {
			t.Errorf("with %d of 10 leased there is %+v", i+1, conditions)
		}
	}
	if got := b.say(dhcpv4.MessageTypeDiscover, 11); got != nil || b.a.counts.Exhausted != 1 {
		t.Errorf("one too many is offered %v", got)
	}
	b.now += s.Lease + s.Grace
	if got := b.lease(11); !got.IsValid() {
		t.Error("what is over is not given again")
	}
}

func TestOptions(t *testing.T) {
	s := blue("172.16.0.11", "172.16.0.254")
	s.Search, s.NTP = []string{"a.example", "b.example"}, []netip.Addr{ip("9.9.9.9")}
	s.Routes = []Route{{netip.MustParsePrefix("10.1.0.0/16"), ip("172.16.0.7")}}
	s.BootFile, s.NextServer = "ipxe.efi", ip("172.16.0.8")
	b := newBench(t, kv.NewRecords(), "n1", s)
	id := dhcpv4.WithOption(dhcpv4.OptClientIdentifier([]byte{255, 1, 2, 3}))
	relay := dhcpv4.WithOption(dhcpv4.OptRelayAgentInfo(dhcpv4.OptGeneric(dhcpv4.AgentCircuitIDSubOption, []byte("port7"))))
	all := b.say(dhcpv4.MessageTypeDiscover, 1, id, relay)
	want := []any{
		"172.16.0.1", []string{"1.1.1.1"}, []string{"a.example", "b.example"}, "9.9.9.9", uint16(1450), "ipxe.efi", "172.16.0.8",
		"route to 10.1.0.0/16 via 172.16.0.7", "route to 0.0.0.0/0 via 172.16.0.1", []byte{255, 1, 2, 3}, "port7", "172.16.0.1",
	}
	mtu, _ := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, all.Options)
	static := all.ClasslessStaticRoute()
	got := []any{
		all.Router()[0].String(), []string{all.DNS()[0].String()}, all.DomainSearch().Labels, all.NTPServers()[0].String(), mtu,
		all.BootFileName, all.ServerIPAddr.String(), static[0].String(), static[1].String(),
		all.Options.Get(dhcpv4.OptionClientIdentifier), string(all.RelayAgentInfo().Get(dhcpv4.AgentCircuitIDSubOption)), all.ServerIdentifier().String(),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	few := b.say(dhcpv4.MessageTypeDiscover, 2, dhcpv4.WithRequestedOptions(dhcpv4.OptionRouter))
	if few.Router() == nil || few.DNS() != nil || few.SubnetMask() == nil {
		t.Errorf("asked for the router alone, it gets %s", few.Summary())
	}
	for i := range 60 {
		s.Search = append(s.Search, string(rune('a'+i%26))+"-rather-long-domain.example")
	}
	b.a.setSegments([]Segment{s}, b.now)
	if large := b.say(dhcpv4.MessageTypeDiscover, 3); len(large.ToBytes()) > leastMessage || large.Router() == nil || large.DomainSearch() != nil {
		t.Errorf("an answer of %d octets is %s", len(large.ToBytes()), large.Summary())
	}
	inform := b.say(dhcpv4.MessageTypeInform, 4, having(ip("172.16.9.9")))
	if kindOf(inform) != dhcpv4.MessageTypeAck || addr(inform.YourIPAddr).IsValid() || inform.IPAddressLeaseTime(0) != 0 || inform.DNS() == nil {
		t.Errorf("who informs is told %v", inform)
	}
}

func TestManyAtOnceShareTransactions(t *testing.T) {
	b := newBench(t, kv.NewRecords(), "n1", blue("172.16.1.0", "172.16.99.254"))
	for i := range 1000 {
		m := message(t, dhcpv4.MessageTypeDiscover, guestMAC(i))
		b.a.heard(b.port, clientFrame(guestMAC(i), m.ToBytes()), b.now)
	}
	offers := map[string]bool{}
	for _, r := range b.settle() {
		offers[r.YourIPAddr.String()] = true
	}
	if len(offers) != 1000 || b.store.Revision()-1 > 8 {
		t.Errorf("%d addresses are offered after %d transactions", len(offers), b.store.Revision()-1)
	}
}
