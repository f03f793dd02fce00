package dhcp

import (
	"hash/fnv"
	"math/bits"
	"net/netip"
	"slices"
	"sort"
)

// pool is the addresses of a segment's ranges and what can be had of them. It
// finds one among 65,536 by looking at 1,024 words at most.
type pool struct {
	ranges []span
	size   int
	free   bitmap // nobody has it, and nothing is known of it
	stale  bitmap // somebody had it
	usable int    // what is not excluded
	frees  int    // of free and stale
}

// span is a range whose first address is the at-th of the pool.
type span struct {
	first, last netip.Addr
	at          int
}

// state is what can be done with an address of a pool.
type state int

const (
	taken state = iota
	free
	stale
)

// newPool has all addresses free but those that no client may have at all,
// or that are only one client's.
func newPool(s Segment) *pool {
	p := &pool{}
	for _, r := range s.Ranges {
		p.ranges = append(p.ranges, span{first: r.First, last: r.Last})
	}
	slices.SortFunc(p.ranges, func(a, b span) int { return a.first.Compare(b.first) })
	for i := range p.ranges {
		p.ranges[i].at = p.size
		p.size += int(low(p.ranges[i].last)-low(p.ranges[i].first)) + 1
	}
	p.free, p.stale = newBitmap(p.size), newBitmap(p.size)
	for i := range p.size {
		p.free.set(i)
	}
	exclude := func(a netip.Addr) {
		if i, ok := p.index(a); ok {
			p.free.clear(i)
		}
	}
	exclude(s.Router)
	exclude(s.Server)
	for _, r := range s.Reservations {
		exclude(r.Address)
	}
	for _, a := range []netip.Addr{s.Prefix.Masked().Addr(), broadcast(s.Prefix)} {
		if !assignable(s.Prefix, a) {
			exclude(a)
		}
	}
	p.usable = p.free.count()
	p.frees = p.usable
	return p
}

// index is the place of an address in the pool.
func (p *pool) index(a netip.Addr) (int, bool) {
	i := sort.Search(len(p.ranges), func(i int) bool { return !p.ranges[i].last.Less(a) })
	if i == len(p.ranges) || a.Less(p.ranges[i].first) {
		return 0, false
	}
	return p.ranges[i].at + int(low(a)-low(p.ranges[i].first)), true
}

func (p *pool) address(index int) netip.Addr {
	i := sort.Search(len(p.ranges), func(i int) bool { return p.ranges[i].at > index }) - 1
	return plus(p.ranges[i].first, uint64(index-p.ranges[i].at))
}

// set notes what can be done with an address, if it is the pool's.
func (p *pool) set(a netip.Addr, to state) {
	i, ok := p.index(a)
	if !ok {
		return
	}
	p.frees -= p.free.get(i) + p.stale.get(i)
	p.free.clear(i)
	p.stale.clear(i)
	switch to {
	case free:
		p.free.set(i)
	case stale:
		p.stale.set(i)
	case taken:
		return
	}
	p.frees++
}

// attempts is how many places a client's hash gives before the pool is gone
// through: as long as half of it is free, one in 256 clients needs more. Two
// nodes that serve two clients at once hardly ever choose one address then.
const attempts = 8

// pick chooses an address for a client: the one that its hash says, if that
// can be had, so that it stays the same without anybody's memory. What nobody
// ever had comes before what somebody had, who may come back.
func (p *pool) pick(client Client, good func(netip.Addr) bool) (netip.Addr, bool) {
	if p.size == 0 {
		return netip.Addr{}, false
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(client))
	seed := mix(h.Sum64())
	for _, of := range []bitmap{p.free, p.stale} {
		at := 0
		for n := range uint64(attempts) {
			at = int(mix(seed+n) % uint64(p.size))
			if a := p.address(at); of.get(at) == 1 && good(a) {
				return a, true
			}
		}
		for range attempts * attempts {
			next, ok := of.next(at)
			if !ok {
				break
			}
			if a := p.address(next); good(a) {
				return a, true
			}
			at = (next + 1) % p.size
		}
	}
	return netip.Addr{}, false
}

// mix spreads a number over all bits (the finaliser of SplitMix64).
func mix(n uint64) uint64 {
	n += 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}

// bitmap is a set of small numbers.
type bitmap []uint64

func newBitmap(size int) bitmap { return make(bitmap, (size+63)/64) }

func (b bitmap) set(i int)     { b[i/64] |= 1 << (i % 64) }
func (b bitmap) clear(i int)   { b[i/64] &^= 1 << (i % 64) }
func (b bitmap) get(i int) int { return int(b[i/64] >> (i % 64) & 1) }

func (b bitmap) count() (n int) {
	for _, word := range b {
		n += bits.OnesCount64(word)
	}
	return n
}

// next is the first member from i on, around the end.
func (b bitmap) next(i int) (int, bool) {
	at := i / 64
	word := b[at] >> (i % 64) << (i % 64)
	for range len(b) + 1 {
		if word != 0 {
			return at*64 + bits.TrailingZeros64(word), true
		}
		at = (at + 1) % len(b)
		word = b[at]
	}
	return 0, false
}
