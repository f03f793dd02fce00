package evpn

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"frond/internal/dataplane"
)

const (
	// maxAddresses bounds those of one station; the oldest makes way.
	maxAddresses = 64
	// maxUnlearned bounds the stations of a segment of which an address was
	// seen before the MAC.
	maxUnlearned = 1024
)

// port is a bridge port that guests are behind.
type port struct {
	name    string
	macs    map[*station]struct{}
	silent  int // of macs
	refused uint64
	since   time.Time // of the first of refused
}

func (p *port) remove(m *station) {
	delete(p.macs, m)
	if !m.local.silent.IsZero() {
		p.silent--
	}
	p.refused = 0
}

// longestSilent is the station that was heard least lately of those that are not
// held there; nil if all are heard.
func (p *port) longestSilent() *station {
	if p.silent == 0 {
		return nil
	}
	var oldest *station
	for m := range p.macs {
		silent := m.local.silent
		_, held := m.segment.placed[m.mac]
		if !silent.IsZero() && !held && (oldest == nil || silent.Before(oldest.local.silent)) {
			oldest = m
		}
	}
	return oldest
}

// Observe takes in what the kernel tells of the guests on this node.
func (t *Table) Observe(event dataplane.OverlayEvent) {
	switch event := event.(type) {
	case dataplane.LocalMACs:
		for _, m := range event {
			t.localMAC(m)
		}
	case dataplane.LocalPlaces:
		for _, p := range event {
			t.place(p)
		}
	case dataplane.LocalAddresses:
		for _, a := range event {
			t.localAddress(a.VNI, a.MAC, a.IP)
		}
	case dataplane.LocalPortsGone:
		for _, p := range event {
			t.portGone(p.VNI, p.Port)
		}
	case dataplane.LocalLoops:
		for _, l := range event {
			t.loop(l)
		}
	case dataplane.LocalOverflows:
		for _, o := range event {
			t.overflow(o)
		}
	}
	t.settle()
}

func (t *Table) localMAC(m dataplane.LocalMAC) {
	s, ok := t.segments[m.VNI]
	switch {
	case !ok || m.MAC.IsZero() || m.MAC.IsGroup() || m.MAC == s.config.BridgeMAC():
	case m.Aged:
		t.aged(s, m.MAC, m.Port)
	default:
		t.appear(s, m.MAC, m.Port, m.Sticky)
	}
}

// appear takes note of a station that was seen here. One that is taken to be
// elsewhere is here from now on, with the next sequence number (RFC 7432 §15).
func (t *Table) appear(s *segment, mac dataplane.MAC, at string, sticky bool) {
	m, known := s.macs[mac]
	if known && m.local != nil {
		t.reappear(m, at, sticky)
		return
	}
	if s.heldElsewhere(mac, at) {
		if known {
			t.news.mac(s.config.VNI, mac, m.told) // the kernel has just forgotten it
		}
		return
	}
	var winner *remote
	if known {
		winner = best(m.remotes, anyRoute)
	}
	if winner != nil && !t.mayTake(m, winner, at, sticky) {
		return
	}
	p, ok := t.admit(s, at)
	if !ok {
		return
	}
	m = t.station(s, mac)
	m.local = &presence{port: p, since: t.config.Now(), sticky: sticky}
	p.macs[m] = struct{}{}
	m.see("")
	if winner != nil {
		m.local.sequence = next(winner.claim.sequence)
		t.inherit(m)
	}
	for _, ip := range slices.Clone(m.addresses) {
		t.claimAddress(m, ip)
	}
	t.touchMAC(m)
}

// reappear is for a station that is here already: it is heard again, perhaps
// on another port.
func (t *Table) reappear(m *station, at string, sticky bool) {
	if m.segment.heldElsewhere(m.mac, at) {
		m.see(at)
		return
	}
	if !m.local.silent.IsZero() {
		m.local.silent = time.Time{}
		m.local.port.silent--
	}
	if sticky != m.local.sticky {
		m.local.sticky = sticky
		t.touchMAC(m)
	}
	if m.local.port.name == at {
		if !m.frozen() {
			m.see("")
		}
		return
	}
	if !t.mayMove(m) {
		m.see(at)
		return
	}
	p, ok := t.admit(m.segment, at)
	if !ok {
		return
	}
	m.local.port.remove(m)
	m.local.port, m.local.since = p, t.config.Now()
	p.macs[m] = struct{}{}
}

// mayTake tells whether a station that is elsewhere may be taken to be here
// because it was seen here.
func (t *Table) mayTake(m *station, winner *remote, at string, sticky bool) bool {
	if winner.claim.sticky && !sticky {
		m.see(at)
		t.news.mac(m.segment.config.VNI, m.mac, m.told) // the kernel has just forgotten it
		return false
	}
	// The operator's word is no move that may be one too many.
	if !sticky && !t.mayMove(m) {
		m.see(at)
		return false
	}
	return true
}

// next is the sequence number after n; the last one has none.
func next(n uint32) uint32 {
	if n == math.MaxUint32 {
		return n
	}
	return n + 1
}

// admit returns a port that has room for one more station. On a full one the
// station that has been silent longest makes way; where none is silent, the
// newcomer is refused.
func (t *Table) admit(s *segment, name string) (*port, bool) {
	p, ok := s.ports[name]
	if !ok {
		p = &port{name: name, macs: make(map[*station]struct{})}
		s.ports[name] = p
	}
	if limit := s.config.MACLimit; limit == 0 || len(p.macs) < limit {
		return p, true
	}
	if m := p.longestSilent(); m != nil {
		t.leave(m)
		return p, true
	}
	if p.refused == 0 {
		p.since = t.config.Now()
	}
	p.refused++
	return nil, false
}

// aged makes a station count as silent: the kernel has not heard it for so
// long that it forgot it. It is not gone, it stays known as long as its port
// is there, but nothing holds it there any more.
func (t *Table) aged(s *segment, mac dataplane.MAC, port string) {
	m, ok := s.macs[mac]
	if !ok {
		return
	}
	if m.seenAt == port {
		m.see("")
	}
	if m.local == nil || m.local.port.name != port {
		return
	}
	if m.local.silent.IsZero() {
		m.local.silent = t.config.Now()
		m.local.port.silent++
	}
	if m.local.sticky {
		m.local.sticky = false
		t.touchMAC(m)
	}
}

// portGone forgets a port and the stations behind it.
func (t *Table) portGone(vni uint32, name string) {
	s, ok := t.segments[vni]
	if !ok {
		return
	}
	delete(s.over, name)
	delete(s.loops, name)
	s.unplace(name)
	for m := range s.doubted {
		if m.seenAt == name {
			m.see("")
		}
	}
	p, ok := s.ports[name]
	if !ok {
		return
	}
	for m := range p.macs {
		t.leave(m)
	}
	delete(s.ports, name)
}

// overflow takes note of a port with more behind it than the kernel's watch
// tells of.
func (t *Table) overflow(o dataplane.LocalOverflow) {
	s, ok := t.segments[o.VNI]
	if !ok {
		return
	}
	if !o.Over {
		delete(s.over, o.Port)
	} else if _, known := s.over[o.Port]; !known {
		s.over[o.Port] = overflow{o.Limit, t.config.Now()}
	}
}

// loop takes note of a port that loops, or does so no more. What moved too
// often meanwhile did so because of the loop.
func (t *Table) loop(l dataplane.LocalLoop) {
	s, ok := t.segments[l.VNI]
	if !ok {
		return
	}
	if !l.Looped {
		delete(s.loops, l.Port)
		return
	}
	s.loops[l.Port] = loop{l.Other, t.config.Now()}
	for _, f := range slices.Clone(t.frozen) {
		switch {
		case f.station != nil && f.station.segment == s:
			t.thaw(f.station)
		case f.address != nil && f.address.segment == s:
			t.thawAddress(f.address)
		}
	}
}

// localAddress takes note of an address that a station here says is its own.
// It may come before the station's MAC.
func (t *Table) localAddress(vni uint32, mac dataplane.MAC, ip netip.Addr) {
	s, ok := t.segments[vni]
	ip = ip.Unmap().WithZone("")
	if !ok || mac.IsZero() || mac.IsGroup() || !destination(ip) || mac == s.config.BridgeMAC() || s.config.Gateway.Holds(ip) {
		return
	}
	m := t.station(s, mac)
	t.remember(m, ip)
	if m.local != nil {
		t.claimAddress(m, ip)
	} else if len(s.unlearned) >= maxUnlearned {
		t.forgetUnlearned(s)
	}
	t.touchMAC(m)
}

func (t *Table) forgetUnlearned(s *segment) {
	for m := range s.unlearned {
		m.addresses = nil
		t.touchMAC(m)
	}
	clear(s.unlearned)
}
