package evpn

import (
	"slices"

	"frond/internal/dataplane"
)

// place takes the word of whoever has put a station behind a port: it is there,
// and that is no move that may be one too many. One that is held there stays
// until the port is gone or another word comes, whatever other ports hear of it.
// Its own node aside, it moves as every station does.
func (t *Table) place(p dataplane.LocalPlace) {
	s, ok := t.segments[p.VNI]
	if !ok || p.MAC.IsZero() || p.MAC.IsGroup() || p.MAC == s.config.BridgeMAC() {
		return
	}
	delete(s.placed, p.MAC)
	sticky := false
	if m, known := s.macs[p.MAC]; known {
		t.forgetContest(m)
		sticky = m.local != nil && m.local.sticky
	}
	t.appear(s, p.MAC, p.Port, sticky)
	if m, ok := s.macs[p.MAC]; p.Held && ok && m.local != nil && m.local.port.name == p.Port {
		s.placed[p.MAC] = p.Port
	}
}

// forgetContest has a station that was frozen, or seen where it may not be, be
// as any other.
func (t *Table) forgetContest(m *station) {
	m.contest = contest{}
	t.frozen = slices.DeleteFunc(t.frozen, func(f thawing) bool { return f.station == m })
	m.see("")
}

// unplace forgets which stations are held behind a port.
func (s *segment) unplace(port string) {
	for mac, at := range s.placed {
		if at == port {
			delete(s.placed, mac)
		}
	}
}

// heldElsewhere tells whether a station is held behind another port of the node.
func (s *segment) heldElsewhere(mac dataplane.MAC, at string) bool {
	place, held := s.placed[mac]
	return held && place != at
}

// resume has a station that is held here be here again, after whoever had it
// elsewhere has it no more.
func (t *Table) resume(m *station) {
	if at, held := m.segment.placed[m.mac]; held && m.local == nil && len(m.remotes) == 0 && !m.frozen() {
		t.appear(m.segment, m.mac, at, false)
	}
}
