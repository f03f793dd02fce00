package native

import (
	"bytes"
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	seam "frond/internal/bgp"
)

// TestWitness has a peer's kernel begin connections with one key, and with
// none, to nodes that have these keys.
func TestWitness(t *testing.T) {
	a, b, ofB, ofA := pair(t)
	for _, c := range []struct {
		sent string
		keys seam.Keys
		want seam.KeyFault
	}{
		{"one", oneKey, ""},
		{"one", twoKeys, ""},
		{"two", twoKeys, ""},
		{"one", newKey, seam.KeyDiffers},
		{"", newKey, seam.KeyMissing},
		{"one", seam.Keys{}, seam.KeyUnexpected},
		{"", seam.Keys{}, ""},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		m := &machine{peer: seam.Peer{Addr: ofB}, port: 179, heard: make(chan witnessed), keys: func() *seam.Keys { return &c.keys }}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = a.Do(func() error { return m.witness(ctx) })
		}()
		go func() {
			_ = b.Do(func() error {
				for ctx.Err() == nil { // refused, until the other is ready to look
					if conn, err := dial(ctx, netip.AddrPortFrom(ofA, 179), c.sent); err == nil {
						_ = conn.Close()
					}
				}
				return nil
			})
		}()
		if got := <-m.heard; got.fault != c.want {
			t.Errorf("signed with %q, keys %q: %q, want %q", c.sent, texts(c.keys), got.fault, c.want)
		}
		cancel()
		<-done
	}
}

// TestWitnessOfAFlood has somebody on the cable send openings with a wrong key
// without end: few are looked at, and what they tell is told once.
func TestWitnessOfAFlood(t *testing.T) {
	const openings = 500
	a, b, ofB, ofA := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan message, openings)
	m := &machine{
		peer: seam.Peer{Addr: ofB}, port: 179, heard: make(chan witnessed), keys: func() *seam.Keys { return &newKey },
		report: func(e message) { told <- e },
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = a.Do(func() error { return m.witness(ctx) })
	}()
	frame := opening(ofB, ofA)
	begun := time.Now()
	flooded := make(chan error)
	go func() {
		flooded <- b.Do(func() error {
			port, err := net.InterfaceByName(ofA.Zone())
			if err != nil {
				return err
			}
			conn, err := packet.Listen(port, packet.Datagram, unix.ETH_P_IPV6, nil)
			if err != nil {
				return err
			}
			defer conn.Close()
			for range openings {
				if _, err := conn.WriteTo(frame, &packet.Addr{HardwareAddr: net.HardwareAddr{255, 255, 255, 255, 255, 255}}); err != nil {
					return err
				}
				time.Sleep(time.Millisecond)
			}
			return nil
		})
	}()
	looks := 0
	for flood := flooded; flood != nil; {
		select {
		case w := <-m.heard:
			m.observe(w)
			looks++
		case err := <-flood:
			must(t, err)
			flood = nil
		}
	}
	cancel()
	<-done
	if most := witnessMost * (2 + int(time.Since(begun)/witnessSpan)); looks == 0 || looks > most {
		t.Errorf("%d of %d openings are looked at, want at most %d", looks, openings, most)
	}
	if n := len(told); n != 1 {
		t.Errorf("told %d times that the key is wrong", n)
	}
}

// opening is a TCP segment with SYN to BGP's port that no key has signed.
func opening(from, to netip.Addr) []byte {
	p := make([]byte, ipv6Header+tcpHeader)
	p[0], p[5], p[6], p[7] = 0x60, tcpHeader, protocolTCP, 255
	source, target := from.As16(), to.As16()
	copy(p[8:], source[:])
	copy(p[24:], target[:])
	binary.BigEndian.PutUint16(p[ipv6Header+2:], 179)
	p[ipv6Header+12], p[ipv6Header+13] = tcpHeader/4<<4, flagSYN
	return p
}

// TestObserve has segments tell of a peer's key.
func TestObserve(t *testing.T) {
	var told []seam.KeyFault
	m := &machine{report: func(e message) { told = append(told, e.(stateChanged).fault) }}
	at := time.Now()
	for _, w := range []witnessed{
		{seam.KeyDiffers, at.Add(-2 * faultTime)},
		{seam.KeyDiffers, at}, {seam.KeyDiffers, at}, {seam.KeyMissing, at}, {"", at}, {seam.KeyMissing, at},
	} {
		m.observe(w)
	}
	if want := []seam.KeyFault{seam.KeyDiffers, seam.KeyDiffers, seam.KeyMissing, seam.KeyMissing}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

func FuzzSegment(f *testing.F) {
	data := make([]byte, ipv6Header+60)
	data[0], data[5], data[6], data[ipv6Header+12] = 0x60, 60, protocolTCP, 15<<4
	for _, options := range [][]byte{nil, {optionMD5, 18}, {optionNoOp, optionNoOp, optionMD5, 18, 1}, {optionMD5, 1}, {2, 0}, {3, 255}} {
		copy(data[ipv6Header+tcpHeader:], options)
		f.Add(bytes.Clone(data))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, ok := parseSegment(data)
		if !ok {
			return
		}
		if s.digest != nil && len(s.digest) != 16 {
			t.Errorf("a signature of %d bytes", len(s.digest))
		}
		for _, keys := range []seam.Keys{{}, oneKey, twoKeys} {
			s.fault(keys)
		}
	})
}
