package dns

import (
	"maps"
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
	Since time.Time // when the guest got the name
}

// maxShared bounds the addresses that one name is answered with.
const maxShared = 16

// guests are the names that guests have given themselves. Of several that call
// themselves the same, the name is whose it has been longest: nobody takes
// another's by saying it.
type guests struct {
	mu    sync.RWMutex
	of    map[netip.Addr]Guest
	named map[string]*namesakes // by what nameBelow says
}

// namesakes are the guests of one name.
type namesakes struct {
	eldest Guest
	all    map[netip.Addr]Guest
}

func newGuests() *guests {
	return &guests{of: make(map[netip.Addr]Guest), named: make(map[string]*namesakes)}
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
		if same == nil {
			same = &namesakes{eldest: c, all: make(map[netip.Addr]Guest)}
			g.named[c.key()] = same
		}
		same.all[c.Address] = c
		if older(c, same.eldest) < 0 {
			same.eldest = c
		}
	}
}

func (g *guests) forget(a netip.Addr) {
	before, ok := g.of[a]
	if !ok {
		return
	}
	delete(g.of, a)
	same := g.named[before.key()]
	delete(same.all, a)
	if len(same.all) == 0 {
		delete(g.named, before.key())
	} else if same.eldest.Address == a {
		same.eldest = slices.MinFunc(slices.Collect(maps.Values(same.all)), older)
	}
}

// addresses are those of the guest that a name is of, which is one of owners
// unless that is nil.
func (g *guests) addresses(below string, owners map[string]struct{}) []netip.Addr {
	g.mu.RLock()
	defer g.mu.RUnlock()
	same, ok := g.named[below]
	if !ok {
		return nil
	}
	var own []netip.Addr
	for a, guest := range same.all {
		_, may := owners[guest.Owner]
		if may || owners == nil && guest.Owner == same.eldest.Owner {
			own = append(own, a)
		}
	}
	slices.SortFunc(own, netip.Addr.Compare)
	return own[:min(len(own), maxShared)]
}

// name is what the guest that has an address calls itself, and eldest whether
// it has been called so longest.
func (g *guests) name(a netip.Addr) (below, owner string, eldest bool) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	guest, ok := g.of[a]
	if !ok {
		return "", "", false
	}
	return guest.key(), guest.Owner, g.named[guest.key()].eldest.Owner == guest.Owner
}
