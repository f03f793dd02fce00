package ra

import "testing"

func TestOutbox(t *testing.T) {
	one := func(port string, n byte) Neighbors {
		return Neighbors{Port: port, Neighbors: []Neighbor{{Addr: neighbour(n)}}}
	}
	o := newOutbox()
	wantFirst := func(port string, n byte) {
		t.Helper()
		got, ok := o.first()
		if !ok || got.Port != port || len(got.Neighbors) > 0 != (n > 0) || n > 0 && got.Neighbors[0].Addr != neighbour(n) {
			t.Fatalf("first is %+v, %v; want %s with %d", got, ok, port, n)
		}
	}
	o.put(Neighbors{Port: "never"})
	if _, ok := o.first(); ok {
		t.Error("nobody on a port of which nothing was told is no news")
	}
	o.put(one("a", 1))
	o.put(one("b", 2))
	o.put(one("a", 3))
	wantFirst("a", 3) // the last of a, in the place of its first
	o.took()
	wantFirst("b", 2)
	o.put(Neighbors{Port: "b"}) // gone again before it was told
	o.put(Neighbors{Port: "a"})
	wantFirst("a", 0)
	o.took()
	if _, ok := o.first(); ok || len(o.pending)+len(o.told)+len(o.order) != 0 {
		t.Errorf("something is left: %+v", o)
	}
	o.put(Neighbors{Port: "c", Looped: true})
	if n, ok := o.first(); !ok || !n.Looped {
		t.Error("a loop is to be told")
	}
}
