package native

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	seam "frond/internal/bgp"
)

var everything = &agreement{asn: 65001, families: []seam.Family{seam.IPv4, seam.IPv6, seam.EVPN}}

// told is a neighbor as compose needs it, on a connection over loopback.
func told(t *testing.T, internal bool) *neighbor {
	t.Helper()
	l, err := net.ListenTCP("tcp6", &net.TCPAddr{IP: net.IPv6loopback})
	must(t, err)
	t.Cleanup(func() { l.Close() })
	conn, err := net.DialTCP("tcp6", nil, l.Addr().(*net.TCPAddr))
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	return &neighbor{session: &session{agreement: everything, conn: conn}, internal: internal}
}

func entries[K comparable](keys []K) (list []*entry[K]) {
	for _, key := range keys {
		list = append(list, &entry[K]{key: key, wire: fmt.Sprint(key)})
	}
	return list
}

// split cuts a batch into the bodies of its UPDATE messages.
func split(t *testing.T, batch []byte) (bodies [][]byte) {
	t.Helper()
	r := strings.NewReader(string(batch))
	for r.Len() > 0 {
		buf := make([]byte, maxMessageLen)
		kind, body, err := readMessage(r, buf)
		must(t, err)
		if kind != typeUpdate {
			t.Fatalf("message of type %d", kind)
		}
		bodies = append(bodies, body)
	}
	return bodies
}

func TestUpdateRoundTrip(t *testing.T) {
	attrs := &attributes{
		origin: 2, localPref: 300, segments: []byte{segmentSequence, 1, 0, 0, 0xfd, 0xe9}, asPath: []uint32{65001}, pathLength: 1,
		communities: []uint32{1, 2}, extended: "12345678", pmsi: "\x00\x06\x00\x00\x01\x0a\x00\x00\x01", transitive: "\xe0\x20\x01x",
	}
	var prefixes []netip.Prefix
	for i := range 3000 {
		prefixes = append(prefixes, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24))
	}
	s := &Speaker{desired: seam.Desired{ASN: 4200000001}}
	for _, internal := range []bool{false, true} {
		t.Run(fmt.Sprintf("internal=%v", internal), func(t *testing.T) {
			session := *everything
			session.internal = internal
			batch := appendUpdates(nil, s, told(t, internal), bundle{seam.IPv4, attrs}, entries(prefixes), appendPrefix)
			var got []netip.Prefix
			var cache attributeCache
			for _, body := range split(t, batch) {
				u, fault := decodeUpdate(body, &session, &cache)
				if fault != nil || u.malformed != nil {
					t.Fatal(fault, u.malformed)
				}
				got = append(got, u.reach.prefixes...)
				a := u.attributes
				wantPath, wantPref := []uint32{4200000001, 65001}, uint32(defaultLocalPref)
				if internal {
					wantPath, wantPref = []uint32{65001}, 300
				}
				if !slices.Equal(a.asPath, wantPath) || a.localPref != wantPref || a.origin != 2 || !slices.Equal(a.communities, attrs.communities) ||
					a.extended != attrs.extended || a.pmsi != attrs.pmsi || a.transitive != attrs.transitive {
					t.Fatalf("attributes came back as %+v", a)
				}
			}
			if !slices.Equal(got, prefixes) {
				t.Errorf("%d of %d prefixes came back", len(got), len(prefixes))
			}
		})
	}
}

func TestWithdrawRoundTrip(t *testing.T) {
	s := &Speaker{}
	routes := []string{"\x02\x03abc", "\x05\x00"}
	batch := appendUpdates(nil, s, told(t, false), bundle{seam.EVPN, nil}, entries(routes), appendEVPN)
	bodies := split(t, batch)
	u, fault := decodeUpdate(bodies[0], everything, &attributeCache{})
	if fault != nil || len(bodies) != 1 || !slices.Equal(wires(u.unreach.evpn), routes) || u.endOfRIB {
		t.Errorf("got %+v, %v from %d messages", u, fault, len(bodies))
	}
}

func TestEndOfRIB(t *testing.T) {
	for f := range seam.Families {
		u, fault := decodeUpdate(split(t, appendEndOfRIB(nil, f))[0], everything, &attributeCache{})
		if fault != nil || !u.endOfRIB || u.family != f {
			t.Errorf("%s came back as %+v, %v", f, u, fault)
		}
	}
}

// raw builds an UPDATE's body from attributes.
func raw(attrs ...string) []byte {
	all := strings.Join(attrs, "")
	return []byte("\x00\x00" + string([]byte{byte(len(all) >> 8), byte(len(all))}) + all)
}

const (
	origin  = "\x40\x01\x01\x00"
	asPath  = "\x40\x02\x06\x02\x01\x00\x00\xfd\xe9"
	reach   = "\x80\x0e\x19\x00\x01\x01\x10\xfe\x80\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x18\x0a\x01\x02"
	unreach = "\x80\x0f\x07\x00\x01\x01\x18\x0a\x01\x02"
)

func TestMalformedUpdates(t *testing.T) {
	tests := []struct {
		name  string
		body  []byte
		fatal bool // the session must end; otherwise the routes count as withdrawn
	}{
		{"empty", nil, true},
		{"withdrawn length beyond the message", []byte{0xff, 0xff, 0, 0}, true},
		{"attributes length beyond the message", []byte{0, 0, 0xff, 0xff}, true},
		{"attribute beyond the list", raw("\x40\x01\x09\x00"), true},
		{"MP_REACH twice", raw(origin, asPath, reach, reach), true},
		{"MP_UNREACH too short", raw("\x80\x0f\x02\x00\x01"), true},
		{"prefix of 33 bits", raw(origin, asPath, strings.Replace(reach, "\x18\x0a", "\x21\x0a", 1)), true},
		{"NLRI cut short", raw(origin, asPath, strings.Replace(reach, "\x18\x0a", "\x20\x0a", 1)), true},
		{"no ORIGIN", raw(asPath, reach), false},
		{"no AS_PATH", raw(origin, reach), false},
		{"ORIGIN 3", raw("\x40\x01\x01\x03", asPath, reach), false},
		{"AS_PATH segment of 9 in 4 bytes", raw(origin, "\x40\x02\x06\x02\x09\x00\x00\xfd\xe9", reach), false},
		{"AS_PATH segment of none", raw(origin, "\x40\x02\x02\x02\x00", reach), false},
		{"AS_PATH with AS 0", raw(origin, "\x40\x02\x06\x02\x01\x00\x00\x00\x00", reach), false},
		{"AS_PATH with a confederation", raw(origin, "\x40\x02\x06\x03\x01\x00\x00\xfd\xe9", reach), false},
		{"COMMUNITIES of 3 bytes", raw(origin, asPath, "\xc0\x08\x03abc", reach), false},
		{"unknown well-known attribute", raw(origin, asPath, "\x40\x63\x01a", reach), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u, fault := decodeUpdate(tt.body, everything, &attributeCache{})
			if tt.fatal {
				if fault == nil {
					t.Fatalf("accepted: %+v", u)
				}
				return
			}
			if fault != nil {
				t.Fatal(fault)
			}
			if !errors.Is(u.malformed, errWithdraw) || len(u.unreach.prefixes) != 1 || u.attributes != nil {
				t.Errorf("not treated as withdrawal: %+v", u)
			}
		})
	}
	if u, fault := decodeUpdate(raw(origin, asPath, reach, unreach), everything, &attributeCache{}); fault != nil || u.malformed != nil || len(u.reach.prefixes) != 1 {
		t.Errorf("the sound one: %+v, %v", u, fault)
	}
}

func FuzzUpdate(f *testing.F) {
	f.Add(raw(origin, asPath, reach, unreach))
	f.Add(raw("\xc0\x10\x08abcdefgh", origin, asPath, "\x80\x0e\x0b\x00\x19\x46\x04\x0a\x00\x00\x01\x00\x02\x00"))
	f.Add([]byte{0, 4, 24, 10, 1, 2, 0, 0})
	f.Fuzz(func(t *testing.T, body []byte) {
		u, fault := decodeUpdate(body, everything, &attributeCache{})
		if fault != nil {
			return
		}
		// What was accepted must survive being passed on.
		s := &Speaker{desired: seam.Desired{ASN: 1}}
		if u.attributes == nil || len(u.attributes.build(1, false, false)) > longestShared {
			return
		}
		n := &neighbor{session: &session{agreement: everything}}
		if len(u.reach.evpn) > 0 {
			batch := appendUpdates(nil, s, n, bundle{seam.EVPN, u.attributes}, entries(wires(u.reach.evpn)), appendEVPN)
			var again []evpnRoute
			for _, body := range split(t, batch) {
				u, fault := decodeUpdate(body, everything, &attributeCache{})
				if fault != nil || u.malformed != nil {
					t.Fatalf("own encoding of %x refused: %v %v", body, fault, u.malformed)
				}
				again = append(again, u.reach.evpn...)
			}
			if !slices.Equal(again, u.reach.evpn) {
				t.Fatalf("%q came back as %q", u.reach.evpn, again)
			}
			return
		}
		family := seam.IPv4
		for _, p := range u.reach.prefixes {
			family = unicastFamily(p)
		}
		u.attributes.nextHop = netip.MustParseAddr("10.0.0.1")
		for _, body := range split(t, appendUpdates(nil, s, n, bundle{family, u.attributes}, entries(u.reach.prefixes), appendPrefix)) {
			again, fault := decodeUpdate(body, everything, &attributeCache{})
			if fault != nil || again.malformed != nil {
				t.Fatalf("own encoding of %x refused: %v %v", body, fault, again.malformed)
			}
		}
	})
}

func FuzzOpen(f *testing.F) {
	open, err := encodeOpen(local{asn: 65001, routerID: netip.MustParseAddr("10.0.0.1"), hostname: "a"}, 9*time.Second, restartState{})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(open[headerLen:])
	l := local{asn: 65002, routerID: netip.MustParseAddr("10.0.0.2")}
	f.Fuzz(func(_ *testing.T, body []byte) {
		_, _ = negotiate(l, seam.Peer{Hold: 9 * time.Second, Keepalive: 3 * time.Second}, body)
	})
}

func TestNegotiate(t *testing.T) {
	us := local{asn: 4200000001, routerID: netip.MustParseAddr("10.0.0.1")}
	them := local{asn: 4200000002, routerID: netip.MustParseAddr("10.0.0.2"), hostname: "x\x1b[2J", restart: 120 * time.Second}
	peer := seam.Peer{Hold: 9 * time.Second, Keepalive: 3 * time.Second}
	tests := []struct {
		name   string
		change func(l *local, hold *time.Duration)
		want   string // part of the refusal; empty: agreed
	}{
		{"sound", func(*local, *time.Duration) {}, ""},
		{"two-octet AS", func(l *local, _ *time.Duration) { l.asn = 65000 }, ""},
		{"own AS", func(l *local, _ *time.Duration) { l.asn = us.asn }, "own AS"},
		{"own router-id", func(l *local, _ *time.Duration) { l.routerID = us.routerID }, "router-id"},
		{"hold 1 s", func(_ *local, h *time.Duration) { *h = time.Second }, "hold time"},
		{"hold 0", func(_ *local, h *time.Duration) { *h = 0 }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l, hold := them, 6*time.Second
			tt.change(&l, &hold)
			open, err := encodeOpen(l, hold, restartState{restarting: true, preserved: true})
			must(t, err)
			a, err := negotiate(us, peer, open[headerLen:])
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("error %v, want one about %q", err, tt.want)
				}
				return
			}
			must(t, err)
			if a.asn != l.asn || a.hostname != "x[2J" || a.hold != hold || a.keepalive != hold/3 || len(a.families) != 3 ||
				a.restart != 120*time.Second || !a.restarting || !a.preserved[seam.EVPN] {
				t.Errorf("agreed on %+v", a)
			}
		})
	}
}

func TestDecision(t *testing.T) {
	router := func(n byte) *neighbor {
		return &neighbor{routerID: netip.AddrFrom4([4]byte{10, 0, 0, n}), addr: netip.MustParseAddr(fmt.Sprintf("fe80::%d", n)), session: &session{}}
	}
	internal := router(9)
	internal.internal = true
	base := func() *attributes { return &attributes{localPref: 100, pathLength: 2} }
	shutdown := base()
	shutdown.communities = []uint32{communityGracefulShutdown}
	shorter, incomplete, preferred := base(), base(), base()
	shorter.pathLength, incomplete.origin, preferred.localPref = 1, 2, 200
	late, later := base(), base()
	late.sequence, later.sequence, later.pathLength = 7, 8, 5
	tests := []struct {
		name         string
		better, then path
		equal        bool // used side by side
	}{
		{"lower router-id only breaks ties", path{peer: router(1), attrs: base()}, path{peer: router(2), attrs: base()}, true},
		{"shorter path", path{peer: router(2), attrs: shorter}, path{peer: router(1), attrs: base()}, false},
		{"origin", path{peer: router(2), attrs: base()}, path{peer: router(1), attrs: incomplete}, false},
		{"a peer about to leave is last", path{peer: router(2), attrs: base()}, path{peer: router(1), attrs: shutdown}, false},
		{"LOCAL_PREF", path{peer: internal, attrs: preferred}, path{peer: router(1), attrs: shorter}, false},
		{"whoever got the prefix last, by whatever way", path{peer: internal, attrs: later}, path{peer: router(1), attrs: late}, false},
		{"one with a sequence number before one without", path{peer: router(2), attrs: late}, path{peer: router(1), attrs: shorter}, false},
		{"no sequence numbers of EVPN routes", path{peer: router(1), attrs: late, wire: "x"}, path{peer: router(2), attrs: later, wire: "x"}, false},
		{"external before internal", path{peer: router(1), attrs: base()}, path{peer: internal, attrs: base()}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, paths := range [][]path{{tt.better, tt.then}, {tt.then, tt.better}} {
				best := choose(paths)
				if paths[0] != tt.better || (best == 2) != tt.equal {
					t.Errorf("chose %+v, %d side by side", paths[0], best)
				}
			}
		})
	}
}

func TestTableForgets(t *testing.T) {
	tb := newTable(func(*entry[string]) {})
	n := &neighbor{session: &session{}}
	a := &attributes{}
	if !tb.announce("x", path{peer: n, attrs: a}) || tb.announce("x", path{peer: n, attrs: &attributes{}}) {
		t.Error("added once, replaced once: told otherwise")
	}
	tb.entries["x"].sent.add(70)
	if !tb.withdraw("x", n) || tb.withdraw("x", n) || tb.withdraw("y", n) {
		t.Error("withdrawn once: told otherwise")
	}
	if len(tb.entries) != 1 {
		t.Error("forgotten while a peer still holds it")
	}
	tb.entries["x"].sent.remove(70)
	tb.originate("x", a, "")
	tb.originate("x", nil, "")
	if len(tb.entries) != 0 {
		t.Error("kept though nobody tells or holds it")
	}
}

// TestTooLongToPassOn has a peer fill a whole message with attributes, to
// which nothing can be added.
func TestTooLongToPassOn(t *testing.T) {
	s := &Speaker{desired: seam.Desired{ASN: 1}, evpn: newTable(func(*entry[string]) {})}
	s.unicast = newTable(func(*entry[netip.Prefix]) {})
	attrs := &attributes{transitive: strings.Repeat("x", longestShared)}
	e := s.unicast.entry(netip.MustParsePrefix("10.0.0.0/8"))
	e.told = export{attrs: attrs}
	n := told(t, false)
	n.queue.unicast = append(n.queue.unicast, e)
	if b := s.compose(n); len(b) != 0 || e.sent.has(0) {
		t.Errorf("sent %d bytes", len(b))
	}
}

func TestEVPNKey(t *testing.T) {
	rd, segment, tag := "\x00\x01\x0a\x00\x00\x01\x00\x02", "0123456789", "\x00\x00\x00\x00"
	mac := "\x30\x02\x00\x00\x00\x00\x01"
	wire := func(kind byte, parts ...string) string {
		all := strings.Join(parts, "")
		return string([]byte{kind, byte(len(all))}) + all
	}
	none := strings.Repeat("\x00", 10)
	same := [][2]string{
		{wire(2, rd, segment, tag, mac, "\x00", "\x00\x00\x64"), wire(2, rd, none, tag, mac, "\x00", "\x00\x00\x00")},
		{wire(2, rd, none, tag, mac, "\x20\x0a\x01\x01\x01", "\x00\x00\x64\x00\x10\x00"), wire(2, rd, none, tag, mac, "\x20\x0a\x01\x01\x01", "\x00\x00\x00")},
		{wire(5, rd, segment, tag, "\x18\x0a\x01\x01\x00", "\x0a\x00\x00\x09", "\x00\x00\x64"), wire(5, rd, none, tag, "\x18\x0a\x01\x01\x00", "\x00\x00\x00\x00", "\x00\x00\x00")},
	}
	keys := make(map[string]bool)
	for _, pair := range same {
		if evpnKey(pair[0]) != evpnKey(pair[1]) {
			t.Errorf("%x and %x are one route", pair[0], pair[1])
		}
		keys[evpnKey(pair[0])] = true
	}
	keys[evpnKey(wire(3, rd, tag, "\x20\x0a\x00\x00\x01"))] = true
	if len(keys) != 4 {
		t.Errorf("four routes have %d keys", len(keys))
	}
	for _, full := range []string{same[0][0], same[1][0], same[2][0]} {
		for i := range len(full) {
			_ = evpnKey(full[:i]) // cut short: no panic
		}
	}
}

// TestEVPNNextHop has a peer announce an EVPN route without a next hop, with
// attributes that are known already.
func TestEVPNNextHop(t *testing.T) {
	var cache attributeCache
	if u, fault := decodeUpdate(raw(origin, asPath, reach), everything, &cache); fault != nil || u.attributes == nil {
		t.Fatal(fault)
	}
	for _, hop := range []string{"\x00", "\x03abc", "\x04\x00\x00\x00\x00"} {
		evpn := "\x00\x19\x46" + hop + "\x00\x03\x04test"
		u, fault := decodeUpdate(raw(origin, asPath, "\x80\x0e"+string(rune(len(evpn)))+evpn), everything, &cache)
		if fault != nil {
			t.Fatal(fault)
		}
		if u.attributes != nil || len(u.unreach.evpn) != 1 {
			t.Errorf("next hop %x: accepted", hop)
		}
	}
}

// TestExternalLocalPref has an external peer send LOCAL_PREF, sound or not:
// it counts for nothing and goes no further (RFC 4271 §5.1.5, RFC 7606 §7.5).
func TestExternalLocalPref(t *testing.T) {
	internal := *everything
	internal.internal = true
	for _, pref := range []string{"\x40\x05\x04\x00\x00\xff\xff", "\x40\x05\x01a"} {
		u, fault := decodeUpdate(raw(origin, asPath, pref, reach), everything, &attributeCache{})
		if fault != nil || u.malformed != nil || u.attributes.localPref != defaultLocalPref {
			t.Errorf("%x: %v, %+v", pref, fault, u)
		}
	}
	u, fault := decodeUpdate(raw(origin, asPath, "\x40\x05\x04\x00\x00\xff\xff", reach), &internal, &attributeCache{})
	if fault != nil || u.attributes.localPref != 0xffff {
		t.Errorf("an internal peer's: %v, %+v", fault, u)
	}
	u, fault = decodeUpdate(raw(origin, asPath, "\x40\x05\x01a", reach), &internal, &attributeCache{})
	if fault != nil || u.malformed == nil {
		t.Errorf("an internal peer's malformed one: %v, %+v", fault, u)
	}
}

func TestWellKnownCommunities(t *testing.T) {
	tests := []struct {
		community          uint32
		external, internal bool
	}{
		{communityNoAdvertise, false, false},
		{communityNoExport, false, true},
		{communityNoExportSubconfed, false, true},
		{communityGracefulShutdown, true, true},
	}
	for _, tt := range tests {
		e := export{attrs: &attributes{communities: []uint32{tt.community}}, from: &neighbor{}}
		external, internal := told(t, false), told(t, true)
		if external.wants(e, seam.IPv4) != tt.external || internal.wants(e, seam.IPv4) != tt.internal {
			t.Errorf("%08x: external %v, internal %v", tt.community, external.wants(e, seam.IPv4), internal.wants(e, seam.IPv4))
		}
	}
}

func TestCheck(t *testing.T) {
	peer := netip.MustParseAddr("fe80::1%eth0")
	tests := []struct {
		name   string
		change func(*seam.Desired)
		sound  bool
	}{
		{"sound", func(*seam.Desired) {}, true},
		{"no prefix", func(d *seam.Desired) { d.Routes[0] = seam.Route{} }, false},
		{"EVPN NLRI longer than it says", func(d *seam.Desired) {
			d.Routes[0].EVPN = &seam.EVPNRoute{NLRI: "\x03\x01ab", NextHop: d.RouterID}
		}, false},
		{"EVPN route without next hop", func(d *seam.Desired) { d.Routes[0].EVPN = &seam.EVPNRoute{NLRI: "\x03\x01a"} }, false},
		{"restart time beyond its field", func(d *seam.Desired) { d.Restart.Time = 4096 * time.Second }, false},
		{"hold time of 1 s", func(d *seam.Desired) { d.Peers[0].Hold = time.Second }, false},
		{"hold time without keepalives", func(d *seam.Desired) { d.Peers[0].Keepalive = 0 }, false},
		{"no hold time", func(d *seam.Desired) { d.Peers[0].Hold, d.Peers[0].Keepalive = 0, 0 }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := desired(1, peer)
			tt.change(&d)
			if err := check(d); (err == nil) != tt.sound {
				t.Errorf("got %v", err)
			}
		})
	}
}
