package dns

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Guest is what the guest that an address is leased to calls itself.
type Guest struct {
	Address netip.Addr
	Segment string
	Name    string // one label; what is none is nobody's, and ends what was before
	// Owner tells guests apart: what two of one name have is not mixed.
	Owner string
	Since time.Time // when the guest got the address
}

// maxShared bounds the addresses that one name is answered with.
const maxShared = 16

// guests are the names that guests have given themselves. Of several that call
// themselves the same, the name is whose it has been longest: nobody takes
// another's by saying it.
type guests struct {
	mu    sync.RWMutex
	of    map[netip.Addr]Guest
	named map[string][]Guest // by what nameBelow says, the first the oldest
}

func newGuests() *guests {
	return &guests{of: make(map[netip.Addr]Guest), named: make(map[string][]Guest)}
}

// nameBelow is a name below the fabric's.
func nameBelow(name, segment string) string {
	return strings.ToLower(name) + "." + strings.ToLower(segment)
}

func (g Guest) key() string { return nameBelow(g.Name, g.Segment) }

func older(a, b Guest) int {
	if c := a.Since.Compare(b.Since); c != 0 {
		return c
	}
	return a.Address.Compare(b.Address)
}

// learn takes in what has changed.
func (g *guests) learn(changes []Guest) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range changes {
		g.forget(c.Address)
		if !isLabel(c.Name) || !isLabel(c.Segment) {
			continue
		}
		g.of[c.Address] = c
		same := g.named[c.key()]
		at, _ := slices.BinarySearchFunc(same, c, older)
		g.named[c.key()] = slices.Insert(same, at, c)
	}
}

func (g *guests) forget(a netip.Addr) {
	before, ok := g.of[a]
	if !ok {
		return
	}
	delete(g.of, a)
	same := g.named[before.key()]
	if at, found := slices.BinarySearchFunc(same, before, older); found {
		same = slices.Delete(same, at, at+1)
	}
	if len(same) == 0 {
		delete(g.named, before.key())
		return
	}
	g.named[before.key()] = same
}

// addresses are those of the guest that a name is of.
func (g *guests) addresses(below string) []netip.Addr {
	g.mu.RLock()
	defer g.mu.RUnlock()
	var all []netip.Addr
	same := g.named[below]
	for _, guest := range same {
		if guest.Owner == same[0].Owner && len(all) < maxShared {
			all = append(all, guest.Address)
		}
	}
	return all
}

// name is what an address answers to.
func (g *guests) name(a netip.Addr) (below string, ok bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	guest, ok := g.of[a]
	if !ok || g.named[guest.key()][0].Owner != guest.Owner {
		return "", false
	}
	return guest.key(), true
}
