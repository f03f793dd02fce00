package native

import (
	"net/netip"
	"strings"
	"testing"

	seam "frond/internal/bgp"
)

// That a neighbor itself is no longer reached this way is told before the rest
// of what it had told.
func TestLossOfNeighborIsToldFirst(t *testing.T) {
	o := newOwner(t)
	lost, other := o.neighbor(1), o.neighbor(2)
	a := graceful(1)
	a.routerID = netip.MustParseAddr("10.0.200.3")
	o.up(lost, a)
	o.up(other, graceful(2))
	o.read()
	o.announce(lost, []uint32{65001}, "20.0.0.0/24", "20.0.1.0/24", "10.0.200.3/32", "20.0.2.0/24")
	o.read()
	o.tells(other)
	other.idle = true

	o.removeNeighbor(lost, ceaseDeconfigured)
	var first []byte
	select {
	case first = <-other.session.out:
	default:
		t.Fatal("nothing is told before the rest is forgotten too")
	}
	for _, body := range split(t, first) {
		u, fault := decodeUpdate(body, everything, &attributeCache{})
		if fault != nil {
			t.Fatal(fault)
		}
		if got := u.unreach.prefixes; len(got) != 1 || got[0].String() != "10.0.200.3/32" {
			t.Errorf("first %v is taken back, want the neighbor's own address alone", got)
		}
	}
	if _, gone := o.tells(other); len(gone) != 3 {
		t.Errorf("then %v are taken back, want the other three", gone)
	}
	if lost.status.Received != [seam.Families]int{} {
		t.Errorf("%v routes of it are counted still", lost.status.Received)
	}
}

// That a prefix is further away, peers hear before it is in force here; that it
// is nearer, after.
func TestWorseNewsIsToldAtOnce(t *testing.T) {
	o := newOwner(t)
	near, far, other := o.neighbor(1), o.neighbor(2), o.neighbor(3)
	for i, n := range []*neighbor{near, far, other} {
		o.up(n, graceful(uint32(i)+1))
	}
	o.read()
	o.announce(near, []uint32{65001, 65009}, "20.0.0.0/24")
	o.announce(far, []uint32{65002, 65008, 65009}, "20.0.0.0/24")
	o.expectTold(other, "", "")
	o.read()
	o.expectTold(other, "20.0.0.0/24", "")
	o.tells(near)
	o.tells(far)

	o.withdraw(near, "20.0.0.0/24")
	o.expectTold(other, "20.0.0.0/24", "")
	o.expectTold(far, "", "20.0.0.0/24")
	o.read()
	o.announce(near, []uint32{65001, 65009}, "20.0.0.0/24")
	o.expectTold(other, "", "")
	reached := func() string { r, _ := o.tells(other); return strings.Join(r, " ") }
	if o.read(); reached() != "20.0.0.0/24" {
		t.Error("the nearer way is not told when it is in force")
	}
}
