package native

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	seam "frond/internal/bgp"
)

// owner is a speaker whose loop the test itself is: it gives the messages
// and looks at the tables.
type owner struct {
	*Speaker
	t *testing.T
}

func newOwner(t *testing.T) owner {
	t.Helper()
	s := New(netip.MustParseAddrPort("[::]:179"), slog.New(slog.NewTextHandler(io.Discard, nil)))
	s.deadline = time.NewTimer(time.Hour)
	t.Cleanup(func() { s.deadline.Stop() })
	s.desired = desired(1)
	s.converged = true
	s.originate(nil)
	return owner{s, t}
}

// neighbor adds one without a machine that runs.
func (o owner) neighbor(number byte) *neighbor {
	o.t.Helper()
	index := 0
	for o.indexes.has(index) {
		index++
	}
	o.indexes.add(index)
	addr := netip.AddrFrom16([16]byte{0xfe, 0x80, 15: number}).WithZone("eth1")
	n := &neighbor{addr: addr, index: index, status: seam.PeerStatus{Addr: addr}, machine: &machine{peer: seam.Peer{Addr: addr}}, remove: func(error) {}}
	o.neighbors[addr] = n
	return n
}

// graceful is what a peer says that restarts gracefully in all families.
func graceful(number uint32) *agreement {
	all := [seam.Families]bool{true, true, true}
	return &agreement{
		asn: 65000 + number, families: everything.families, restart: time.Minute,
		graceful: true, restarts: all, preserved: all,
	}
}

func (o owner) up(n *neighbor, a *agreement) {
	o.t.Helper()
	s := told(o.t, false).session
	s.agreement, s.out, s.closing = a, make(chan []byte, 1), make(chan struct{})
	sessionUp{n.machine, s}.apply(o.Speaker)
}

func (o owner) down(n *neighbor, keep bool) {
	sessionDown{n.machine, n.session, "test", keep, false}.apply(o.Speaker)
}

func (o owner) announce(n *neighbor, asPath []uint32, prefixes ...string) {
	u := &update{attributes: &attributes{asPath: asPath, pathLength: len(asPath), localPref: defaultLocalPref}}
	for _, p := range prefixes {
		u.reach.prefixes = append(u.reach.prefixes, netip.MustParsePrefix(p))
	}
	received{n.machine, n.session, u}.apply(o.Speaker)
}

func (o owner) withdraw(n *neighbor, prefix string) {
	u := &update{}
	u.unreach.prefixes = []netip.Prefix{netip.MustParsePrefix(prefix)}
	received{n.machine, n.session, u}.apply(o.Speaker)
}

func (o owner) endOfRIB(n *neighbor, families ...seam.Family) {
	for _, f := range families {
		received{n.machine, n.session, &update{endOfRIB: true, family: f}}.apply(o.Speaker)
	}
}

// read takes every event there is, and says that all is in force.
func (o owner) read() (events []seam.Event) {
	for {
		event, out := o.nextEvent()
		if out == nil {
			return events
		}
		o.eventTaken()
		events = append(events, event)
		if p, ok := event.(seam.PathsChanged); ok && len(p.Unicast) > 0 {
			o.announceApplied()
		}
	}
}

// tells returns what the neighbor is sent now: prefixes reached and taken back.
func (o owner) tells(n *neighbor) (reached, gone []string) {
	o.t.Helper()
	for !n.queue.empty() {
		for _, body := range split(o.t, o.compose(n)) {
			u, fault := decodeUpdate(body, everything, &attributeCache{})
			if fault != nil {
				o.t.Fatal(fault)
			}
			for _, p := range u.reach.prefixes {
				reached = append(reached, p.String())
			}
			for _, p := range u.unreach.prefixes {
				gone = append(gone, p.String())
			}
		}
	}
	return reached, gone
}

func (o owner) expectTold(n *neighbor, reached, gone string) {
	o.t.Helper()
	r, g := o.tells(n)
	if strings.Join(r, " ") != reached || strings.Join(g, " ") != gone {
		o.t.Errorf("%s is told of %v and that %v are gone, want %q and %q", n.addr, r, g, reached, gone)
	}
}

func (o owner) has(prefix string) bool {
	e, ok := o.unicast.entries[netip.MustParsePrefix(prefix)]
	return ok && len(e.paths) > 0
}

// TestSplitHorizonMoves has the best path change from one peer to another:
// the first is now told, from the second it is taken back.
func TestSplitHorizonMoves(t *testing.T) {
	o := newOwner(t)
	a, b := o.neighbor(1), o.neighbor(2)
	o.up(a, graceful(1))
	o.up(b, graceful(2))
	o.announce(a, []uint32{65001}, "10.1.0.0/16")
	o.expectTold(b, "", "") // not in force yet
	o.read()
	o.expectTold(a, "", "")
	o.expectTold(b, "10.1.0.0/16", "")
	o.announce(a, []uint32{65001, 65009}, "10.1.0.0/16")
	o.announce(b, []uint32{65002}, "10.1.0.0/16")
	o.read()
	o.expectTold(a, "10.1.0.0/16", "")
	o.expectTold(b, "", "10.1.0.0/16")
	if a.status.Sent[seam.IPv4] != 1 || b.status.Sent[seam.IPv4] != 0 {
		t.Errorf("sent %v and %v", a.status.Sent, b.status.Sent)
	}
}

// TestChangesWhileApplying changes paths again before they are in force.
func TestChangesWhileApplying(t *testing.T) {
	o := newOwner(t)
	a, b, late := o.neighbor(1), o.neighbor(2), o.neighbor(3)
	o.up(a, graceful(1))
	o.up(b, graceful(2))
	o.announce(a, []uint32{65001}, "10.1.0.0/16")
	o.nextEvent()
	o.eventTaken()
	o.withdraw(a, "10.1.0.0/16")
	o.announce(a, []uint32{65001}, "10.1.0.0/16")
	o.up(late, graceful(3))
	o.announceApplied()
	o.expectTold(b, "", "")
	o.expectTold(late, "", "")
	if len(late.owesEnd) == 0 {
		t.Error("End-of-RIB was sent though paths are not settled")
	}
	o.read()
	o.expectTold(b, "10.1.0.0/16", "")
	o.expectTold(late, "10.1.0.0/16", "")
	o.withdraw(a, "10.1.0.0/16")
	o.expectTold(b, "", "10.1.0.0/16") // at once
}

// TestEVPNWhileApplying has EVPN routes be told of while unicast paths are not in
// force yet, which others of these wait for.
func TestEVPNWhileApplying(t *testing.T) {
	o := newOwner(t)
	a := o.neighbor(1)
	o.up(a, graceful(1))
	o.read()
	next := func() (told seam.PathsChanged) {
		t.Helper()
		event, out := o.nextEvent()
		if out == nil {
			return told
		}
		o.eventTaken()
		told, ok := event.(seam.PathsChanged)
		if !ok {
			t.Fatalf("told is %+v, want paths", event)
		}
		return told
	}
	o.announce(a, []uint32{65001}, "10.1.0.0/16")
	if told := next(); len(told.Unicast) != 1 {
		t.Fatalf("told is %+v, want the prefix", told)
	}
	u := &update{attributes: &attributes{asPath: []uint32{65001}, pathLength: 1, localPref: defaultLocalPref}}
	u.reach.evpn = []evpnRoute{{"\x03\x02xx", "\x03\x02xx"}}
	received{a.machine, a.session, u}.apply(o.Speaker)
	o.announce(a, []uint32{65001}, "10.2.0.0/16")
	if told := next(); len(told.EVPN) != 1 || len(told.Unicast) != 0 {
		t.Errorf("told is %+v, want the EVPN route alone", told)
	}
	if told := next(); len(told.EVPN)+len(told.Unicast) != 0 {
		t.Errorf("told is %+v before what was told is in force", told)
	}
	o.announceApplied()
	if told := next(); len(told.EVPN) != 0 || len(told.Unicast) != 1 {
		t.Errorf("told is %+v, want the other prefix", told)
	}
}

// TestNewASInPaths changes the node's AS: what it originates must be told
// with the new one.
func TestNewASInPaths(t *testing.T) {
	o := newOwner(t)
	o.apply(context.Background(), desired(1))
	before := o.local.attributes(o.desired.ASN, seam.Route{}).encode(o.desired.ASN, false, false)
	o.apply(context.Background(), desired(2))
	after := o.local.attributes(o.desired.ASN, seam.Route{}).encode(o.desired.ASN, false, false)
	if bytes.Equal(before, after) {
		t.Errorf("AS %d still says %x", o.desired.ASN, after)
	}
}

// TestRestartsTwice loses a peer again before it has confirmed its routes:
// what was stale already goes (RFC 4724 §4.2).
func TestRestartsTwice(t *testing.T) {
	o := newOwner(t)
	n := o.neighbor(1)
	o.up(n, graceful(1))
	o.announce(n, []uint32{65001}, "10.1.0.0/16", "10.2.0.0/16")
	o.down(n, true)
	o.up(n, graceful(1))
	o.announce(n, []uint32{65001}, "10.2.0.0/16")
	o.down(n, true)
	if o.has("10.1.0.0/16") || !o.has("10.2.0.0/16") || n.status.Received[seam.IPv4] != 1 {
		t.Errorf("kept %v, counted %v", o.unicast.entries, n.status.Received)
	}
}

// TestRestartsWithOtherCapabilities brings a peer back that says less than before.
func TestRestartsWithOtherCapabilities(t *testing.T) {
	without := func(change func(*agreement)) *agreement {
		a := graceful(1)
		change(a)
		return a
	}
	none := [seam.Families]bool{}
	tests := []struct {
		name     string
		then     *agreement
		kept     bool // the IPv6 route, until End-of-RIB
		awaiting bool
	}{
		{"the same", graceful(1), true, true},
		{"no graceful restart", without(func(a *agreement) { a.graceful, a.restarts, a.preserved = false, none, none }), false, false},
		{"helper only", without(func(a *agreement) { a.restarts, a.preserved = none, none }), false, true},
		{"no IPv6 any more", without(func(a *agreement) { a.families = []seam.Family{seam.IPv4} }), false, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := newOwner(t)
			n := o.neighbor(1)
			o.up(n, graceful(1))
			o.announce(n, []uint32{65001}, "fd00:1::/64")
			o.endOfRIB(n, seam.IPv4, seam.IPv6, seam.EVPN)
			o.down(n, true)
			o.up(n, tt.then)
			if o.has("fd00:1::/64") != tt.kept || n.awaits() != tt.awaiting || n.status.Restarting != tt.awaiting {
				t.Errorf("kept: %v, End-of-RIB awaited: %v, restarting: %v", o.has("fd00:1::/64"), n.awaits(), n.status.Restarting)
			}
			o.endOfRIB(n, tt.then.families...)
			if o.has("fd00:1::/64") || n.status.Restarting || !n.forget.IsZero() || n.status.Received[seam.IPv6] != 0 {
				t.Error("stale routes outlived End-of-RIB")
			}
		})
	}
}

// TestCountersAreTold has a peer's counters change after its End-of-RIB.
func TestCountersAreTold(t *testing.T) {
	o := newOwner(t)
	a, b := o.neighbor(1), o.neighbor(2)
	o.up(a, graceful(1))
	o.up(b, graceful(2))
	o.read()
	o.feed()
	o.announce(a, []uint32{65001}, "10.1.0.0/16")
	told := make(map[netip.Addr]seam.PeerStatus)
	take := func() {
		for _, event := range o.read() {
			if e, ok := event.(seam.PeerChanged); ok {
				told[e.Peer.Addr] = e.Peer
			}
		}
	}
	take()
	<-b.session.out // the End-of-RIB
	drained{b.machine, b.session}.apply(o.Speaker)
	o.feed()
	take()
	if told[a.addr].Received[seam.IPv4] != 1 || told[b.addr].Sent[seam.IPv4] != 1 {
		t.Errorf("told %+v", told)
	}
}

// TestEndsUnderFlood ends a speaker while connections arrive faster than it
// took them.
func TestEndsUnderFlood(t *testing.T) {
	o := newOwner(t)
	l, err := net.ListenTCP("tcp6", &net.TCPAddr{IP: net.IPv6loopback})
	must(t, err)
	o.listener = l
	for range cap(o.inbox) {
		o.inbox <- drained{}
	}
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		o.accept()
	}()
	conn, err := net.DialTCP("tcp6", nil, l.Addr().(*net.TCPAddr))
	must(t, err)
	defer conn.Close()
	o.close(func(error) {}, accepting)
	must(t, conn.SetReadDeadline(time.Now().Add(10*time.Second)))
	if _, err := conn.Read(make([]byte, 1)); isTimeout(err) {
		t.Error("a connection was left open")
	}
}
