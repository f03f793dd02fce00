package dns

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	wire "github.com/miekg/dns"
)

var blue = Segment{Name: "blue", Forwarders: forwarders}

func ask(name string, kind uint16, change ...func(*wire.Msg)) []byte {
	m := new(wire.Msg)
	m.SetQuestion(name, kind)
	m.Id = 4711
	for _, f := range change {
		f(m)
	}
	packet, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return packet
}

func size(n uint16) func(*wire.Msg) { return func(m *wire.Msg) { m.SetEdns0(n, false) } }

func TestAnswer(t *testing.T) {
	o := newOutside(t)
	o.serve("udp", "192.0.2.1", func(query *wire.Msg) []*wire.Msg {
		if query.Question[0].Name != "long.example." {
			return with(says("203.0.113.1"), func(m *wire.Msg) { m.SetEdns0(4096, false); m.AuthenticatedData = true })(query)
		}
		m := new(wire.Msg)
		m.SetReply(query)
		m.Truncated = true
		return []*wire.Msg{m}
	})
	o.serve("tcp", "192.0.2.1", func(query *wire.Msg) []*wire.Msg {
		m := new(wire.Msg)
		m.SetReply(query)
		for i := range 60 {
			m.Answer = append(m.Answer, rr(t, fmt.Sprintf("long.example. 300 IN TXT %q", strings.Repeat("x", 40)+fmt.Sprint(i))))
		}
		return []*wire.Msg{m}
	})
	s := newTestServer(o.dial)
	alone := Segment{Name: "blue"}
	for _, test := range []struct {
		name    string
		segment Segment
		packet  []byte
		stream  bool
		want    string // rcode, flags, records of each section, options
	}{
		{"ours", blue, ask("web.blue.apollo.", wire.TypeA), false, "NOERROR qr aa rd ra 2 0 0"},
		{"ours, with options", blue, ask("web.blue.apollo.", wire.TypeA, size(4096)), false, "NOERROR qr aa rd ra 2 0 1"},
		{"nobody's", blue, ask("no.blue.apollo.", wire.TypeA), false, "NXDOMAIN qr aa rd ra 0 1 0"},
		{"outside", blue, ask("a.example.", wire.TypeA), false, "NOERROR qr rd ra 1 0 0"},
		{"outside, with options", blue, ask("a.example.", wire.TypeA, size(512)), false, "NOERROR qr rd ra 1 0 1"},
		{"outside, no recursion", blue, ask("a.example.", wire.TypeA, func(m *wire.Msg) { m.RecursionDesired = false }), false, "REFUSED qr ra 0 0 0"},
		{"outside, no forwarders", alone, ask("a.example.", wire.TypeA), false, "REFUSED qr rd 0 0 0"},
		{"ours, no forwarders", alone, ask("web.blue.apollo.", wire.TypeA), false, "NOERROR qr aa rd 2 0 0"},
		{"long in a datagram", blue, ask("long.example.", wire.TypeTXT), false, "NOERROR qr tc rd ra 8 0 0"},
		{"long in a large datagram", blue, ask("long.example.", wire.TypeTXT, size(4096)), false, "NOERROR qr tc rd ra 21 0 1"},
		{"long in a stream", blue, ask("long.example.", wire.TypeTXT), true, "NOERROR qr rd ra 60 0 0"},
		{"any", blue, ask("web.blue.apollo.", wire.TypeANY), false, "NOERROR qr rd ra 1 0 0"},
		{"transfer", blue, ask("apollo.", wire.TypeAXFR), true, "REFUSED qr rd ra 0 0 0"},
		{"chaos", blue, ask("version.bind.", wire.TypeTXT, func(m *wire.Msg) { m.Question[0].Qclass = wire.ClassCHAOS }), false, "REFUSED qr rd ra 0 0 0"},
		{"update", blue, ask("apollo.", wire.TypeSOA, func(m *wire.Msg) { m.Opcode = wire.OpcodeUpdate }), false, "NOTIMP qr rd ra 0 0 0"},
		{"no question", blue, ask("apollo.", wire.TypeA, func(m *wire.Msg) { m.Question = nil }), false, "FORMERR qr rd ra 0 0 0"},
		{"two questions", blue, ask("apollo.", wire.TypeA, func(m *wire.Msg) { m.Question = append(m.Question, m.Question[0]) }), false, "FORMERR qr rd ra 0 0 0"},
		{"options twice", blue, ask("apollo.", wire.TypeA, size(512), size(512)), false, "FORMERR qr rd ra 0 0 1"},
		// 16 is BADVERS, too, but the name is taken.
		{"options of tomorrow", blue, ask("apollo.", wire.TypeA, size(512), func(m *wire.Msg) { m.IsEdns0().SetVersion(1) }), false, "BADSIG qr rd ra 0 0 1"},
		{"cut short", blue, ask("web.blue.apollo.", wire.TypeA)[:20], false, "FORMERR qr 0 0 0"},
		{"an answer", blue, ask("a.example.", wire.TypeA, func(m *wire.Msg) { m.Response = true }), false, ""},
		{"half a header", blue, ask("a.example.", wire.TypeA)[:11], false, ""},
		{"nothing", blue, nil, false, ""},
	} {
		reply := s.answer(t.Context(), test.segment, test.packet, test.stream)
		got := ""
		if reply != nil {
			m := new(wire.Msg)
			must(t, m.Unpack(reply))
			got = wire.RcodeToString[m.Rcode]
			for _, flag := range []struct {
				set  bool
				name string
			}{{m.Response, "qr"}, {m.Authoritative, "aa"}, {m.Truncated, "tc"}, {m.RecursionDesired, "rd"}, {m.RecursionAvailable, "ra"}, {m.AuthenticatedData, "ad"}} {
				if flag.set {
					got += " " + flag.name
				}
			}
			got += fmt.Sprintf(" %d %d %d", len(m.Answer), len(m.Ns), len(m.Extra))
			if limit := wire.MinMsgSize; !test.stream && len(m.Extra) == 0 && len(reply) > limit || !test.stream && len(reply) > udpSize {
				t.Errorf("%s: %d octets", test.name, len(reply))
			}
			if m.Id != 4711 {
				t.Errorf("%s: id %d", test.name, m.Id)
			}
		}
		if got != test.want {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
}

func TestAnswerWithoutNameServers(t *testing.T) {
	s := newTestServer(unreachable)
	m := new(wire.Msg)
	must(t, m.Unpack(s.answer(t.Context(), blue, ask("a.example.", wire.TypeA), false)))
	if m.Rcode != wire.RcodeServerFailure {
		t.Errorf("answered %v", m)
	}
}

func FuzzAnswer(f *testing.F) {
	s := newTestServer(unreachable)
	for _, packet := range [][]byte{
		ask("web.blue.apollo.", wire.TypeA), ask("11.0.16.172.in-addr.arpa.", wire.TypePTR, size(4096)),
		ask("a.example.", wire.TypeAAAA, size(1)), ask(".", wire.TypeANY), nil, ask("apollo.", wire.TypeSOA)[:17],
	} {
		f.Add(packet, false)
		f.Add(packet, true)
	}
	f.Fuzz(func(t *testing.T, packet []byte, stream bool) {
		reply := s.answer(t.Context(), blue, packet, stream)
		if reply == nil {
			return
		}
		m := new(wire.Msg)
		if err := m.Unpack(reply); err != nil {
			t.Fatalf("%x is answered with what cannot be read: %v", packet, err)
		}
		if !m.Response || m.Id != uint16(packet[0])<<8|uint16(packet[1]) {
			t.Errorf("%v is no answer", m)
		}
		if limit := udpSize; !stream && len(reply) > limit {
			t.Errorf("a datagram of %d octets", len(reply))
		}
	})
}

// told is a connection to a name server that says the same whatever it is asked,
// with the id of the question.
type told struct {
	net.Conn
	says     [][]byte // what each Read gives
	idBehind int      // octets
}

func (c *told) Write(b []byte) (int, error) {
	for _, m := range c.says {
		if len(m) >= c.idBehind+2 {
			copy(m[c.idBehind:], b[c.idBehind:c.idBehind+2])
		}
	}
	return len(b), nil
}

func (c *told) Read(b []byte) (int, error) {
	if len(c.says) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.says[0])
	if c.says[0] = c.says[0][n:]; len(c.says[0]) == 0 || c.idBehind == 0 { // the rest of a datagram is lost
		c.says = c.says[1:]
	}
	return n, nil
}

func (c *told) SetDeadline(time.Time) error { return nil }
func (c *told) Close() error                { return nil }

// FuzzUpstream has name servers outside say anything: a guest's question is
// answered with something that can be read, in the size that it takes, and what
// is remembered can be told again.
func FuzzUpstream(f *testing.F) {
	query := new(wire.Msg)
	must(f, query.Unpack(ask("a.example.", wire.TypeA)))
	pack := func(m *wire.Msg) []byte {
		packet, err := m.Pack()
		must(f, err)
		return packet
	}
	good := pack(says("203.0.113.1")(query)[0])
	negative := pack(with(fails(wire.RcodeNameError), func(m *wire.Msg) {
		m.Ns = []wire.RR{&wire.SOA{Hdr: header("example.", wire.TypeSOA, 60), Ns: "ns.example.", Mbox: "a.example.", Minttl: 30}}
		m.SetEdns0(udpSize, true)
	})(query)[0])
	truncated := pack(with(fails(wire.RcodeSuccess), func(m *wire.Msg) { m.Truncated = true })(query)[0])
	f.Add(good, good, []byte{})
	f.Add(good[:20], negative, []byte{})
	f.Add(truncated, good, append([]byte{0, byte(len(good))}, good...))
	f.Add(truncated, []byte{}, []byte{0xff, 0xff, 0})
	f.Fuzz(func(t *testing.T, first, second, stream []byte) {
		s := newTestServer(func(_ context.Context, network string, _ netip.AddrPort) (net.Conn, error) {
			if network == "tcp" {
				return &told{says: [][]byte{bytes.Clone(stream)}, idBehind: 2}, nil
			}
			return &told{says: [][]byte{bytes.Clone(first), bytes.Clone(second)}}, nil
		})
		for range 2 {
			reply := s.answer(t.Context(), blue, ask("a.example.", wire.TypeA), false)
			m := new(wire.Msg)
			if err := m.Unpack(reply); err != nil {
				t.Fatalf("what cannot be read: %v", err)
			}
			if len(reply) > wire.MinMsgSize || m.Id != 4711 || !m.Response || m.Authoritative {
				t.Errorf("%d octets: %v", len(reply), m)
			}
		}
		if n := s.pool.cache.order.Len(); n > 1 || len(s.pool.flights) > 0 {
			t.Errorf("%d answers are remembered of one question, %d under way", n, len(s.pool.flights))
		}
	})
}
