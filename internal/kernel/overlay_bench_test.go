package kernel_test

import (
	"fmt"
	"net/netip"
	"testing"

	"frond/internal/dataplane"
)

const manyMACs = 10000

// 10,000 MACs come, and go, each entered with the VXLAN device and the bridge.
func BenchmarkMACs(b *testing.B) {
	one, other := newVTEPs(b, 1)
	join(one, other)
	come, gone := macsAt(manyMACs, other.address), macsAt(manyMACs, netip.Addr{})
	b.Run("come", func(b *testing.B) {
		for b.Loop() {
			one.Update(come)
			one.settle()
			b.StopTimer()
			one.Update(gone)
			one.settle()
			b.StartTimer()
		}
	})
	b.Run("go", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			one.Update(come)
			one.settle()
			b.StartTimer()
			one.Update(gone)
			one.settle()
		}
	})
	b.Run("look", func(b *testing.B) {
		one.Update(come)
		one.settle()
		for b.Loop() {
			if _, err := one.kernel.DumpOverlay(b.Context(), []dataplane.Segment{one.segment()}); err != nil {
				b.Fatal(err)
			}
		}
	})
	one.noProblems()
}

// One MAC moves to another VTEP, with 10,000 others there.
func BenchmarkMACMoves(b *testing.B) {
	one, other := newVTEPs(b, 1)
	join(one, other)
	one.Update(macsAt(manyMACs, other.address))
	one.settle()
	vteps := []netip.Addr{netip.MustParseAddr("10.0.0.3"), other.address}
	for i := 0; b.Loop(); i++ {
		one.Update(macsAt(1, vteps[i%2]))
		one.settle()
	}
	one.noProblems()
}

// 100 segments come up and go.
func BenchmarkSegments(b *testing.B) {
	one, _ := newVTEPs(b, 1)
	segments := make([]dataplane.Segment, 100)
	for i := range segments {
		segments[i] = dataplane.Segment{
			Name: name("s", i), Bridge: name("br-", i), VXLAN: name("vx-", i),
			VNI: uint32(1000 + i), Local: one.address, MTU: 1450, MACLimit: 1000,
		}
	}
	b.Run("come", func(b *testing.B) {
		for b.Loop() {
			one.take(segments)
			one.settle()
			b.StopTimer()
			one.noProblems()
			one.take(nil)
			one.settle()
			b.StartTimer()
		}
	})
	b.Run("go", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			one.take(segments)
			one.settle()
			b.StartTimer()
			one.take(nil)
			one.settle()
		}
	})
	one.noProblems()
}

func name(prefix string, n int) string {
	return prefix + string([]byte{byte('a' + n/26), byte('a' + n%26)})
}

// 10,000 guests appear behind a port: until the last is told of.
func BenchmarkLocalMACs(b *testing.B) {
	one, other := newVTEPs(b, 1)
	join(one, other)
	segment := one.segment()
	segment.MACLimit = 0
	one.take([]dataplane.Segment{segment})
	one.settle()
	g := one.guest(1)
	frames := make([][]byte, manyMACs)
	for i := range frames {
		frames[i] = arp(mac(i), netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)}), g.ip4)
	}
	for b.Loop() {
		g.send(frames...)
		one.hears(func(h *heard) error {
			if len(h.macs) < manyMACs {
				return fmt.Errorf("%d MACs told of", len(h.macs))
			}
			return nil
		})
		b.StopTimer()
		one.ip("link set %s type bridge_slave fdb_flush", g.port)
		one.hears(func(h *heard) error {
			for _, local := range h.macs {
				if !local.Aged && local.MAC != g.mac {
					return fmt.Errorf("%s is told to be there", local.MAC)
				}
			}
			clear(h.macs)
			return nil
		})
		b.StartTimer()
	}
}
