package fabric

import (
	"cmp"
	"net/netip"
	"slices"
)

// claim is a prefix with the field that takes it.
type claim struct {
	prefix netip.Prefix
	field  string
}

// claims are disjoint prefixes, sorted by address. Because they are disjoint,
// only the two neighbours of a prefix can overlap with it.
type claims []claim

// add takes the prefix, or gives the claim that overlaps with it and false.
func (c *claims) add(p netip.Prefix, field string) (claim, bool) {
	if other, ok := c.overlap(p); ok {
		return other, false
	}
	*c = slices.Insert(*c, c.search(p), claim{p, field})
	return claim{}, true
}

// overlap gives the claim that has an address in common with the prefix.
func (c claims) overlap(p netip.Prefix) (claim, bool) {
	i := c.search(p)
	for _, neighbour := range c[max(i-1, 0):min(i+1, len(c))] {
		if neighbour.prefix.Overlaps(p) {
			return neighbour, true
		}
	}
	return claim{}, false
}

// search is where the prefix belongs.
func (c claims) search(p netip.Prefix) int {
	i, _ := slices.BinarySearchFunc(c, p, func(c claim, p netip.Prefix) int {
		return cmp.Or(c.prefix.Addr().Compare(p.Addr()), cmp.Compare(c.prefix.Bits(), p.Bits()))
	})
	return i
}
