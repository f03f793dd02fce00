package native

import (
	"encoding/binary"
	"net/netip"

	seam "frond/internal/bgp"
)

// pending is what the reader of Events has not been told yet, coalesced: at
// most one note per peer and per destination.
type pending struct {
	peers     map[netip.Addr]seam.PeerChanged
	counted   map[*neighbor]struct{} // whose counters alone have changed
	prefixes  map[netip.Prefix]struct{}
	routes    []*entry[string] // each once, see entry.pending
	converged bool
	applying  map[netip.Prefix]struct{} // told, and not yet in force; nil: nothing is

	ready seam.Event // composed, offered, not taken
}

// settled tells whether every path is in force and told.
func (p *pending) settled() bool { return p.applying == nil && len(p.prefixes) == 0 }

func (p *pending) peer(n *neighbor) {
	if p.peers == nil {
		p.peers = make(map[netip.Addr]seam.PeerChanged)
	}
	p.peers[n.addr] = seam.PeerChanged{Peer: n.report()}
}

func (p *pending) gone(n *neighbor) {
	p.peer(n)
	p.peers[n.addr] = seam.PeerChanged{Peer: n.report(), Gone: true}
	delete(p.counted, n)
}

func (p *pending) counters(n *neighbor) {
	if p.counted == nil {
		p.counted = make(map[*neighbor]struct{})
	}
	p.counted[n] = struct{}{}
}

func (p *pending) prefix(key netip.Prefix) {
	if p.prefixes == nil {
		p.prefixes = make(map[netip.Prefix]struct{})
	}
	p.prefixes[key] = struct{}{}
}

func (p *pending) route(e *entry[string]) {
	if !e.pending {
		e.pending = true
		p.routes = append(p.routes, e)
	}
}

// eventSize bounds how many destinations one event tells.
const eventSize = 4096

// nextEvent returns the event to offer and the channel to offer it on; the
// channel is nil while there is nothing to tell. Sessions come first, then
// paths, Converged after the paths that it speaks of, and counters last. While
// unicast paths are not in force yet, EVPN goes on: it does not depend on them.
func (s *Speaker) nextEvent() (seam.Event, chan<- seam.Event) {
	p := &s.pending
	if p.ready == nil {
		p.ready = s.composeEvent()
	}
	if p.ready == nil {
		return nil, nil
	}
	return p.ready, s.events
}

func (s *Speaker) eventTaken() { s.pending.ready = nil }

func (s *Speaker) composeEvent() seam.Event {
	p := &s.pending
	for addr, e := range p.peers {
		delete(p.peers, addr)
		return e
	}
	if s.restarting.Load() {
		return nil // the kernel still holds the routes of the run before
	}
	if len(p.routes) > 0 || len(p.prefixes) > 0 && p.applying == nil {
		return s.composePaths()
	}
	if p.applying != nil {
		return nil
	}
	if p.converged {
		p.converged = false
		return seam.Converged{}
	}
	for n := range p.counted {
		delete(p.counted, n)
		return seam.PeerChanged{Peer: n.report()}
	}
	return nil
}

// Applied tells that the unicast paths that were told last are in force.
func (s *Speaker) Applied() {
	select {
	case s.applied <- struct{}{}:
	default: // there is one to be taken already
	}
}

// announceApplied passes on to peers what is in force now. What has changed
// again meanwhile comes again.
func (s *Speaker) announceApplied() {
	for key := range s.pending.applying {
		_, again := s.pending.prefixes[key]
		if e, ok := s.unicast.entries[key]; ok && !again {
			s.tellUnicast(e)
		}
	}
	s.pending.applying = nil
}

func (s *Speaker) composePaths() seam.PathsChanged {
	p := &s.pending
	var event seam.PathsChanged
	if p.applying == nil && len(p.prefixes) > 0 {
		p.applying = make(map[netip.Prefix]struct{})
		event.Unicast = s.composeUnicast()
	}
	event.EVPN = s.composeEVPN()
	return event
}

func (s *Speaker) composeEVPN() []seam.EVPNPath {
	p := &s.pending
	count := min(len(p.routes), eventSize)
	if count == 0 {
		return nil
	}
	all := make([]seam.EVPNPath, count)
	for i, e := range p.routes[:count] {
		all[i] = evpnPath(e)
		e.pending = false
		s.evpn.collect(e)
	}
	if p.routes = p.routes[count:]; len(p.routes) == 0 {
		p.routes = nil // let the array go
	}
	return all
}

func (s *Speaker) composeUnicast() (all []seam.Paths) {
	p := &s.pending
	for key := range p.prefixes {
		if len(all) == eventSize {
			break
		}
		delete(p.prefixes, key)
		p.applying[key] = struct{}{}
		all = append(all, s.paths(key))
	}
	return all
}

func (s *Speaker) paths(key netip.Prefix) seam.Paths {
	paths := seam.Paths{Prefix: key}
	e, ok := s.unicast.entries[key]
	if !ok {
		return paths
	}
	if e.ours() {
		paths.Local = true
		return paths
	}
	paths.Paths = make([]seam.Path, e.best)
	for i, p := range e.paths[:e.best] {
		paths.Paths[i] = seam.Path{Peer: p.peer.addr, ASPath: p.attrs.asPath, Communities: p.attrs.communities, Stale: p.stale()}
	}
	return paths
}

func evpnPath(e *entry[string]) seam.EVPNPath {
	if len(e.paths) == 0 {
		return seam.EVPNPath{Key: e.key, Gone: true}
	}
	best := e.paths[0]
	return seam.EVPNPath{Key: e.key, Route: evpnAsTold(best.wire, best.attrs), Peer: best.peer.addr}
}

func encodeExtended(communities []uint64) string {
	var b []byte
	for _, c := range communities {
		b = binary.BigEndian.AppendUint64(b, c)
	}
	return string(b)
}

func decodeExtended(wire string) []uint64 {
	communities := make([]uint64, 0, len(wire)/8)
	for b := []byte(wire); len(b) >= 8; b = b[8:] {
		communities = append(communities, binary.BigEndian.Uint64(b))
	}
	return communities
}
