package dns

import "testing"

func TestGate(t *testing.T) {
	b, c := addrs("192.0.2.2")[0], addrs("192.0.2.3")[0]
	g := newGate(3, 2)
	enter := func(want ...bool) {
		t.Helper()
		for i, from := range addrs("192.0.2.1", "192.0.2.2", "192.0.2.3") {
			if got := g.enter(from); got != want[i] {
				t.Errorf("%s is let in: %v", from, got)
			} else if got && !want[i] {
				g.leave(from)
			}
		}
	}
	enter(true, true, true)
	enter(false, false, false)
	g.leave(c)
	enter(true, false, false) // a has two, and all is full
	g.leave(b)
	enter(false, true, false)
	for _, from := range addrs("192.0.2.1", "192.0.2.1", "192.0.2.2") {
		g.leave(from)
	}
	if len(g.of) != 0 || g.all != 0 {
		t.Errorf("%d guests are remembered, %d are in", len(g.of), g.all)
	}
}
