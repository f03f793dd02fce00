package native

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	seam "frond/internal/bgp"
	"frond/internal/netns"
)

// puppet is a peer that says what the test wants it to.
type puppet struct {
	t    *testing.T
	conn net.Conn
}

// newPuppet connects to a speaker and gets a session established.
func newPuppet(t *testing.T, ns *netns.NS, to netip.Addr) *puppet {
	t.Helper()
	dialer := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		controlErr := raw.Control(func(fd uintptr) { // as who says to be frond must (RFC 5082)
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, 255)
		})
		return errors.Join(err, controlErr)
	}}
	var conn net.Conn
	must(t, ns.Do(func() (err error) {
		for range 200 { // until the speaker listens
			if conn, err = dialer.Dial("tcp6", netip.AddrPortFrom(to, 179).String()); err == nil {
				return nil
			}
			time.Sleep(10 * time.Millisecond)
		}
		return err
	}))
	t.Cleanup(func() { conn.Close() })
	p := &puppet{t, conn}
	open, err := encodeOpen(local{asn: 4200000002, routerID: netip.MustParseAddr("10.0.0.2"), hostname: "puppet"}, 9*time.Second, restartState{})
	must(t, err)
	p.send(open)
	p.send(encodeKeepalive())
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	return p
}

func (p *puppet) send(message []byte) {
	p.t.Helper()
	_, err := p.conn.Write(message)
	must(p.t, err)
}

// update sends an UPDATE of these attributes.
func (p *puppet) update(attributes ...string) {
	p.t.Helper()
	p.send(endMessage(append(beginMessage(nil, typeUpdate), raw(attributes...)...), 0))
}

// evpnReach is MP_REACH_NLRI of EVPN with a next hop and NLRI.
func evpnReach(hop, nlri string) string {
	value := "\x00\x19\x46" + string([]byte{byte(len(hop))}) + hop + "\x00" + nlri
	return "\x80\x0e" + string([]byte{byte(len(value))}) + value
}

// TestMalformedEVPN has a peer tell EVPN routes that are none. What cannot be
// told apart as routes would end the session (RFC 7606 §5.3); these can.
func TestMalformedEVPN(t *testing.T) {
	a, b, ofB, ofA := pair(t)
	x := startSpeaker(t, a, desired(1, ofB))
	p := newPuppet(t, b, ofA)
	x.established(ofB)
	const (
		path  = "\x40\x02\x06\x02\x01\xfa\x56\xea\x02" // AS 4200000002
		hop   = "\x0a\x00\x00\x02"
		short = "\x02\x03abc"   // type 2, of nothing
		odd   = "\x63\x05hello" // of a type that nobody knows
		group = "\x02\x00"      // empty
		plain = "\x03\x04test"  // passed on as it is
		comms = "\xc0\x10\x07\x00\x02\xfd\xe8" + "\x00\x00\x64"
	)
	p.update(origin, path, evpnReach(hop, short+odd+group))
	for _, nlri := range []string{short, odd, group} {
		x.eventually("the route as it was told: who decodes it judges", func() bool {
			got, ok := x.evpn[evpnKey(nlri)]
			return ok && !got.Gone && got.Route.NLRI == nlri && got.Peer == ofB
		})
	}
	for i, attributes := range [][]string{
		{origin, path, evpnReach("abc", plain)},      // next hop of 3 bytes
		{origin, path, comms, evpnReach(hop, plain)}, // communities of 7 bytes
		{path, evpnReach(hop, plain)},                // no ORIGIN
	} {
		p.update(attributes...)
		x.eventually("the update counted", func() bool { return x.peers[ofB].Messages.Malformed == uint64(i+1) })
	}
	p.update(origin, path, evpnReach(hop, plain))
	x.eventually("a sound route after all that", func() bool {
		got, ok := x.evpn[plain]
		return ok && !got.Gone
	})
	p.update(origin, path, comms, evpnReach(hop, plain))
	x.eventually("the route taken back by its malformed update", func() bool { return x.evpn[plain].Gone })
	x.eventually("the session, undisturbed", func() bool {
		return x.peers[ofB].State == seam.Established && x.peers[ofB].Flaps == 0
	})
}

// flood announces as many host routes inside 20.0.0.0/8, until the session ends.
func (p *puppet) flood(count int) {
	p.t.Helper()
	const path, perUpdate = "\x40\x02\x06\x02\x01\xfa\x56\xea\x02", 700
	from := p.conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr().As16()
	var b []byte
	for i := 0; i < count; i += perUpdate {
		reach := append([]byte{0, 1, 1, 16}, from[:]...)
		reach = append(reach, 0)
		for j := i; j < min(i+perUpdate, count); j++ {
			reach = append(reach, 32, 20, byte(j>>16), byte(j>>8), byte(j))
		}
		reach = append([]byte{flagOptional | flagExtended, attrReach, byte(len(reach) >> 8), byte(len(reach))}, reach...)
		b = append(b[:0], endMessage(append(beginMessage(nil, typeUpdate), raw(origin, path, string(reach))...), 0)...)
		if _, err := p.conn.Write(b); err != nil {
			return
		}
	}
}

// TestMillionPrefixes has a peer tell a million prefixes: to a speaker whose
// filter refuses them, and to one that has none.
func TestMillionPrefixes(t *testing.T) {
	// The race detector takes several times the memory; all that is sent would
	// be ten times of what may stay.
	const many, most, bound = 1_000_000, 100_000, 768 // MiB
	begin := func(t *testing.T, filter seam.Filter) (*speaker, *netns.NS, [2]netip.Addr, *puppet) {
		a, b, ofB, ofA := pair(t)
		c := namespace(t, t.Name()+"-c")
		ofC, ofAfromC := cable(t, a, c, "eth2")
		d := desired(1, ofB, ofC)
		d.Filter, d.Peers[0].MaxPrefixes = filter, most
		x := startSpeaker(t, a, d)
		startSpeaker(t, c, desired(3, ofAfromC))
		x.reaches("10.0.0.3/32", 1)
		p := newPuppet(t, b, ofA)
		x.established(ofB)
		go p.flood(many)
		return x, b, [2]netip.Addr{ofB, ofA}, p
	}
	undisturbed := func(t *testing.T, x *speaker) {
		t.Helper()
		x.reaches("10.0.0.3/32", 1)
		if _, mem := x.usage(); mem > bound {
			t.Errorf("it takes %.0f MiB", mem)
		}
	}
	t.Run("refused", func(t *testing.T) {
		x, _, peer, _ := begin(t, refusing("20.0.0.0/8"))
		for n := most; n < many; n += most {
			x.eventually("more is refused", func() bool { return x.peers[peer[0]].Refused.Count >= uint64(n) })
		}
		x.eventually("all is refused, the session stands", func() bool {
			p := x.peers[peer[0]]
			return p.Refused.Count == many && len(p.Refused.Standing) == seam.MaxRefused && p.State == seam.Established
		})
		undisturbed(t, x)
	})
	t.Run("unfiltered", func(t *testing.T) {
		x, b, peer, _ := begin(t, nil)
		x.eventually("the session ends", func() bool {
			p := x.peers[peer[0]]
			// Idle may have passed by the time all that it takes back is read.
			return p.State != seam.Established && strings.Contains(p.Reason, "too many prefixes")
		})
		undisturbed(t, x)
		x.reaches("20.0.0.0/32", 0)
		startSpeaker(t, b, desired(2, peer[1])) // who behaves
		x.reaches("10.0.0.2/32", 1)
		x.established(peer[0])
		x.reaches("20.0.7.7/32", 0)
	})
}
