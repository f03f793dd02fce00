package evpn

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"time"

	"frond/internal/dataplane"
)

// MACStatus is where a MAC is taken to be.
type MACStatus struct {
	VNI      uint32
	MAC      dataplane.MAC
	IPs      []netip.Addr // that are its own, sorted
	Local    bool
	Port     string     // of a local one
	VTEP     netip.Addr // this node's own for a local one
	Sequence uint32
	Sticky   bool
	Since    time.Time
	Plugged  time.Time // of a local one: since when it is behind Port
	Held     bool      // of a local one: it stays there whatever other ports hear of it
	Silent   time.Time // of a local one: since when the kernel has not heard it; zero: it has
	Frozen   time.Time // until when it is not allowed to move; zero: it is
}

// MACs returns the MACs of a segment that are somewhere, sorted.
func (t *Table) MACs(vni uint32) []MACStatus {
	s, ok := t.segments[vni]
	if !ok {
		return nil
	}
	all := slices.AppendSeq(make([]MACStatus, 0, len(s.macs)), t.EachMAC(vni))
	slices.SortFunc(all, func(a, b MACStatus) int { return bytes.Compare(a.MAC[:], b.MAC[:]) })
	return all
}

// EachMAC yields what MACs returns, in no order: for who looks through all of
// them while things happen.
func (t *Table) EachMAC(vni uint32) iter.Seq[MACStatus] {
	return func(yield func(MACStatus) bool) {
		s, ok := t.segments[vni]
		if !ok {
			return
		}
		owned := make(map[dataplane.MAC][]netip.Addr)
		for ip, a := range s.addresses {
			owned[a.told] = append(owned[a.told], ip)
		}
		for mac, m := range s.macs {
			if m.owner.IsValid() && !yield(m.status(owned[mac])) {
				return
			}
		}
	}
}

func (m *station) status(ips []netip.Addr) MACStatus {
	slices.SortFunc(ips, netip.Addr.Compare)
	status := MACStatus{VNI: m.segment.config.VNI, MAC: m.mac, IPs: ips, VTEP: m.owner, Since: m.since, Frozen: m.contest.until}
	if m.local != nil {
		status.Local, status.Port, status.Plugged, status.Silent = true, m.local.port.name, m.local.since, m.local.silent
		status.Sequence, status.Sticky = m.local.sequence, m.local.sticky
		status.Held = m.segment.placed[m.mac] == status.Port
	} else if winner := best(m.remotes, reachableRoute); winner != nil {
		status.Sequence, status.Sticky = winner.claim.sequence, winner.claim.sticky
	}
	return status
}

// Guests counts the MACs of a segment that are behind ports of this node.
func (t *Table) Guests(vni uint32) int {
	s, ok := t.segments[vni]
	if !ok {
		return 0
	}
	guests := 0
	for _, p := range s.ports {
		guests += len(p.macs)
	}
	return guests
}

// Holder returns the MAC that an address of a segment belongs to, if it does to
// any, with as much of its status as tells whether it is still there.
func (t *Table) Holder(vni uint32, ip netip.Addr) (MACStatus, bool) {
	s, ok := t.segments[vni]
	if !ok {
		return MACStatus{}, false
	}
	a, ok := s.addresses[ip]
	if !ok || a.told.IsZero() {
		return MACStatus{}, false
	}
	holder := MACStatus{VNI: vni, MAC: a.told}
	if m, ok := s.macs[a.told]; ok && m.local != nil {
		holder.Local, holder.Port, holder.Silent = true, m.local.port.name, m.local.silent
	}
	return holder, true
}

// RouteStatus is one EVPN route that this node tells or has been told.
type RouteStatus struct {
	Notation string // [2]:[0]:[48]:[mac]:[32]:[ip]
	Type     int    // 2, 3 or 5
	RD       string
	VNI      uint32
	VTEP     netip.Addr
	Sequence uint32
	Sticky   bool
	Local    bool
	Peer     netip.Addr // the session that it came by; zero for a local one
	Since    time.Time  // zero for a local one
	// Used: it counts here. One that does not belongs to a segment that this
	// node takes no part in, leads to a VTEP that cannot be reached, or tells a
	// prefix.
	Used bool
}

// Routes returns all routes, sorted by VNI, type, what they say, and origin.
func (t *Table) Routes() []RouteStatus {
	all := make([]RouteStatus, 0, len(t.originated)+len(t.routes))
	for _, o := range t.originated {
		status := routeStatus(o.route)
		status.Local, status.Used = true, true
		all = append(all, status)
	}
	for _, r := range t.routes {
		status := routeStatus(r.route)
		status.Peer, status.Since = r.peer, r.since
		status.Used = r.attached && r.vtep.reachable
		all = append(all, status)
	}
	slices.SortFunc(all, func(a, b RouteStatus) int {
		return cmp.Or(cmp.Compare(a.VNI, b.VNI), cmp.Compare(a.Type, b.Type),
			strings.Compare(a.Notation, b.Notation), strings.Compare(a.RD, b.RD))
	})
	return all
}

func routeStatus(r Route) RouteStatus {
	a := r.attributes()
	status := RouteStatus{Notation: r.String(), RD: a.RD.String(), VNI: a.VNI, VTEP: a.VTEP}
	switch r := r.(type) {
	case MACIP:
		status.Type, status.Sequence, status.Sticky = typeMACIP, r.Sequence, r.Sticky
	case Multicast:
		status.Type = typeMulticast
	case Prefix:
		status.Type = typePrefix
	}
	return status
}

// VTEPs returns the other nodes' that want a segment's flooded frames and can
// be reached, sorted.
func (t *Table) VTEPs(vni uint32) []netip.Addr {
	s, ok := t.segments[vni]
	if !ok {
		return nil
	}
	return slices.Clone(s.flood)
}

// Problem is something that is wrong with a segment or with what peers tell.
type Problem struct {
	VNI   uint32 // 0: with none in particular
	Text  string
	Since time.Time
}

// Problems returns what is wrong, in a stable order. It looks through the
// whole table.
func (t *Table) Problems() []Problem {
	var all []Problem
	for _, s := range t.segments {
		all = append(all, t.segmentProblems(s)...)
	}
	all = append(all, t.malformed.problems()...)
	if n := t.crowded; n > 0 {
		all = append(all, Problem{Text: fmt.Sprintf("%s not taken in: more than %d of one MAC", count(n, "EVPN route"), maxRoutesPerStation)})
	}
	slices.SortFunc(all, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.VNI, b.VNI), strings.Compare(a.Text, b.Text))
	})
	return all
}

func (t *Table) segmentProblems(s *segment) []Problem {
	var all []Problem
	add := func(since time.Time, format string, args ...any) {
		all = append(all, Problem{VNI: s.config.VNI, Text: fmt.Sprintf(format, args...), Since: since})
	}
	for _, p := range s.ports {
		if p.refused > 0 {
			add(p.since, "port %s has brought %d MACs, which is its limit: %s refused", p.name, len(p.macs), count(p.refused, "further sighting"))
		}
	}
	for port, l := range s.loops {
		add(l.since, "port %s loops to port %s: it is taken out of %s until it does not; are two ports cabled together, or does a guest bridge them?",
			port, l.other, s.config.Bridge)
	}
	for port, o := range s.over {
		if p := s.ports[port]; p == nil || p.refused == 0 {
			add(o.since, "port %s has brought %d MACs, which is its limit: further ones are not told of", port, o.limit)
		}
	}
	for _, m := range s.macs {
		switch {
		case m.frozen():
			add(m.contest.until.Add(-freezeTime), "%s has moved more than %d times in %s: frozen at %s%s until %s; two guests with one MAC, or a loop?",
				m.mac, maxMoves, moveWindow, t.whereIs(m), also(m.seenAt), m.contest.until.Format(time.TimeOnly))
		case m.seenAt != "" && m.local != nil && s.heldElsewhere(m.mac, m.seenAt):
			add(time.Time{}, "%s is plugged in at port %s, and was seen at port %s: does somebody else use its MAC?", m.mac, m.local.port.name, m.seenAt)
		case m.seenAt != "" && m.local == nil:
			add(time.Time{}, "%s was seen at port %s, but %s says that it never moves from there", m.mac, m.seenAt, m.owner)
		}
	}
	for ip, a := range s.addresses {
		if a.frozen() {
			add(a.contest.until.Add(-freezeTime), "%s has changed its MAC more than %d times in %s: frozen at %s until %s; two guests with one address?",
				ip, maxMoves, moveWindow, a.told, a.contest.until.Format(time.TimeOnly))
		}
	}
	return all
}

// whereIs names a station's place.
func (t *Table) whereIs(m *station) string {
	if m.local != nil {
		return "port " + m.local.port.name
	}
	return m.owner.String()
}

func also(port string) string {
	if port == "" {
		return ""
	}
	return " (seen at port " + port + " too)"
}

func count(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Addresses are those that belong to a MAC of a segment, sorted.
func (t *Table) Addresses(vni uint32, mac dataplane.MAC) []netip.Addr {
	s, ok := t.segments[vni]
	if !ok {
		return nil
	}
	m, ok := s.macs[mac]
	if !ok {
		return nil
	}
	said := slices.Clone(m.addresses)
	for _, r := range m.remotes {
		said = append(said, r.ip())
	}
	var all []netip.Addr
	for _, ip := range said {
		if a, ok := s.addresses[ip]; ok && a.told == mac {
			all = append(all, ip)
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}
