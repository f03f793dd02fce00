package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	wire "github.com/miekg/dns"

	"frond/internal/netns"
)

// host is a network namespace. The tests need root for it.
type host struct {
	t    testing.TB
	ns   *netns.NS
	name string
}

var hosts atomic.Int32

func newHost(t testing.TB) *host {
	t.Helper()
	name := fmt.Sprintf("dns-%d-%d", os.Getpid(), hosts.Add(1))
	must(t, netns.Create(name))
	t.Cleanup(func() { must(t, netns.Delete(name)) })
	ns, err := netns.Open(name)
	must(t, err)
	t.Cleanup(func() { must(t, ns.Close()) })
	return &host{t, ns, name}
}

// try runs a command, whether it succeeds or not.
func (h *host) try(command string) (string, error) {
	var out []byte
	err := h.ns.Do(func() (err error) {
		out, err = exec.Command("sh", "-ec", command).CombinedOutput()
		return err
	})
	return string(out), err
}

func (h *host) run(command string) string {
	h.t.Helper()
	out, err := h.try(command)
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return out
}

// digs wants what dig says in short, in one line.
func (h *host) digs(question, want string) {
	h.t.Helper()
	out, err := h.try("dig +timeout=3 +tries=1 +short " + question)
	if got := strings.Join(strings.Fields(out), " "); got != want {
		h.t.Errorf("dig %s: %q (%v), want %q", question, got, err, want)
	}
}

// digsLong wants these texts in all that dig says.
func (h *host) digsLong(question string, want ...string) {
	h.t.Helper()
	out, err := h.try("dig +timeout=3 +tries=1 " + question)
	for _, text := range want {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), text) {
			h.t.Errorf("dig %s (%v): no %q in\n%s", question, err, text, out)
		}
	}
}

// unanswered wants dig to hear nothing.
func (h *host) unanswered(question string) {
	h.t.Helper()
	for _, over := range []string{"+notcp", "+tcp"} {
		if out, err := h.try("dig +timeout=1 +tries=1 " + over + " " + question); err == nil {
			h.t.Errorf("dig %s %s is answered:\n%s", over, question, out)
		}
	}
}

// patience ends a test that has failed; it is no measure of speed.
const patience = 20 * time.Second

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal(what + ": not seen")
		}
	}
}

// world is a node with a guest on its bridge, and somebody on its fabric port
// who is a name server, too.
type world struct {
	t                   *testing.T
	node, guest, beyond *host
	server              *Server
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, node: newHost(t), guest: newHost(t), beyond: newHost(t)}
	w.node.run("ip link add br0 type bridge; sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0 net.ipv4.ip_forward=1; ip link set br0 up")
	w.node.run(fmt.Sprintf("ip link add tap0 type veth peer name eth0 netns %s; ip link set tap0 master br0 up", w.guest.name))
	w.node.run(fmt.Sprintf("ip link add port0 type veth peer name eth0 netns %s; ip link set port0 up; ip addr add 10.9.0.1/24 dev port0", w.beyond.name))
	w.guest.run("sysctl -qw net.ipv6.conf.eth0.accept_dad=0; ip link set eth0 up; ip addr add 172.16.0.11/24 dev eth0; ip addr add fd00:1::11/64 dev eth0; ip route add default via 172.16.0.1")
	w.beyond.run("ip link set eth0 up; ip addr add 10.9.0.2/24 dev eth0; ip route add default via 10.9.0.1")
	w.node.gateway("add")

	w.server = New(slog.New(slog.NewTextHandler(t.Output(), nil)))
	w.server.enter = w.node.ns.Do
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		must(t, <-done)
	})
	return w
}

// gateway adds or deletes the gateway's addresses.
func (h *host) gateway(verb string) {
	h.t.Helper()
	h.run("ip addr " + verb + " 172.16.0.1/24 dev br0; ip addr " + verb + " fd00:1::1/64 dev br0")
}

func (w *world) set(segments ...Segment) {
	d := testDesired
	d.Segments = segments
	w.server.Set(d)
}

// segment is that of the bridge.
func (w *world) segment() Segment {
	w.t.Helper()
	s := Segment{
		Name: "blue", Bridge: "br0", Addresses: addrs("172.16.0.1", "fd00:1::1"),
		Prefixes:   []netip.Prefix{netip.MustParsePrefix("172.16.0.0/24"), netip.MustParsePrefix("fd00:1::/64")},
		Forwarders: addrs("10.9.0.2"),
	}
	_, err := fmt.Sscan(w.node.run("ip -o link show dev br0 | cut -d: -f1"), &s.Index)
	must(w.t, err)
	return s
}

// listening waits until all sockets are open.
func (w *world) listening() {
	w.t.Helper()
	eventually(w.t, "sockets", func() bool {
		out, _ := w.node.try("ss -Hlntu sport = :53 | wc -l")
		return strings.TrimSpace(out) == "4"
	})
}

// outsideServer answers beyond the fabric; its long name needs a stream.
func (w *world) outsideServer() {
	w.t.Helper()
	var udp net.PacketConn
	var tcp net.Listener
	must(w.t, w.beyond.ns.Do(func() (err error) {
		if udp, err = net.ListenPacket("udp", "10.9.0.2:53"); err == nil {
			tcp, err = net.Listen("tcp", "10.9.0.2:53")
		}
		return err
	}))
	long := func(query *wire.Msg) []*wire.Msg {
		m := new(wire.Msg)
		m.SetReply(query)
		for i := range 60 {
			m.Answer = append(m.Answer, rr(w.t, fmt.Sprintf("long.example. 300 IN TXT %q", strings.Repeat("x", 40)+fmt.Sprint(i))))
		}
		return []*wire.Msg{m}
	}
	reply := func(query *wire.Msg) []*wire.Msg {
		switch query.Question[0].Name {
		case "long.example.":
			return with(long, func(m *wire.Msg) { m.Truncate(512) })(query)
		case "no.example.":
			return fails(wire.RcodeNameError)(query)
		}
		return says("203.0.113.1")(query)
	}
	var done sync.WaitGroup
	done.Go(func() { (&upstream{reply: reply}).datagrams(udp) })
	done.Go(func() { (&upstream{reply: long}).streams(tcp) })
	w.t.Cleanup(func() {
		_, _ = udp.Close(), tcp.Close()
		done.Wait()
	})
}

// The real dig is answered as a guest, and nowhere else.
func TestDig(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.outsideServer()
	w.set(w.segment())
	w.listening()
	for _, at := range []string{"@172.16.0.1 ", "@fd00:1::1 ", "+tcp @172.16.0.1 ", "+tcp @fd00:1::1 "} {
		w.guest.digs(at+"web.blue.apollo A", "172.16.0.11 172.16.0.12")
		w.guest.digs(at+"web.blue.apollo AAAA", "fd00:1::11")
		w.guest.digs(at+"db.red.apollo", "172.20.5.1")
		w.guest.digs(at+"-x 172.20.5.1", "db.red.apollo.")
		w.guest.digs(at+"-x fd00:1::6", "only6.blue.apollo.")
		w.guest.digs(at+"www.example", "203.0.113.1")
		w.guest.digsLong(at+"nobody.blue.apollo", "status: NXDOMAIN", "flags: qr aa rd ra", "apollo. 5 IN SOA gateway.blue.apollo.")
		w.guest.digsLong(at+"only6.blue.apollo A", "status: NOERROR", "ANSWER: 0, AUTHORITY: 1")
		w.guest.digsLong(at+"no.example", "status: NXDOMAIN", "flags: qr rd ra")
		w.guest.digsLong(at+"long.example TXT", "ANSWER: 60", "(TCP)")
	}
	w.guest.digsLong("+notcp +ignore +bufsize=1232 @172.16.0.1 long.example TXT", "flags: qr tc rd ra", "udp: 1232")

	w.beyond.unanswered("@172.16.0.1 web.blue.apollo")
	lax := w.segment()
	lax.Prefixes = append(lax.Prefixes, netip.MustParsePrefix("10.9.0.0/24"))
	w.set(lax)
	w.beyond.unanswered("@172.16.0.1 web.blue.apollo") // for it is not on the bridge
	w.set(w.segment())
	w.beyond.run("ping -c 1 -W 2 172.16.0.1") // though there is a way
	w.node.run("ip route add 192.168.9.9 dev br0; sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.br0.rp_filter=0")
	w.guest.run("ip addr add 192.168.9.9/32 dev eth0; ping -c 1 -W 2 -I 192.168.9.9 172.16.0.1")
	w.guest.unanswered("-b 192.168.9.9 @172.16.0.1 web.blue.apollo")
	w.set()
	eventually(t, "no sockets", func() bool { return w.node.run("ss -Hlntu sport = :53") == "" })
}

// Sockets are there before the gateway, and outlive its going and coming.
func TestGatewayComesAndGoes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.node.gateway("del")
	w.set(w.segment())
	w.listening()
	for range 2 {
		w.node.gateway("add")
		w.guest.digs("@172.16.0.1 web.blue.apollo", "172.16.0.11 172.16.0.12")
		w.guest.digs("+tcp @fd00:1::1 web.blue.apollo", "172.16.0.11 172.16.0.12")
		w.node.gateway("del")
		w.guest.unanswered("@172.16.0.1 web.blue.apollo")
	}
	if problems := w.server.Report(); len(problems) != 0 {
		t.Errorf("problems: %+v", problems)
	}

	w.node.run("ip link del br0; ip link add br0 type bridge; ip link set br0 up; ip link set tap0 master br0")
	w.node.gateway("add")
	w.set(w.segment())
	eventually(t, "answers on another bridge of the same name", func() bool {
		_, err := w.guest.try("dig +timeout=1 +tries=1 @172.16.0.1 web.blue.apollo")
		return err == nil
	})
}

// Another name server on the address is named, and no longer when it is gone.
func TestAddressInUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var other net.PacketConn
	must(t, w.node.ns.Do(func() (err error) {
		other, err = net.ListenPacket("udp4", "0.0.0.0:53")
		return err
	}))
	w.set(w.segment())
	eventually(t, "a problem", func() bool { return len(w.server.Report()) == 1 })
	if p := w.server.Report()[0]; p.Segment != "blue" || p.Dead || !strings.Contains(p.Text, "address already in use: another name server listens there; keep it off") {
		t.Errorf("the problem is %+v", p)
	}
	w.guest.digs("@fd00:1::1 web.blue.apollo", "172.16.0.11 172.16.0.12")
	must(t, other.Close())
	eventually(t, "no problem", func() bool { return len(w.server.Report()) == 0 })
	w.guest.digs("@172.16.0.1 web.blue.apollo", "172.16.0.11 172.16.0.12")
}

// When all name servers are dead, guests still have the fabric's names.
func TestForwardersDead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set(w.segment())
	w.listening()
	for range 2 {
		w.guest.digsLong("@172.16.0.1 www.example", "status: SERVFAIL")
	}
	problems := w.server.Report()
	if len(problems) != 1 || !problems[0].Dead || problems[0].Text != "none of the segment's name servers answers: [10.9.0.2]" {
		t.Errorf("problems: %+v", problems)
	}
	w.guest.digs("@172.16.0.1 db.red.apollo", "172.20.5.1")
	w.outsideServer()
	w.guest.digs("@172.16.0.1 www.example", "203.0.113.1")
	if problems := w.server.Report(); len(problems) != 0 {
		t.Errorf("problems: %+v", problems)
	}
}

// More connections than one guest may have are turned away, and idle ones
// keep nobody from datagrams.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.set(w.segment())
	w.listening()
	open := 0
	for range maxStreamsOfOne + 20 {
		var conn net.Conn
		must(t, w.guest.ns.Do(func() (err error) {
			conn, err = net.Dial("tcp", "172.16.0.1:53")
			return err
		}))
		defer func() { _ = conn.Close() }()
		must(t, conn.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		if _, err := conn.Read(make([]byte, 1)); os.IsTimeout(err) {
			open++
		}
	}
	if open != maxStreamsOfOne {
		t.Errorf("%d connections are kept", open)
	}
	w.guest.digs("@172.16.0.1 db.red.apollo", "172.20.5.1")
}
