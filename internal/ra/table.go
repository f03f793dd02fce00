package ra

import (
	"net/netip"
	"slices"
	"time"
)

// Neighbor is a router that advertises itself on a cable.
type Neighbor struct {
	Addr  netip.Addr // link-local, without zone
	Heard time.Time  // last, as of the event that tells it
}

const (
	// maxNeighbors bounds what is remembered of a cable. One is right; a
	// second is an error worth naming; more only serve to name it.
	maxNeighbors = 4

	// doubt is how long before it would be forgotten a neighbour is asked
	// whether it is still there. It is longer than the 3 s that a router may
	// keep between two multicast advertisements (MIN_DELAY_BETWEEN_RAS,
	// RFC 4861 §10), so that every router has time to answer.
	doubt = 4 * time.Second
	// askInterval separates the solicitations that ask.
	askInterval = time.Second
)

// table is who was heard on one port. It does no I/O and knows no clock.
//
// Who is listed stays until it is silent; while the table is full nobody is
// added. So a flood of forged sources fills the free places once, and neither
// pushes out a neighbour that was there before nor keeps the consumer busy.
//
// A cable that was plugged into another machine finds that machine at its
// first advertisement, but would list the old one beside it for a whole
// Lifetime. Therefore somebody new puts the others in doubt: they are asked,
// and forgotten within seconds unless they answer.
type table struct {
	self      netip.Addr
	entries   []entry   // the earliest found first
	looped    bool      // our own advertisements come back
	loopedEnd time.Time // when that is forgotten
	lastAsked time.Time
}

type entry struct {
	Neighbor
	end time.Time // when it is forgotten
}

// hear notes an advertisement. It tells whether that changed what there is to
// tell, and whether its sender is new and listed.
func (t *table) hear(from netip.Addr, now time.Time) (changed, isNew bool) {
	if from == t.self {
		changed = !t.looped
		t.looped, t.loopedEnd = true, now.Add(Lifetime)
		return changed, false
	}
	for i := range t.entries {
		if e := &t.entries[i]; e.Addr == from {
			e.Heard, e.end = now, now.Add(Lifetime)
			return false, false
		}
	}
	if t.full() {
		return false, false
	}
	for i := range t.entries {
		if e := &t.entries[i]; e.end.After(now.Add(doubt)) {
			e.end = now.Add(doubt)
		}
	}
	t.entries = append(t.entries, entry{Neighbor{from, now}, now.Add(Lifetime)})
	return true, true
}

// expire forgets who has been silent for too long. It tells whether that
// changed what there is to tell.
func (t *table) expire(now time.Time) (changed bool) {
	before := len(t.entries)
	t.entries = slices.DeleteFunc(t.entries, func(e entry) bool { return !now.Before(e.end) })
	changed = len(t.entries) != before
	if t.looped && !now.Before(t.loopedEnd) {
		t.looped, changed = false, true
	}
	return changed
}

// ask tells whether somebody is in doubt and a solicitation is due.
func (t *table) ask(now time.Time) bool {
	at, ok := t.askAt()
	return ok && !now.Before(at)
}

// asked notes that a solicitation was tried. Who could not be asked is not
// forgotten for not answering, but only for the usual silence.
func (t *table) asked(now time.Time, sent bool) {
	t.lastAsked = now
	if sent {
		return
	}
	for i := range t.entries {
		e := &t.entries[i]
		if end := e.Heard.Add(Lifetime); e.end.Before(end) {
			e.end = e.end.Add(askInterval)
			if e.end.After(end) {
				e.end = end
			}
		}
	}
}

func (t *table) askAt() (time.Time, bool) {
	var first time.Time
	for _, e := range t.entries {
		if at := e.end.Add(-doubt); first.IsZero() || at.Before(first) {
			first = at
		}
	}
	if again := t.lastAsked.Add(askInterval); again.After(first) && !first.IsZero() {
		first = again
	}
	return first, !first.IsZero()
}

// next is when expire or ask has something to do; zero if there is nothing.
func (t *table) next() time.Time {
	var first time.Time
	sooner := func(at time.Time) {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	for _, e := range t.entries {
		sooner(e.end)
	}
	if at, ok := t.askAt(); ok {
		sooner(at)
	}
	if t.looped {
		sooner(t.loopedEnd)
	}
	return first
}

func (t *table) full() bool { return len(t.entries) == maxNeighbors }

// addresses are those listed, the earliest found first.
func (t *table) addresses() []netip.Addr {
	all := make([]netip.Addr, len(t.entries))
	for i, e := range t.entries {
		all[i] = e.Addr
	}
	return all
}

// neighbors is the whole of what there is to tell of a port.
func (t *table) neighbors(port string) Neighbors {
	n := Neighbors{Port: port, Looped: t.looped}
	for _, e := range t.entries {
		n.Neighbors = append(n.Neighbors, e.Neighbor)
	}
	return n
}
