package native

import (
	"bytes"
	"context"
	"net/netip"
	"testing"

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

func FuzzSegment(f *testing.F) {
	packet := make([]byte, ipv6Header+60)
	packet[0], packet[5], packet[6], packet[ipv6Header+12] = 0x60, 60, protocolTCP, 15<<4
	for _, options := range [][]byte{nil, {optionMD5, 18}, {optionNoOp, optionNoOp, optionMD5, 18, 1}, {optionMD5, 1}, {2, 0}, {3, 255}} {
		copy(packet[ipv6Header+tcpHeader:], options)
		f.Add(bytes.Clone(packet))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, packet []byte) {
		s, ok := parseSegment(packet)
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
