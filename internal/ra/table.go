package ra

import (
	"net/netip"
	"slices"
	"time"
)

// Neighbor is a router that advertises itself on a cable.
type Neighbor struct {
	Addr  netip.Addr // link-local, without zone
	Heard time.Time  // last
}

// maxNeighbors bounds what is remembered of a cable. One is right; a second
// is an error worth naming; more only serve to name it.
const maxNeighbors = 4

// table is who was heard on one port, in the order in which they came.
type table []Neighbor

// hear notes an advertisement. It tells whether that changed who is there.
//
// When the table is full, a new neighbour takes the place of the newest: so
// a flood of forged addresses never pushes out one that was there before it,
// and a machine that was really plugged in still gets a place.
func (t *table) hear(addr netip.Addr, now time.Time) (isNew bool) {
	for i := range *t {
		if (*t)[i].Addr == addr {
			(*t)[i].Heard = now
			return false
		}
	}
	n := Neighbor{addr, now}
	if len(*t) == maxNeighbors {
		(*t)[maxNeighbors-1] = n
		return true
	}
	*t = append(*t, n)
	return true
}

// expire forgets who has been silent for long. It tells whether that
// changed who is there.
func (t *table) expire(now time.Time) bool {
	before := len(*t)
	*t = slices.DeleteFunc(*t, func(n Neighbor) bool { return now.Sub(n.Heard) >= Lifetime })
	return len(*t) != before
}

// next is when the first of them expires; zero if there is nobody.
func (t table) next() (first time.Time) {
	for _, n := range t {
		if end := n.Heard.Add(Lifetime); first.IsZero() || end.Before(first) {
			first = end
		}
	}
	return first
}
