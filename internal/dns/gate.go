package dns

import (
	"net/netip"
	"sync"
)

// Bounds of what is done at once.
const (
	maxQueries      = 2048 // in all
	maxQueriesOfOne = 256  // of one guest
	maxStreams      = 256  // connections on one address
	maxStreamsOfOne = 16   // of one guest
)

// gate bounds how much is under way, in all and for each guest.
type gate struct {
	most, mostOfOne int

	mu  sync.Mutex
	all int
	of  map[netip.Addr]int
}

func newGate(most, mostOfOne int) *gate {
	return &gate{most: most, mostOfOne: mostOfOne, of: make(map[netip.Addr]int)}
}

// enter tells whether one more is let in; then leave must follow.
func (g *gate) enter(from netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all == g.most || g.of[from] == g.mostOfOne {
		return false
	}
	g.all++
	g.of[from]++
	return true
}

func (g *gate) leave(from netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all--
	if g.of[from]--; g.of[from] == 0 {
		delete(g.of, from)
	}
}
