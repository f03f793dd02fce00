package bfd

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// cable is a wire that ends in another engine's arrivals, both ports being p0.
type cable struct {
	self   netip.Addr
	far    chan<- arrival
	muted  bool  // of the engine's goroutine: set it with do
	broken error // likewise
	sent   int
}

func (c *cable) Send(_ endpoint, b []byte) error {
	c.sent++
	if c.broken != nil {
		return c.broken
	}
	p, err := parsePacket(b)
	if err != nil {
		return err
	}
	if !c.muted {
		c.far <- arrival{endpoint{"p0", c.self}, p}
	}
	return nil
}

func (c *cable) Forget(endpoint) {}

// side is one engine with its end of the cable and what it has told.
type side struct {
	*engine
	cable    *cable
	arrivals chan arrival
	told     []State // newest last
	log      bytes.Buffer
}

func (s *side) last() State {
	if len(s.told) == 0 {
		return State{}
	}
	return s.told[len(s.told)-1]
}

func (s *side) states() []string {
	var names []string
	for _, st := range s.told {
		names = append(names, st.State)
	}
	return slices.Compact(names)
}

// must runs f in the engine.
func (s *side) must(t *testing.T, f func()) {
	t.Helper()
	if err := s.do(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// pair runs two engines with a cable between them in virtual time.
func pair(t *testing.T, test func(t *testing.T, a, b *side, stopB func())) {
	synctest.Test(t, func(t *testing.T) {
		toA, toB := make(chan arrival, 64), make(chan arrival, 64)
		a := newSide(&cable{self: peerA, far: toB}, toA)
		b := newSide(&cable{self: peerB, far: toA}, toB)
		stopA, stopB := runSide(a), runSide(b)
		test(t, a, b, stopB)
		stopA()
		stopB()
	})
}

func newSide(c *cable, arrivals chan arrival) *side {
	s := &side{cable: c, arrivals: arrivals}
	s.engine = newEngine(c, arrivals, func(st State) { s.told = append(s.told, st) },
		slog.New(slog.NewTextHandler(&s.log, nil)))
	return s
}

func runSide(s *side) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.run(ctx) }()
	return func() { cancel(); <-done }
}

func (s *side) watch(t *testing.T, asked ...Session) {
	t.Helper()
	s.must(t, func() {
		if err := s.set(asked); err != nil {
			t.Error(err)
		}
	})
}

// pass lets virtual time go by.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestEnginesComeUpInMilliseconds(t *testing.T) {
	pair(t, func(t *testing.T, a, b *side, _ func()) {
		a.watch(t, ask(peerB))
		pass(400 * ms)
		if got := a.last().State; got != "unanswered" {
			t.Fatalf("state %q before there is a peer", got)
		}
		b.watch(t, ask(peerA))
		pass(5 * ms)
		if a.last().State != "up" || b.last().State != "up" {
			t.Fatalf("a %+v, b %+v: want up", a.last(), b.last())
		}
		if !a.last().EverUp || !a.last().RemoteIndependent {
			t.Errorf("got %+v, want the C bit", a.last())
		}
	})
}

func TestEngineDetectsSilence(t *testing.T) {
	pair(t, func(t *testing.T, a, b *side, _ func()) {
		a.watch(t, ask(peerB))
		b.watch(t, ask(peerA))
		pass(time.Minute)
		b.must(t, func() { b.cable.muted = true })
		pass(301 * ms)
		if got := a.last(); got.State != "down" || got.Diagnostic != "control detection time expired" {
			t.Errorf("a %+v", got)
		}
		if got := b.last(); got.State != "down" || !strings.Contains(got.Diagnostic, "does not hear us") {
			t.Errorf("b %+v, want to be told by a, whose packets pass", got)
		}
		b.must(t, func() { b.cable.muted = false })
		pass(1100 * ms)
		if got := a.last(); got.State != "up" || got.Flaps != 1 {
			t.Errorf("a %+v, want up again", got)
		}
	})
}

func TestEngineEndsWithoutHarm(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, b *side, stop func()){
		"process stopped": func(_ *testing.T, _ *side, stop func()) { stop() },
		"session removed": func(t *testing.T, b *side, _ func()) { b.watch(t) },
	} {
		t.Run(name, func(t *testing.T) {
			pair(t, func(t *testing.T, a, b *side, stop func()) {
				a.watch(t, ask(peerB))
				b.watch(t, ask(peerA))
				pass(time.Second)
				end(t, b, stop)
				pass(10 * time.Second)
				want := []string{"unanswered", "init", "up", "admin-down"}
				got := a.states()
				if len(got) == 3 { // a heard b's init first
					want = []string{"unanswered", "up", "admin-down"}
				}
				if !slices.Equal(got, want) {
					t.Errorf("a went through %v, want %v", got, want)
				}
			})
		})
	}
}

func TestEngineSetIsIdempotent(t *testing.T) {
	pair(t, func(t *testing.T, a, b *side, _ func()) {
		a.watch(t, ask(peerB))
		b.watch(t, ask(peerA))
		pass(time.Second)
		told := len(a.told)
		for range 100 {
			a.watch(t, ask(peerB))
		}
		pass(time.Second)
		if len(a.told) != told || a.last().State != "up" {
			t.Errorf("told %d more states", len(a.told)-told)
		}
	})
}

func TestEngineRefusesNonsense(t *testing.T) {
	change := func(f func(*Session)) Session { s := ask(peerB); f(&s); return s }
	tests := map[string]Session{
		"no port":          change(func(s *Session) { s.Port = "" }),
		"long port":        change(func(s *Session) { s.Port = "sixteen-letters-" }),
		"no peer":          change(func(s *Session) { s.Peer = netip.Addr{} }),
		"global peer":      change(func(s *Session) { s.Peer = netip.MustParseAddr("2001:db8::1") }),
		"zoned peer":       change(func(s *Session) { s.Peer = netip.MustParseAddr("fe80::1%p0") }),
		"IPv4 peer":        change(func(s *Session) { s.Peer = netip.MustParseAddr("169.254.0.1") }),
		"interval 0":       change(func(s *Session) { s.Interval = 0 }),
		"interval too big": change(func(s *Session) { s.Interval = time.Hour }),
		"multiplier 0":     change(func(s *Session) { s.Multiplier = 0 }),
		"multiplier 256":   change(func(s *Session) { s.Multiplier = 256 }),
	}
	for name, bad := range tests {
		t.Run(name, func(t *testing.T) {
			pair(t, func(t *testing.T, a, _ *side, _ func()) {
				good := ask(netip.MustParseAddr("fe80::c"))
				a.must(t, func() {
					if err := a.set([]Session{bad, good}); err == nil {
						t.Error("no error")
					}
					if len(a.sessions) != 1 || a.sessions[good.endpoint()] == nil {
						t.Errorf("sessions %v, want the good one alone", a.sessions)
					}
				})
			})
		})
	}
	t.Run("too many", func(t *testing.T) {
		pair(t, func(t *testing.T, a, _ *side, _ func()) {
			var many []Session
			for i := range maxSessions + 1 {
				s := ask(peerB)
				s.Port = "p" + string(rune('a'+i%26)) + string(rune('a'+i/26))
				many = append(many, s)
			}
			a.must(t, func() {
				if err := a.set(many); err == nil || len(a.sessions) != maxSessions {
					t.Errorf("%d sessions, error %v", len(a.sessions), err)
				}
			})
		})
	})
}

// Valid packets that belong to nobody change nothing, and are counted.
func TestEngineCountsStrays(t *testing.T) {
	pair(t, func(t *testing.T, a, b *side, _ func()) {
		a.watch(t, ask(peerB))
		b.watch(t, ask(peerA))
		pass(time.Second)
		told := len(a.told)
		stranger, otherPort, oldSession := heard(down), heard(down), heard(down)
		stranger.yours, otherPort.yours, oldSession.yours = 0, 0, 12345
		for range 1000 {
			a.arrivals <- arrival{endpoint{"p0", netip.MustParseAddr("fe80::bad")}, stranger}
			a.arrivals <- arrival{endpoint{"p1", peerB}, otherPort}
			a.arrivals <- arrival{endpoint{"p0", peerB}, oldSession}
		}
		pass(time.Second)
		if got := a.strays.Load(); got != 3000 {
			t.Errorf("%d strays counted, want 3000", got)
		}
		if len(a.told) != told {
			t.Errorf("strays moved the session to %+v", a.last())
		}
	})
}

func TestEngineOutlivesBrokenCable(t *testing.T) {
	pair(t, func(t *testing.T, a, b *side, _ func()) {
		a.cable.broken = errors.New("no such device")
		a.watch(t, ask(peerB))
		b.watch(t, ask(peerA))
		pass(time.Hour)
		var sent int
		a.must(t, func() { sent = a.cable.sent })
		if limit := int(time.Hour / retryInterval); sent > limit+1 {
			t.Errorf("%d attempts in an hour, want at most %d", sent, limit)
		}
		if lines := strings.Count(a.log.String(), "\n"); lines > 5 {
			t.Errorf("%d log lines about one broken cable", lines)
		}
		a.must(t, func() { a.cable.broken = nil })
		pass(2 * retryInterval)
		if a.last().State != "up" {
			t.Errorf("a %+v, want up once the cable is whole", a.last())
		}
	})
}

func TestEngineLogsFlappingOnce(t *testing.T) {
	pair(t, func(t *testing.T, a, b *side, _ func()) {
		a.watch(t, ask(peerB))
		for i := range 1000 {
			b.watch(t, ask(peerA))
			pass(10 * ms)
			b.watch(t)
			pass(time.Duration(i%7) * ms)
		}
		if lines := strings.Count(a.log.String(), "\n"); lines > 40 {
			t.Errorf("%d log lines in 13 s", lines)
		}
	})
}
