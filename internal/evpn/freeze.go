package evpn

import (
	"net/netip"
	"slices"
	"time"

	"frond/internal/dataplane"
)

// Duplicate detection (RFC 7432 §15.1): what would move once more after
// maxMoves moves within moveWindow is at two places at once. It is frozen, the
// move is not made, and it thaws after freezeTime.
const (
	maxMoves   = 5
	moveWindow = 180 * time.Second
	freezeTime = 180 * time.Second
)

// contest is the history of moves of a MAC or an address.
type contest struct {
	moves []time.Time // the latest, at most maxMoves
	until time.Time   // frozen until then; zero: is not
}

// allow counts a move, if it is not one too many.
func (c *contest) allow(now time.Time) bool {
	c.moves = slices.DeleteFunc(c.moves, func(t time.Time) bool { return now.Sub(t) >= moveWindow })
	if len(c.moves) >= maxMoves {
		return false
	}
	c.moves = append(c.moves, now)
	return true
}

func (m *station) frozen() bool { return !m.contest.until.IsZero() }
func (a *address) frozen() bool { return !a.contest.until.IsZero() }

// thawing is a frozen station or address, waiting.
type thawing struct {
	until   time.Time
	station *station
	address *address
}

func (f thawing) removed() bool {
	if f.station != nil {
		return f.station.removed
	}
	return f.address.removed
}

// mayMove counts a move of a station to here, from here, or between ports,
// and freezes it if that is one too many.
func (t *Table) mayMove(m *station) bool {
	if m.frozen() {
		return false
	}
	now := t.config.Now()
	if m.contest.allow(now) {
		return true
	}
	m.contest.until = now.Add(freezeTime)
	t.frozen = append(t.frozen, thawing{until: m.contest.until, station: m})
	return false
}

// mayMoveAddress is mayMove for an address that goes from one MAC to another.
func (t *Table) mayMoveAddress(a *address) bool {
	if a.frozen() {
		return false
	}
	now := t.config.Now()
	if a.contest.allow(now) {
		return true
	}
	a.contest.until = now.Add(freezeTime)
	t.frozen = append(t.frozen, thawing{until: a.contest.until, address: a})
	return false
}

// thaw lets a station move again. Where it was seen meanwhile, the kernel
// will not tell again, so it is taken to be seen now.
func (t *Table) thaw(m *station) {
	m.contest = contest{}
	t.frozen = slices.DeleteFunc(t.frozen, func(f thawing) bool { return f.station == m })
	if at := m.seenAt; at != "" {
		m.see("")
		t.appear(m.segment, m.mac, at, m.local != nil && m.local.sticky)
	}
	t.touchMAC(m)
}

func (t *Table) thawAddress(a *address) {
	if !a.frozen() {
		return
	}
	a.contest = contest{}
	t.frozen = slices.DeleteFunc(t.frozen, func(f thawing) bool { return f.address == a })
	t.touchAddress(a)
}

// Thaw lets a frozen MAC move again before its time. It tells whether it was
// frozen.
func (t *Table) Thaw(vni uint32, mac dataplane.MAC) bool {
	s, ok := t.segments[vni]
	if !ok {
		return false
	}
	m, ok := s.macs[mac]
	if !ok || !m.frozen() {
		return false
	}
	t.thaw(m)
	t.settle()
	return true
}

// ThawAddress is Thaw for an address.
func (t *Table) ThawAddress(vni uint32, ip netip.Addr) bool {
	s, ok := t.segments[vni]
	if !ok {
		return false
	}
	a, ok := s.addresses[ip]
	if !ok || !a.frozen() {
		return false
	}
	t.thawAddress(a)
	t.settle()
	return true
}

// Deadline is when Changes should be called even if nothing happens, because
// something thaws by then; zero if nothing is frozen.
func (t *Table) Deadline() time.Time {
	if len(t.frozen) == 0 {
		return time.Time{}
	}
	return t.frozen[0].until
}

func (t *Table) thawDue() {
	now := t.config.Now()
	for len(t.frozen) > 0 && !now.Before(t.frozen[0].until) {
		if f := t.frozen[0]; f.station != nil {
			t.thaw(f.station)
		} else {
			t.thawAddress(f.address)
		}
	}
	t.settle()
}
