package kernel

import (
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"

	"frond/internal/dataplane"
)

// guardElement is an element of a set: a key, or the one that an interval ends
// before.
type guardElement struct {
	key string
	end bool
}

// wanted are the elements of a set, those of intervals in order.
func (s guardSet) wanted(g dataplane.Guard) []guardElement {
	keys := s.elements(g)
	wanted := make([]guardElement, 0, len(keys))
	for i, key := range keys {
		if len(key) > 0 { // else nothing comes after the interval
			wanted = append(wanted, guardElement{string(key), s.interval && i%2 == 1})
		}
	}
	if s.interval {
		return joinIntervals(wanted)
	}
	return wanted
}

// joinIntervals takes out the end of an interval where another begins.
func joinIntervals(elements []guardElement) []guardElement {
	slices.SortFunc(elements, func(a, b guardElement) int { return strings.Compare(a.key, b.key) })
	var joined []guardElement
	for _, e := range elements {
		if last := len(joined) - 1; last >= 0 && joined[last].key == e.key && joined[last].end != e.end {
			joined = joined[:last]
			continue
		}
		joined = append(joined, e)
	}
	return joined
}

// without are the elements that others lack, each once.
func without(elements, others []guardElement) []guardElement {
	seen := make(map[guardElement]struct{}, len(others))
	for _, e := range others {
		seen[e] = struct{}{}
	}
	var left []guardElement
	for _, e := range elements {
		if _, ok := seen[e]; !ok {
			seen[e] = struct{}{}
			left = append(left, e)
		}
	}
	return left
}

// update adds to the transaction what a set lacks, and what it has too much.
func (f guardFamily) update(conn *nftables.Conn, s guardSet, g dataplane.Guard) (bool, error) {
	set, err := s.in(f.table())
	if err != nil {
		return false, err
	}
	have, err := conn.GetSetElements(set)
	if err != nil {
		return false, fmt.Errorf("read set %s: %w", s.name, err)
	}
	there := make([]guardElement, 0, len(have))
	for _, e := range have {
		if s.interval && e.IntervalEnd && isZeroKey(e.Key) {
			continue // the kernel's own, before the first interval
		}
		there = append(there, guardElement{string(e.Key), e.IntervalEnd})
	}
	return f.change(conn, s, there, s.wanted(g))
}

func isZeroKey(key []byte) bool { return strings.Trim(string(key), "\x00") == "" }

// change adds to the transaction what makes a set of some elements one of
// others, and tells whether that is anything.
func (f guardFamily) change(conn *nftables.Conn, s guardSet, from, to []guardElement) (bool, error) {
	if slices.Equal(from, to) {
		return false, nil
	}
	surplus, missing := without(from, to), without(to, from)
	if len(surplus)+len(missing) == 0 {
		return false, nil
	}
	set, err := s.in(f.table())
	if err != nil {
		return false, err
	}
	if s.interval { // few, and parts of one interval do not go by themselves
		conn.FlushSet(set)
		return true, inChunks(to, set, conn.SetAddElements)
	}
	if err := inChunks(surplus, set, conn.SetDeleteElements); err != nil {
		return false, err
	}
	return true, inChunks(missing, set, conn.SetAddElements)
}

// guardChunk is how many elements one message carries: its attributes are of
// at most 64 KiB.
const guardChunk = 500

func inChunks(elements []guardElement, set *nftables.Set, add func(*nftables.Set, []nftables.SetElement) error) error {
	for chunk := range slices.Chunk(elements, guardChunk) {
		encoded := make([]nftables.SetElement, 0, len(chunk))
		for _, e := range chunk {
			encoded = append(encoded, nftables.SetElement{Key: []byte(e.key), IntervalEnd: e.end})
		}
		if err := add(set, encoded); err != nil {
			return fmt.Errorf("encode elements of %s: %w", set.Name, err)
		}
	}
	return nil
}
