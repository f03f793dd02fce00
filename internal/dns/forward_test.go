package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	wire "github.com/miekg/dns"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// outside are name servers on loopback that stand for some outside.
type outside struct {
	t       testing.TB
	mu      sync.Mutex
	servers map[string]*upstream // by network and address
}

// upstream answers questions as a test says: each message with all of these.
type upstream struct {
	at    string
	asked atomic.Int32
	reply func(*wire.Msg) []*wire.Msg
}

func newOutside(t testing.TB) *outside {
	return &outside{t: t, servers: make(map[string]*upstream)}
}

func (o *outside) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	o.mu.Lock()
	u := o.servers[network+to.Addr().String()]
	o.mu.Unlock()
	if u == nil {
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	return new(net.Dialer).DialContext(ctx, network, u.at)
}

// serve has an address answered over one network, in the place of who did.
func (o *outside) serve(network, address string, reply func(*wire.Msg) []*wire.Msg) *upstream {
	o.t.Helper()
	u := &upstream{reply: reply}
	var done sync.WaitGroup
	var end func() error
	if network == "udp" {
		conn, err := net.ListenPacket("udp", "127.0.0.1:0")
		must(o.t, err)
		u.at, end = conn.LocalAddr().String(), conn.Close
		done.Go(func() { u.datagrams(conn) })
	} else {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(o.t, err)
		u.at, end = l.Addr().String(), l.Close
		done.Go(func() { u.streams(l) })
	}
	o.t.Cleanup(func() {
		must(o.t, end())
		done.Wait()
	})
	o.mu.Lock()
	o.servers[network+address] = u
	o.mu.Unlock()
	return u
}

func (u *upstream) datagrams(conn net.PacketConn) {
	buf := make([]byte, wire.MaxMsgSize)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		query := new(wire.Msg)
		if query.Unpack(buf[:n]) != nil {
			continue
		}
		u.asked.Add(1)
		for _, m := range u.reply(query) {
			if packet, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(packet, from)
			}
		}
	}
}

func (u *upstream) streams(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if packet, err := readStream(conn); err == nil {
			query := new(wire.Msg)
			if query.Unpack(packet) == nil {
				u.asked.Add(1)
				for _, m := range u.reply(query) {
					if packet, err := m.Pack(); err == nil {
						_ = writeStream(conn, packet)
					}
				}
			}
		}
		_ = conn.Close()
	}
}

func silent(*wire.Msg) []*wire.Msg { return nil }

// says answers with one address.
func says(address string) func(*wire.Msg) []*wire.Msg {
	return func(query *wire.Msg) []*wire.Msg {
		m := new(wire.Msg)
		m.SetReply(query)
		m.Answer = []wire.RR{&wire.A{Hdr: header(query.Question[0].Name, wire.TypeA, 300), A: net.ParseIP(address)}}
		return []*wire.Msg{m}
	}
}

// fails answers with a code alone.
func fails(rcode int) func(*wire.Msg) []*wire.Msg {
	return func(query *wire.Msg) []*wire.Msg {
		m := new(wire.Msg)
		m.SetRcode(query, rcode)
		return []*wire.Msg{m}
	}
}

// with changes what a name server says.
func with(reply func(*wire.Msg) []*wire.Msg, change func(*wire.Msg)) func(*wire.Msg) []*wire.Msg {
	return func(query *wire.Msg) []*wire.Msg {
		all := reply(query)
		for _, m := range all {
			change(m)
		}
		return all
	}
}

// both answers with what one says, and then with what the other does.
func both(a, b func(*wire.Msg) []*wire.Msg) func(*wire.Msg) []*wire.Msg {
	return func(query *wire.Msg) []*wire.Msg { return append(a(query), b(query)...) }
}

var (
	forwarders = addrs("192.0.2.1", "192.0.2.2")
	question   = wire.Question{Name: "a.example.", Qtype: wire.TypeA, Qclass: wire.ClassINET}
)

// ip is the address in an answer, or why there is none.
func ip(m *wire.Msg, err error) string {
	switch {
	case err != nil:
		return "error"
	case len(m.Answer) == 0:
		return wire.RcodeToString[m.Rcode]
	}
	return m.Answer[0].(*wire.A).A.String()
}

func TestResolve(t *testing.T) {
	const forged = "203.0.113.66"
	type replies = func(*wire.Msg) []*wire.Msg
	good, good2 := says("203.0.113.1"), says("203.0.113.2")
	for _, test := range []struct {
		name             string
		first, second    replies // nil: nobody is there
		stream           replies // of the first
		want             string
		asked1, asked2   int32
		askedInOneStream int32
	}{
		{"the first answers", good, good2, nil, "203.0.113.1", 1, 0, 0},
		{"the first is not there", nil, good2, nil, "203.0.113.2", 0, 1, 0},
		{"the first is silent", silent, good2, nil, "203.0.113.2", 1, 1, 0},
		{"the first fails", fails(wire.RcodeServerFailure), good2, nil, "203.0.113.2", 1, 1, 0},
		{"the first refuses, the second is not there", fails(wire.RcodeRefused), nil, nil, "REFUSED", 1, 0, 0},
		{"no name is an answer", fails(wire.RcodeNameError), good2, nil, "NXDOMAIN", 1, 0, 0},
		{"nobody is there", nil, nil, nil, "error", 0, 0, 0},
		{"truncated", with(fails(wire.RcodeSuccess), func(m *wire.Msg) { m.Truncated = true }), good2, good, "203.0.113.1", 1, 0, 1},
		{"truncated, and no stream", with(fails(wire.RcodeSuccess), func(m *wire.Msg) { m.Truncated = true }), good2, nil, "203.0.113.2", 1, 1, 0},
		{"another id comes first", both(with(says(forged), func(m *wire.Msg) { m.Id++ }), good), good2, nil, "203.0.113.1", 1, 0, 0},
		{"another name comes first", both(with(says(forged), func(m *wire.Msg) { m.Question[0].Name = "b.example." }), good), good2, nil, "203.0.113.1", 1, 0, 0},
		{"another type comes first", both(with(says(forged), func(m *wire.Msg) { m.Question[0].Qtype = wire.TypeAAAA }), good), good2, nil, "203.0.113.1", 1, 0, 0},
		{"no question comes first", both(with(says(forged), func(m *wire.Msg) { m.Question = nil }), good), good2, nil, "203.0.113.1", 1, 0, 0},
		{"a question comes first", both(with(says(forged), func(m *wire.Msg) { m.Response = false }), good), good2, nil, "203.0.113.1", 1, 0, 0},
		{"without EDNS", func(query *wire.Msg) []*wire.Msg {
			if query.IsEdns0() != nil {
				return fails(wire.RcodeFormatError)(query)
			}
			return good(query)
		}, good2, nil, "203.0.113.1", 2, 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := newOutside(t)
			asked := func(network, address string, r replies) func() int32 {
				if r == nil {
					return func() int32 { return 0 }
				}
				return o.serve(network, address, r).asked.Load
			}
			one, two, stream := asked("udp", "192.0.2.1", test.first), asked("udp", "192.0.2.2", test.second), asked("tcp", "192.0.2.1", test.stream)
			p := newPool(o.dial)
			if got := ip(p.resolve(t.Context(), forwarders, question, false, false)); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
			if one() != test.asked1 || two() != test.asked2 || stream() != test.askedInOneStream {
				t.Errorf("asked %d, %d and in a stream %d times", one(), two(), stream())
			}
		})
	}
}

// Whoever does not answer is asked last for a while, and tried again then.
func TestOrderOfNameServers(t *testing.T) {
	now := time.Unix(1_000_000_000, 0)
	p := newPool(nil)
	want := func(when string, want ...string) {
		t.Helper()
		if got := p.order(forwarders, now); fmt.Sprint(got) != fmt.Sprint(addrs(want...)) {
			t.Errorf("%s: %v", when, got)
		}
	}
	want("at first", "192.0.2.1", "192.0.2.2")
	p.note(forwarders[0], errNoAnswer, now)
	want("the first does not answer", "192.0.2.2", "192.0.2.1")
	now = now.Add(restTime)
	want("the first one who asks then", "192.0.2.1", "192.0.2.2")
	want("others meanwhile", "192.0.2.2", "192.0.2.1")
	p.note(forwarders[0], nil, now)
	want("it answers", "192.0.2.1", "192.0.2.2")
}

func TestDead(t *testing.T) {
	start := time.Unix(1_000_000_000, 0)
	p := newPool(nil)
	state := func(when string, at time.Time, want bool) {
		t.Helper()
		if since, dead := p.dead(forwarders, at); dead != want || dead && !since.Equal(start.Add(time.Second)) {
			t.Errorf("%s: dead %v since %v", when, dead, since)
		}
	}
	state("at first", start, false)
	for range 2 {
		p.note(forwarders[0], errNoAnswer, start)
	}
	state("one", start, false)
	p.note(forwarders[1], errNoAnswer, start.Add(time.Second))
	state("a packet of the other was lost", start.Add(time.Second), false)
	p.note(forwarders[1], errNoAnswer, start.Add(2*time.Second))
	state("both", start.Add(2*time.Second), true)
	state("nobody has asked for long", start.Add(2*time.Minute), false)
	p.note(forwarders[0], nil, start.Add(3*time.Second))
	state("one is back", start.Add(3*time.Second), false)
	if _, dead := p.dead(nil, start); dead {
		t.Error("none at all is dead")
	}
}

// Many who ask the same at once are one question outside, and then none.
func TestOneQuestionForMany(t *testing.T) {
	o := newOutside(t)
	release := make(chan struct{})
	u := o.serve("udp", "192.0.2.1", func(query *wire.Msg) []*wire.Msg {
		<-release
		return says("203.0.113.1")(query)
	})
	p := newPool(o.dial)
	var group sync.WaitGroup
	ask := func(name string) {
		q := question
		q.Name = name
		if got := ip(p.resolve(t.Context(), forwarders[:1], q, false, false)); got != "203.0.113.1" {
			t.Errorf("got %s", got)
		}
	}
	for range 50 {
		group.Go(func() { ask("a.example.") })
	}
	for u.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	group.Wait()
	ask("A.Example.")
	if n := u.asked.Load(); n > 2 { // one may begin after the first has ended and before it is remembered
		t.Errorf("asked %d times", n)
	}
}

func TestResolveEndsWithItsContext(t *testing.T) {
	o := newOutside(t)
	u := o.serve("udp", "192.0.2.1", silent)
	p := newPool(o.dial)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for u.asked.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if _, err := p.resolve(ctx, forwarders[:1], question, false, false); err == nil {
		t.Error("answered by nobody")
	}
	if h := p.servers[forwarders[0]]; h != nil {
		t.Errorf("whose question was given up has failed: %+v", h)
	}
}

// Who asked first goes away, as when his segment does; others who ask the same
// are answered all the same.
func TestFirstAskerGoes(t *testing.T) {
	o := newOutside(t)
	release := make(chan struct{})
	u := o.serve("udp", "192.0.2.1", func(query *wire.Msg) []*wire.Msg {
		<-release
		return says("203.0.113.1")(query)
	})
	p := newPool(o.dial)
	ctx, goes := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() {
		if _, err := p.resolve(ctx, forwarders[:1], question, false, false); !errors.Is(err, context.Canceled) {
			t.Errorf("who went away is told %v", err)
		}
	})
	for u.asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	for range 5 {
		group.Go(func() {
			if got := ip(p.resolve(t.Context(), forwarders[:1], question, false, false)); got != "203.0.113.1" {
				t.Errorf("got %s", got)
			}
		})
	}
	for waiting := 0; waiting < 6; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		for _, f := range p.flights {
			waiting = f.askers
		}
		p.mu.Unlock()
	}
	goes()
	time.Sleep(10 * time.Millisecond) // a wrong answer has time to come
	close(release)
	group.Wait()
	if n := u.asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if len(p.flights) != 0 {
		t.Errorf("left under way: %v", p.flights)
	}
}

func newTestServer(dial func(context.Context, string, netip.AddrPort) (net.Conn, error)) *Server {
	s := New(slog.New(slog.DiscardHandler))
	s.pool.dial = dial
	s.zone.Store(newZone(testDesired, s.named))
	return s
}

var errUnreachable = errors.New("unreachable")

func unreachable(context.Context, string, netip.AddrPort) (net.Conn, error) {
	return nil, errUnreachable
}
