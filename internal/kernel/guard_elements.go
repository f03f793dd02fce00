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

// guardChange is what a set has too much, and what it lacks.
type guardChange struct {
	set              *nftables.Set
	of               guardSet
	surplus, missing []guardElement
	all              []guardElement // what is to be in it
}

// lookAt finds what is to be changed of a set as the kernel holds it.
func (f guardFamily) lookAt(conn *nftables.Conn, s guardSet, g dataplane.Guard) (guardChange, error) {
	set, err := s.in(f.table())
	if err != nil {
		return guardChange{}, err
	}
	have, err := conn.GetSetElements(set)
	if err != nil {
		return guardChange{}, fmt.Errorf("read set %s: %w", s.name, err)
	}
	there := make([]guardElement, 0, len(have))
	for _, e := range have {
		if s.interval && e.IntervalEnd && isZeroKey(e.Key) {
			continue // the kernel's own, before the first interval
		}
		there = append(there, guardElement{string(e.Key), e.IntervalEnd})
	}
	return f.change(s, there, s.wanted(g))
}

func isZeroKey(key []byte) bool { return strings.Trim(string(key), "\x00") == "" }

// change is what makes a set of some elements one of others.
func (f guardFamily) change(s guardSet, from, to []guardElement) (guardChange, error) {
	if slices.Equal(from, to) {
		return guardChange{}, nil
	}
	set, err := s.in(f.table())
	return guardChange{set: set, of: s, surplus: without(from, to), missing: without(to, from), all: to}, err
}

func (c guardChange) isNone() bool { return len(c.surplus)+len(c.missing) == 0 }

// carryOut makes changes, in one transaction or, where there are many, in several
// that never keep a guest from what it may both before and after them: a kernel
// that is not preempted within a system call does nothing else on that processor
// meanwhile, neither hears BFD.
func carryOut(conn *nftables.Conn, changes []guardChange) error {
	t := guardTransaction{conn: conn}
	stages := []func(guardChange) error{
		func(c guardChange) error {
			if !c.of.interval { // few, and parts of one interval do not go by themselves
				return nil
			}
			conn.FlushSet(c.set)
			return t.take(c.all, c.set, conn.SetAddElements)
		},
		func(c guardChange) error { return t.takeOf(c.of.restricts, c.surplus, c, conn.SetDeleteElements) },
		func(c guardChange) error { return t.takeOf(!c.of.restricts, c.missing, c, conn.SetAddElements) },
		func(c guardChange) error { return t.takeOf(!c.of.restricts, c.surplus, c, conn.SetDeleteElements) },
		func(c guardChange) error { return t.takeOf(c.of.restricts, c.missing, c, conn.SetAddElements) },
	}
	for _, stage := range stages {
		for _, c := range changes {
			if c.isNone() {
				continue
			}
			if err := stage(c); err != nil {
				return err
			}
		}
	}
	return conn.Flush()
}

const (
	// guardChunk is how many elements one message carries: its attributes are of
	// at most 64 KiB.
	guardChunk = 500
	// guardBatch is how many elements one transaction changes: each takes the
	// kernel some 6 µs.
	guardBatch = 2000
)

// guardTransaction is committed each time that it is large enough.
type guardTransaction struct {
	conn    *nftables.Conn
	pending int
}

func (t *guardTransaction) takeOf(now bool, elements []guardElement, c guardChange, do func(*nftables.Set, []nftables.SetElement) error) error {
	if !now || c.of.interval {
		return nil
	}
	return t.take(elements, c.set, do)
}

func (t *guardTransaction) take(elements []guardElement, set *nftables.Set, do func(*nftables.Set, []nftables.SetElement) error) error {
	for chunk := range slices.Chunk(elements, guardChunk) {
		if t.pending+len(chunk) > guardBatch {
			if err := t.conn.Flush(); err != nil {
				return err
			}
			t.pending = 0
		}
		if err := inChunks(chunk, set, do); err != nil {
			return err
		}
		t.pending += len(chunk)
	}
	return nil
}

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
