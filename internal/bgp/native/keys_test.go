package native

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	seam "frond/internal/bgp"
	"frond/internal/netns"
)

// The documents of a change of the key from one to two, in their order.
var (
	oneKey  = seam.Keys{Current: "one"}
	twoKeys = seam.Keys{Current: "two", Previous: "one"}
	newKey  = seam.Keys{Current: "two"}
)

func TestEndure(t *testing.T) {
	none := seam.Keys{}
	for _, c := range []struct {
		before, now seam.Keys
		want        bool
	}{
		{none, none, true},
		{none, oneKey, false},
		{none, twoKeys, false},
		{oneKey, none, false},
		{oneKey, oneKey, true},
		{oneKey, twoKeys, true},
		{oneKey, newKey, false},
		{twoKeys, newKey, true},
		{twoKeys, oneKey, true}, // changed one's mind
		{newKey, twoKeys, true},
		{twoKeys, none, false},
	} {
		if got := endure(c.before, c.now); got != c.want {
			t.Errorf("%q to %q: %t, want %t", texts(c.before), texts(c.now), got, c.want)
		}
	}
}

func texts(k seam.Keys) []string { return []string{string(k.Current), string(k.Previous)} }

// TestKeysMeet has sessions begin between nodes that have read different
// documents of a change.
func TestKeysMeet(t *testing.T) {
	for _, c := range [][2]seam.Keys{{oneKey, twoKeys}, {twoKeys, oneKey}, {twoKeys, twoKeys}, {twoKeys, newKey}, {newKey, twoKeys}} {
		t.Run(fmt.Sprintf("%q and %q", texts(c[0]), texts(c[1])), func(t *testing.T) {
			a, b, ofB, ofA := pair(t)
			dA, dB := desired(1, ofB), desired(2, ofA)
			dA.Keys, dB.Keys = c[0], c[1]
			x, y := startSpeaker(t, a, dA), startSpeaker(t, b, dB)
			x.established(ofB)
			y.established(ofA)
			x.reaches("10.0.0.2/32", 1)
		})
	}
}

// TestKeysChange changes the key of two nodes, one after the other, while
// their session is up. Then neither the old key nor none opens another.
func TestKeysChange(t *testing.T) {
	a, b, ofB, ofA := pair(t)
	dA, dB := desired(1, ofB), desired(2, ofA)
	dA.Keys, dB.Keys = oneKey, oneKey
	x, y := startSpeaker(t, a, dA), startSpeaker(t, b, dB)
	x.established(ofB)
	y.established(ofA)
	flaps := x.flaps(ofB) // a collision of the first connections may have cost one
	for i, keys := range []seam.Keys{twoKeys, newKey} {
		for j, set := range []func(){
			func() { dA.Keys = keys; x.set(dA) },
			func() { dB.Keys = keys; y.set(dB) },
		} {
			route := netip.MustParsePrefix(fmt.Sprintf("20.0.%d.%d/32", i, j))
			set()
			dB.Routes = append(dB.Routes, seam.Route{Prefix: route})
			y.set(dB)
			x.reaches(route.String(), 1)
		}
	}
	x.established(ofB)
	if now := x.flaps(ofB); now != flaps {
		t.Errorf("the session was lost %d times", now-flaps)
	}
	for key, want := range map[string]bool{"two": true, "one": false, "": false} {
		if err := knock(t, b, ofA, key); (err == nil) != want {
			t.Errorf("key %q: %v", key, err)
		}
	}
}

// TestKeyReplaced replaces the key in one step, and sets one where there was
// none: sessions end with it, and so do connections that had only begun.
func TestKeyReplaced(t *testing.T) {
	a, b, ofB, ofA := pair(t)
	d, dB := desired(1, ofB), desired(2, ofA)
	x, y := startSpeaker(t, a, d), startSpeaker(t, b, dB)
	for _, keys := range []seam.Keys{oneKey, newKey} {
		x.established(ofB)
		y.established(ofA)
		d.Keys = keys
		x.set(d)
		y.eventually("no session", func() bool { return y.peers[ofA].State != seam.Established })
		x.eventually("no session", func() bool { return x.peers[ofB].State != seam.Established })
		dB.Keys = keys
		y.set(dB)
	}
	x.established(ofB)
}

// TestSignedWithoutPeers has a speaker that knows of no peers yet.
func TestSignedWithoutPeers(t *testing.T) {
	a, b, _, ofA := pair(t)
	d := desired(1)
	d.Keys = oneKey
	startSpeaker(t, a, d)
	must(t, knock(t, b, ofA, "one"))
	if knock(t, b, ofA, "") == nil {
		t.Error("it was let in without a signature")
	}
}

// TestAcceptedBeforeTheKey has a connection without a signature wait in the
// listener's queue while the key is set.
func TestAcceptedBeforeTheKey(t *testing.T) {
	a, b, ofB, ofA := pair(t)
	var l *net.TCPListener
	must(t, a.Do(func() (err error) {
		l, err = listen(t.Context(), netip.MustParseAddrPort("[::]:179"), "")
		return err
	}))
	t.Cleanup(func() { l.Close() })
	p := newPuppet(t, b, ofA)
	must(t, a.Do(func() error {
		conn, err := l.AcceptTCP()
		if err != nil {
			return err
		}
		t.Cleanup(func() { conn.Close() })
		if _, _, err := readMessage(conn, make([]byte, maxMessageLen)); err != nil {
			return fmt.Errorf("before the key is set: %w", err)
		}
		before := badSignatures()
		s := New(netip.MustParseAddrPort("[::]:179"), slog.New(slog.DiscardHandler))
		s.desired.Keys = oneKey
		accepted{conn}.apply(s)
		if _, ok := s.strangers[ofB]; !ok {
			return errors.New("the connection is not taken in")
		}
		p.send(encodeKeepalive())
		for range 500 {
			if badSignatures() > before {
				return nil
			}
			<-time.After(10 * time.Millisecond)
		}
		return errors.New("what is not signed was taken in")
	}))
}

// knock connects to a speaker from a namespace, signed with the key, once it
// listens there.
func knock(t *testing.T, ns *netns.NS, to netip.Addr, key string) (err error) {
	t.Helper()
	must(t, ns.Do(func() error {
		for range 200 {
			conn, e := dial(t.Context(), netip.AddrPortFrom(to, 179), key)
			if err = e; err == nil {
				return conn.Close()
			}
			if isTimeout(err) {
				return nil
			}
			<-time.After(10 * time.Millisecond)
		}
		return nil
	}))
	return err
}

// badSignatures counts the segments that this network namespace dropped for
// a wrong, missing or unexpected TCP-MD5 signature (/proc/net/netstat), or 0
// where the kernel does not tell.
func badSignatures() uint64 {
	data, err := os.ReadFile("/proc/thread-self/net/netstat")
	if err != nil {
		return 0
	}
	lines := strings.Split(string(data), "\n")
	var sum uint64
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		for j := range min(len(names), len(values)) {
			if strings.HasPrefix(names[j], "TCPMD5") {
				n, _ := strconv.ParseUint(values[j], 10, 64)
				sum += n
			}
		}
	}
	return sum
}
