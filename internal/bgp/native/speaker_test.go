package native

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	seam "frond/internal/bgp"
	"frond/internal/netns"
)

// desired is a speaker numbered n with these peers: AS 65000+n, loopback
// 10.0.0.n/32 and fd00::n/128.
func desired(n int, peers ...netip.Addr) seam.Desired {
	d := seam.Desired{
		ASN:      uint32(4200000000 + n),
		RouterID: netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}),
		Hostname: fmt.Sprintf("node%d", n),
		Routes: []seam.Route{
			{Prefix: netip.MustParsePrefix(fmt.Sprintf("10.0.0.%d/32", n))},
			{Prefix: netip.MustParsePrefix(fmt.Sprintf("fd00::%d/128", n))},
		},
		Restart: seam.GracefulRestart{Time: 30 * time.Second},
	}
	for _, p := range peers {
		d.Peers = append(d.Peers, seam.Peer{Addr: p, Hold: 9 * time.Second, Keepalive: 3 * time.Second})
	}
	return d
}

func pair(t *testing.T) (a, b *netns.NS, ofB, ofA netip.Addr) {
	t.Helper()
	t.Parallel()
	a, b = namespace(t, t.Name()+"-a"), namespace(t, t.Name()+"-b")
	ofB, ofA = cable(t, a, b, "eth1")
	return a, b, ofB, ofA
}

func TestSession(t *testing.T) {
	a, b, ofB, ofA := pair(t)
	dA, dB := desired(1, ofB), desired(2, ofA)
	route := seam.EVPNRoute{NLRI: "\x03\x04test", NextHop: dB.RouterID, ExtendedCommunities: []uint64{0x0002fde800000064}, PMSI: "\x00\x06\x00\x00\x64\x0a\x00\x00\x02"}
	dB.Routes = append(dB.Routes, seam.Route{EVPN: &route})
	x, y := startSpeaker(t, a, dA), startSpeaker(t, b, dB)
	x.established(ofB)
	y.established(ofA)
	x.reaches("10.0.0.2/32", 1)
	x.reaches("fd00::2/128", 1)
	y.reaches("10.0.0.1/32", 1)
	x.eventually("the EVPN route as it was sent", func() bool {
		got, ok := x.evpn[route.NLRI]
		return ok && !got.Gone && sameEVPN(got.Route, route) && got.Route.NextHop == route.NextHop
	})
	x.eventually("the peer's names", func() bool {
		p := x.peers[ofB]
		return p.Hostname == "node2" && p.ASN == 4200000002 && strings.HasPrefix(p.Software, "frond/") && len(p.Families) == 3
	})
	dB.Routes = dB.Routes[:1]
	y.set(dB)
	x.reaches("fd00::2/128", 0)
	x.eventually("the EVPN route gone", func() bool { return x.evpn[route.NLRI].Gone })
	x.reaches("10.0.0.2/32", 1)
}

func TestParallelCablesAndTransit(t *testing.T) {
	a, b, ofB1, ofA1 := pair(t)
	c := namespace(t, "transit-c")
	ofB2, ofA2 := cable(t, a, b, "eth2")
	ofC, ofB3 := cable(t, b, c, "eth3")
	x := startSpeaker(t, a, desired(1, ofB1, ofB2))
	y := startSpeaker(t, b, desired(2, ofA1, ofA2, ofC))
	z := startSpeaker(t, c, desired(3, ofB3))
	x.reaches("10.0.0.2/32", 2)
	x.reaches("10.0.0.3/32", 2)
	z.reaches("10.0.0.1/32", 1)
	y.reaches("10.0.0.1/32", 2)
	x.eventually("the path through the middle", func() bool {
		p := x.paths[netip.MustParsePrefix("10.0.0.3/32")].Paths
		return len(p) == 2 && fmt.Sprint(p[0].ASPath) == "[4200000002 4200000003]"
	})
	x.set(desired(1, ofB2)) // one cable is gone
	x.reaches("10.0.0.3/32", 1)
	y.reaches("10.0.0.1/32", 1)
}

func TestRefusals(t *testing.T) {
	reason := func(s *speaker, addr netip.Addr, want string) {
		t.Helper()
		s.eventually("reason: "+want, func() bool {
			return s.peers[addr].State != seam.Established && strings.Contains(s.peers[addr].Reason, want)
		})
	}
	t.Run("own-as", func(t *testing.T) {
		a, b, ofB, ofA := pair(t)
		dA, dB := desired(1, ofB), desired(2, ofA)
		dB.ASN = dA.ASN
		x, y := startSpeaker(t, a, dA), startSpeaker(t, b, dB)
		reason(x, ofB, "own AS")
		dA.Peers[0].AllowInternal, dB.Peers[0].AllowInternal = true, true
		x.set(dA)
		y.set(dB)
		x.established(ofB)
		x.reaches("10.0.0.2/32", 1)
	})
	t.Run("same-id", func(t *testing.T) {
		a, b, ofB, ofA := pair(t)
		dB := desired(2, ofA)
		dB.RouterID = desired(1).RouterID
		x := startSpeaker(t, a, desired(1, ofB))
		startSpeaker(t, b, dB)
		reason(x, ofB, "router-id")
	})
	t.Run("password", func(t *testing.T) {
		a, b, ofB, ofA := pair(t)
		dA, dB := desired(1, ofB), desired(2, ofA)
		dA.Keys.Current, dB.Keys.Current = "one", "another"
		x, y := startSpeaker(t, a, dA), startSpeaker(t, b, dB)
		reason(x, ofB, "signs with another key")
		reason(y, ofA, "signs with another key")
		dB.Keys.Current = ""
		y.set(dB)
		reason(y, ofA, "signs its segments")
		reason(x, ofB, "does not sign")
		dB.Keys.Current = "one"
		y.set(dB)
		x.established(ofB)
		y.established(ofA)
		x.eventually("nothing wrong with the key", func() bool { return x.peers[ofB].KeyFault == "" })
	})
	t.Run("silent", func(t *testing.T) {
		a, b, ofB, _ := pair(t)
		must(t, b.Do(func() error { // as a filter does that nobody knows of
			return exec.Command("nft", "add table inet t; add chain inet t c { type filter hook input priority 0; }; add rule inet t c tcp dport 179 drop").Run()
		}))
		d := desired(1, ofB)
		d.Keys = oneKey
		x := startSpeaker(t, a, d)
		reason(x, ofB, "no answer on BGP's port")
		x.eventually("no word of a key", func() bool { return x.peers[ofB].KeyFault == "" })
	})
	t.Run("nobody", func(t *testing.T) {
		a, _, ofB, _ := pair(t)
		x := startSpeaker(t, a, desired(1, ofB))
		reason(x, ofB, "connection refused")
	})
}

func TestRestartKeepsRoutes(t *testing.T) {
	a, b, ofB, ofA := pair(t)
	x, y := startSpeaker(t, a, desired(1, ofB)), startSpeaker(t, b, desired(2, ofA))
	x.reaches("10.0.0.2/32", 1)
	y.reaches("10.0.0.1/32", 1)
	x.mu.Lock()
	x.history = nil
	x.mu.Unlock()

	y.signal(syscall.SIGKILL)
	x.eventually("routes on trust", func() bool {
		p := x.paths[netip.MustParsePrefix("10.0.0.2/32")].Paths
		return len(p) == 1 && p[0].Stale && x.peers[ofB].Restarting
	})
	back := desired(2, ofA)
	back.Restart.Restarting, back.Restart.Expect, back.Restart.Deferral = true, []netip.Addr{ofA}, 20*time.Second
	back.Routes = back.Routes[:1] // the IPv6 loopback did not survive
	z := startSpeaker(t, b, back)
	x.established(ofB)
	z.reaches("10.0.0.1/32", 1)
	z.eventually("converged", func() bool { return z.converged })
	x.reaches("fd00::2/128", 0)
	x.eventually("routes confirmed", func() bool { return !x.peers[ofB].Restarting })
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, p := range x.history {
		if p.Prefix.String() == "10.0.0.2/32" && len(p.Paths) == 0 {
			t.Error("the route was withdrawn while the peer restarted")
		}
	}
}

// TestRestartDoesNotWaitForTheGone restarts a speaker one of whose peers was
// unplugged meanwhile.
func TestRestartDoesNotWaitForTheGone(t *testing.T) {
	a, b, ofB, ofA := pair(t)
	absent := netip.MustParseAddr("fe80::dead%eth9")
	x := startSpeaker(t, a, desired(1, ofB))
	d := desired(2, ofA)
	d.Restart.Restarting, d.Restart.Expect, d.Restart.Deferral = true, []netip.Addr{ofA, absent}, time.Hour
	y := startSpeaker(t, b, d)
	y.established(ofA)
	y.mu.Lock()
	early := y.converged || len(y.paths) > 0
	y.mu.Unlock()
	if early {
		t.Error("it did not wait for the peer that was to come")
	}
	d.Restart.Expect = d.Restart.Expect[:1]
	y.set(d)
	y.eventually("converged", func() bool { return y.converged })
	x.reaches("10.0.0.2/32", 1)
}

func TestLeaveWithdraws(t *testing.T) {
	a, b, ofB, ofA := pair(t)
	x, y := startSpeaker(t, a, desired(1, ofB)), startSpeaker(t, b, desired(2, ofA))
	x.reaches("10.0.0.2/32", 1)
	leaving := desired(2, ofA)
	leaving.Shutdown, leaving.Leave = true, true
	y.set(leaving)
	x.eventually("graceful shutdown", func() bool {
		p := x.paths[netip.MustParsePrefix("10.0.0.2/32")].Paths
		return len(p) == 1 && len(p[0].Communities) == 1 && p[0].Communities[0] == communityGracefulShutdown
	})
	y.signal(syscall.SIGTERM)
	x.reaches("10.0.0.2/32", 0)
	x.eventually("reason", func() bool { return strings.Contains(x.peers[ofB].Reason, "shut down") })
}

func TestHoldTimer(t *testing.T) {
	a, b, ofB, ofA := pair(t)
	dA := desired(1, ofB)
	dA.Peers[0].Hold, dA.Peers[0].Keepalive = 3*time.Second, time.Second
	x, y := startSpeaker(t, a, dA), startSpeaker(t, b, desired(2, ofA))
	x.reaches("10.0.0.2/32", 1)
	y.signal(syscall.SIGSTOP)
	x.eventually("hold timer", func() bool { return strings.Contains(x.peers[ofB].Reason, "hold timer") })
	x.reaches("10.0.0.2/32", 0)
	y.signal(syscall.SIGCONT)
	x.established(ofB)
	x.reaches("10.0.0.2/32", 1)
}

// TestStandstill stops a process that BFD would still find forwarding.
func TestStandstill(t *testing.T) {
	a, b, ofB, ofA := pair(t)
	dA, dB := desired(1, ofB), desired(2, ofA)
	dA.Restart.Watched, dB.Restart.Watched = true, true
	dA.Peers[0].Hold, dA.Peers[0].Keepalive = 3*time.Second, time.Second
	x, y := startSpeaker(t, a, dA), startSpeaker(t, b, dB)
	x.reaches("10.0.0.2/32", 1)
	y.reaches("10.0.0.1/32", 1)
	y.signal(syscall.SIGSTOP)
	x.eventually("hold timer, routes kept", func() bool {
		p := x.peers[ofB]
		return p.Restarting && strings.Contains(p.Reason, "hold timer")
	})
	y.signal(syscall.SIGCONT)
	x.eventually("routes confirmed", func() bool { return x.peers[ofB].State == seam.Established && !x.peers[ofB].Restarting })
	y.established(ofA)
	for _, s := range []*speaker{x, y} {
		s.mu.Lock()
		for _, p := range s.history {
			if !p.Local && len(p.Paths) == 0 {
				t.Errorf("%s was withdrawn", p.Prefix)
			}
		}
		s.mu.Unlock()
	}
}

func TestMaxPrefixes(t *testing.T) {
	a, b, ofB, ofA := pair(t)
	dA, dB := desired(1, ofB), desired(2, ofA)
	dA.Peers[0].MaxPrefixes = 100
	for i := range 200 {
		dB.Routes = append(dB.Routes, seam.Route{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 0}), 24)})
	}
	x := startSpeaker(t, a, dA)
	startSpeaker(t, b, dB)
	x.eventually("refusal", func() bool { return strings.Contains(x.peers[ofB].Reason, "too many prefixes") })
	x.reaches("10.0.0.2/32", 0)
}

// TestHostilePort gives a speaker's port garbage, silence and floods, from
// its peer's own address and from another, while a session is up.
func TestHostilePort(t *testing.T) {
	a, b, ofB, ofA := pair(t)
	c := namespace(t, "hostile-c")
	_, ofAfromC := cable(t, a, c, "eth2")
	x, y := startSpeaker(t, a, desired(1, ofB)), startSpeaker(t, b, desired(2, ofA))
	x.reaches("10.0.0.2/32", 1)
	y.reaches("10.0.0.1/32", 1)
	var flaps uint64 // a collision of the first connections may have cost one
	x.eventually("session up", func() bool {
		flaps = x.peers[ofB].Flaps
		return x.peers[ofB].State == seam.Established
	})
	marker := strings.Repeat("\xff", 16)
	for _, from := range []struct {
		ns *netns.NS
		to netip.Addr
	}{{b, ofA}, {c, ofAfromC}} {
		for _, payload := range []string{
			"", "GET / HTTP/1.0\r\n\r\n", strings.Repeat("x", 100_000),
			marker + "\x00\x13\x04", marker + "\x00\x00\x01", marker + "\xff\xff\x01", marker + "\x00\x1d\x01\x04\x00\x00",
		} {
			for range 20 {
				attack(t, from.ns, from.to, payload)
			}
		}
	}
	x.eventually("session still up", func() bool {
		return x.peers[ofB].State == seam.Established && x.peers[ofB].Flaps == flaps && len(x.paths[netip.MustParsePrefix("10.0.0.2/32")].Paths) == 1
	})
	d := desired(2, ofA)
	d.Routes = append(d.Routes, seam.Route{Prefix: netip.MustParsePrefix("10.9.0.0/16")})
	y.set(d)
	x.reaches("10.9.0.0/16", 1) // it still listens to its peer
}

func attack(t *testing.T, ns *netns.NS, to netip.Addr, payload string) {
	t.Helper()
	var conn net.Conn
	err := ns.Do(func() (err error) {
		dialer := net.Dialer{Timeout: 2 * time.Second}
		conn, err = dialer.Dial("tcp6", netip.AddrPortFrom(to, 179).String())
		return err
	})
	if err != nil {
		return // refused under flood: that is its right
	}
	_, _ = io.WriteString(conn, payload)
	if payload != "" {
		conn.Close()
		return
	}
	t.Cleanup(func() { conn.Close() }) // half open, as long as the test runs
}

// TestListensSigned connects without a signature before a speaker had time
// for anything but to listen.
func TestListensSigned(t *testing.T) {
	a, b, _, ofA := pair(t)
	must(t, a.Do(func() error {
		l, err := listen(t.Context(), netip.MustParseAddrPort("[::]:179"), "secret")
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	}))
	knock := func(password string) (err error) {
		must(t, b.Do(func() error {
			var conn *net.TCPConn
			if conn, err = dial(t.Context(), netip.AddrPortFrom(ofA, 179), password); err == nil {
				conn.Close()
			}
			return nil
		}))
		return err
	}
	err := knock("secret")
	for errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EHOSTUNREACH) { // the cable is still coming up
		err = knock("secret")
	}
	must(t, err)
	if knock("") == nil {
		t.Error("it was let in without a signature")
	}
}

// TestPrepend lets one of two ways be longer than it is.
func TestPrepend(t *testing.T) {
	a, b, ofB, ofA := pair(t)
	d := desired(1, ofB)
	d.Routes = append(d.Routes, seam.Route{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Prepend: 3})
	x, y := startSpeaker(t, a, d), startSpeaker(t, b, desired(2, ofA))
	pathOf := func(prefix string) []uint32 {
		paths := y.paths[netip.MustParsePrefix(prefix)].Paths
		if len(paths) != 1 {
			return nil
		}
		return paths[0].ASPath
	}
	own := d.ASN
	y.eventually("the default route by a path of four", func() bool {
		return slices.Equal(pathOf("0.0.0.0/0"), []uint32{own, own, own, own})
	})
	y.eventually("other routes by the usual path", func() bool { return slices.Equal(pathOf("10.0.0.1/32"), []uint32{own}) })
	d.Routes[2].Prepend = 0
	x.set(d)
	y.eventually("the default route by a path of one", func() bool { return slices.Equal(pathOf("0.0.0.0/0"), []uint32{own}) })
}

// TestSequence has two neighbours originate one prefix: the one that got it
// last is the only way there, for both.
func TestSequence(t *testing.T) {
	a, b, ofB, ofA := pair(t)
	prefix := netip.MustParsePrefix("172.16.0.0/24")
	d, e := desired(1, ofB), desired(2, ofA)
	d.Routes = append(d.Routes, seam.Route{Prefix: prefix, Sequence: 7})
	e.Routes = append(e.Routes, seam.Route{Prefix: prefix, Sequence: 8})
	x, y := startSpeaker(t, a, d), startSpeaker(t, b, e)
	x.eventually("that the other one has it", func() bool { return !x.paths[prefix].Local && len(x.paths[prefix].Paths) == 1 })
	y.eventually("that it has it itself", func() bool { return y.paths[prefix].Local })
	d.Routes[len(d.Routes)-1].Sequence = 9
	x.set(d)
	x.eventually("that it has it again", func() bool { return x.paths[prefix].Local })
	y.eventually("that the other one has it again", func() bool { return !y.paths[prefix].Local && len(y.paths[prefix].Paths) == 1 })
}
