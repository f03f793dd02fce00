package advertise

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/ndp"
	"go.uber.org/goleak"

	"frond/internal/dataplane"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var blue = Segment{
	VNI: 100, Router: netip.MustParseAddr("fe80::68:ff:fe00:64"), MAC: dataplane.MAC{2, 0x68, 0, 0, 0, 100},
	Prefix: netip.MustParsePrefix("fd00:172:16::/64"), MTU: 8950,
	DNS: []netip.Addr{netip.MustParseAddr("2001:db8::53")}, Search: []string{"blue.apollo"},
}

// TestAdvertisement has another implementation's parser read what is sent.
func TestAdvertisement(t *testing.T) {
	for name, test := range map[string]struct {
		change    func(*Segment)
		former    []netip.Prefix
		last      bool
		lifetime  time.Duration
		automatic bool
	}{
		"usual":           {func(*Segment) {}, nil, false, 30 * time.Minute, true},
		"the last one":    {func(*Segment) {}, nil, true, 0, true},
		"a longer prefix": {func(s *Segment) { s.Prefix = netip.MustParsePrefix("fd00:172:16::/80") }, nil, false, 30 * time.Minute, false},
		"managed":         {func(s *Segment) { s.Managed = true }, nil, false, 30 * time.Minute, false},
		"another prefix":  {func(*Segment) {}, []netip.Prefix{netip.MustParsePrefix("fd00:172:15::/64")}, false, 30 * time.Minute, true},
	} {
		s := blue
		test.change(&s)
		frame, err := s.advertisement(test.former, test.last)
		if err != nil {
			t.Fatal(err)
		}
		if got := netip.AddrFrom16([16]byte(frame[22:38])); got != s.Router || frame[21] != 255 || dataplane.MAC(frame[6:12]) != s.MAC {
			t.Errorf("%s: from %s, hop limit %d, MAC %s", name, got, frame[21], dataplane.MAC(frame[6:12]))
		}
		parsed, err := ndp.ParseMessage(frame[54:])
		if err != nil {
			t.Fatal(err)
		}
		ra, ok := parsed.(*ndp.RouterAdvertisement)
		if !ok || ra.RouterLifetime != test.lifetime || len(ra.Options) != 5+len(test.former) ||
			ra.ManagedConfiguration != s.Managed || !ra.OtherConfiguration {
			t.Fatalf("%s: %+v", name, parsed)
		}
		prefix, ok := ra.Options[2].(*ndp.PrefixInformation)
		if !ok || prefix.Prefix != s.Prefix.Addr() || int(prefix.PrefixLength) != s.Prefix.Bits() || !prefix.OnLink || prefix.AutonomousAddressConfiguration != test.automatic {
			t.Errorf("%s: prefix %+v", name, ra.Options[2])
		}
		for i, p := range test.former {
			option, ok := ra.Options[3+i].(*ndp.PrefixInformation)
			if !ok || option.Prefix != p.Addr() || option.ValidLifetime != 0 || option.PreferredLifetime != 0 || !option.AutonomousAddressConfiguration {
				t.Errorf("%s: former prefix %+v", name, ra.Options[3+i])
			}
		}
		if mtu, ok := ra.Options[1].(*ndp.MTU); !ok || mtu.MTU != 8950 {
			t.Errorf("%s: MTU %+v", name, ra.Options[1])
		}
		if dns, ok := ra.Options[3+len(test.former)].(*ndp.RecursiveDNSServer); !ok || dns.Lifetime != test.lifetime || !cmp.Equal(dns.Servers, s.DNS, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })) {
			t.Errorf("%s: DNS %+v", name, ra.Options[3+len(test.former)])
		}
	}
}

func TestFormerPrefixes(t *testing.T) {
	now := time.Unix(1_000_000_000, 0)
	s := schedule{
		turns: make(map[uint32]*turn), answered: make(map[dataplane.LocalPort]time.Time),
		between: func(_, most time.Duration) time.Duration { return most },
	}
	prefix := func(i int) netip.Prefix { return netip.MustParsePrefix(fmt.Sprintf("fd00:%d::/64", i)) }
	with := func(i int) []action {
		changed := blue
		changed.Prefix = prefix(i)
		return s.set([]Segment{changed}, now)
	}
	want := func(when string, got []action, former ...netip.Prefix) {
		t.Helper()
		if len(got) != 1 || !slices.Equal(got[0].former, former) {
			t.Errorf("%s: said is %+v, want the former prefixes %v", when, got, former)
		}
	}
	want("the first", with(1))
	want("the second", with(2), prefix(1))
	want("asked", s.asked(solicit("tap1"), now), prefix(1))
	want("the first again", with(1), prefix(2))
	for i := 3; i < 10; i++ {
		with(i)
	}
	want("many", with(10), prefix(6), prefix(7), prefix(8), prefix(9))
}

func solicit(port string) dataplane.GuestFrame {
	frame := make([]byte, 62)
	frame[12], frame[13] = 0x86, 0xdd
	frame[20], frame[21], frame[54] = 58, 255, 133
	return dataplane.GuestFrame{Port: dataplane.LocalPort{VNI: 100, Port: port}, Data: frame}
}

func TestSchedule(t *testing.T) {
	now := time.Unix(1_000_000_000, 0)
	s := schedule{
		turns: make(map[uint32]*turn), answered: make(map[dataplane.LocalPort]time.Time),
		between: func(_, most time.Duration) time.Duration { return most },
	}
	count := func(when string, got []action, want int) {
		t.Helper()
		if len(got) != want {
			t.Errorf("%s: %d advertisements, want %d", when, len(got), want)
		}
	}
	count("new", s.set([]Segment{blue}, now), 1)
	count("the same", s.set([]Segment{blue}, now), 0)
	for _, pause := range []time.Duration{initialPause, initialPause, longestPause, longestPause} {
		if at := s.next(); !at.Equal(now.Add(pause)) {
			t.Errorf("next after %s, want %s", at.Sub(now), pause)
		}
		count("early", s.due(now.Add(pause-1)), 0)
		now = now.Add(pause)
		count("due", s.due(now), 1)
	}

	count("asked", s.asked(solicit("tap1"), now), 1)
	count("asked again", s.asked(solicit("tap1"), now.Add(answerPause-1)), 0)
	count("by another port", s.asked(solicit("tap2"), now), 1)
	count("asked later", s.asked(solicit("tap1"), now.Add(answerPause)), 1)
	routed := solicit("tap3")
	routed.Data[21] = 64
	count("from afar", s.asked(routed, now), 0)
	count("cut short", s.asked(dataplane.GuestFrame{Port: dataplane.LocalPort{VNI: 100, Port: "tap3"}, Data: solicit("tap3").Data[:60]}, now), 0)
	other := solicit("tap3")
	other.Port.VNI = 200
	count("on another segment", s.asked(other, now), 0)

	changed := blue
	changed.MTU = 1450
	count("changed", s.set([]Segment{changed}, now), 1)
	everywhere := blue
	everywhere.Everywhere = true
	count("elected", s.set([]Segment{everywhere}, now), 1)
	if at := s.next(); !at.Equal(now.Add(everywherePause)) {
		t.Errorf("to everybody again after %s", at.Sub(now))
	}
	gone := s.set(nil, now)
	if len(gone) != 1 || !gone[0].last {
		t.Errorf("at the end: %+v", gone)
	}
	if !s.next().IsZero() {
		t.Error("there is more to come of nothing")
	}
}

// wire notes what is sent.
type wire struct {
	asked   chan dataplane.GuestFrame
	sent    chan dataplane.LocalPort
	flooded chan uint32
}

func (w wire) Solicitations() <-chan dataplane.GuestFrame { return w.asked }
func (w wire) Send(port dataplane.LocalPort, _ []byte)    { w.sent <- port }

func (w wire) Flood(vni uint32, _ []byte) { w.flooded <- vni }

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		w := wire{make(chan dataplane.GuestFrame), make(chan dataplane.LocalPort, 16), make(chan uint32, 16)}
		a := New(w, slog.New(slog.DiscardHandler))
		done := make(chan error)
		go func() { done <- a.Run(ctx) }()
		a.SetSegments([]Segment{blue})
		if got := <-w.sent; got != (dataplane.LocalPort{VNI: 100}) {
			t.Errorf("sent by %+v, want by all ports", got)
		}
		w.asked <- solicit("tap1")
		if got := <-w.sent; got != (dataplane.LocalPort{VNI: 100, Port: "tap1"}) {
			t.Errorf("answered by %+v", got)
		}
		time.Sleep(initialPause)
		<-w.sent
		everywhere := blue
		everywhere.Everywhere = true
		a.SetSegments([]Segment{everywhere})
		if got := <-w.flooded; got != 100 {
			t.Errorf("flooded VNI %d", got)
		}
		if err := a.Withdraw(ctx); err != nil || len(w.flooded) != 1 {
			t.Errorf("told of the end by %d advertisements, want 1: %v", len(w.flooded), err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := a.Withdraw(t.Context()); err != nil {
			t.Error("after the end:", err)
		}
	})
}

// FuzzSolicitation has a guest ask anything: what it is answered with is one
// advertisement, and can be read.
func FuzzSolicitation(f *testing.F) {
	f.Add(solicit("tap1").Data)
	f.Add(append(solicit("tap1").Data, 1, 1, 2, 0, 0, 0, 0, 1))
	f.Add(solicit("tap1").Data[:60])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, frame []byte) {
		s := schedule{turns: make(map[uint32]*turn), answered: make(map[dataplane.LocalPort]time.Time), between: between}
		s.set([]Segment{blue}, time.Unix(0, 0))
		asked := dataplane.GuestFrame{Port: dataplane.LocalPort{VNI: blue.VNI, Port: "tap1"}, Data: frame}
		answers := append(s.asked(asked, time.Unix(9, 0)), s.asked(asked, time.Unix(9, 1))...)
		if len(answers) > 1 || len(answers) == 1 && len(frame) < offsetMessage+8 {
			t.Errorf("%x is answered %d times", frame, len(answers))
		}
		for _, act := range answers {
			reply, err := act.segment.advertisement(act.former, act.last)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := ndp.ParseMessage(reply[offsetMessage:]); err != nil {
				t.Error(err)
			}
		}
	})
}
