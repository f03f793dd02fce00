package evpn

import (
	"testing"

	"frond/internal/bgp"
	"frond/internal/dataplane"
)

// Learning and forgetting of many MACs here and elsewhere.
func BenchmarkMACs(b *testing.B) {
	const macs = 10_000
	var wire, gone []bgp.EVPNPath
	var seen dataplane.LocalMACs
	for n := range macs {
		p := path(macip(vtepB, testMAC(n), "", 0))
		wire = append(wire, p)
		gone = append(gone, bgp.EVPNPath{Key: p.Key, Gone: true})
		seen = append(seen, dataplane.LocalMAC{VNI: 100, MAC: testMAC(n), Port: "g1"})
	}
	table := func() *Table {
		t := New(Config{ASN: 64000, RouterID: vtepA, VTEP: vtepA})
		t.SetSegments([]dataplane.Segment{{Name: "s", VNI: 100}})
		t.Changes()
		return t
	}
	b.Run("remote", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			t := table()
			t.Learn(wire)
			if c := t.Changes(); len(c.Overlay.MACs) != macs {
				b.Fatal("not all learned")
			}
			t.Learn(gone)
			if c := t.Changes(); len(c.Overlay.MACs) != macs {
				b.Fatal("not all forgotten")
			}
		}
	})
	b.Run("local", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			t := table()
			t.Observe(seen)
			if t.Changes(); len(t.Originated()) != macs+1 {
				b.Fatal("not all told")
			}
			t.Observe(dataplane.LocalPortsGone{{VNI: 100, Port: "g1"}})
			if t.Changes(); len(t.Originated()) != 1 {
				b.Fatal("not all taken back")
			}
		}
	})
	b.Run("one among many", func(b *testing.B) {
		t := table()
		t.Learn(wire)
		t.Changes()
		b.ReportAllocs()
		for b.Loop() {
			t.Learn(gone[:1])
			t.Learn(wire[:1])
			t.Changes()
		}
	})
}
