package native

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	seam "frond/internal/bgp"
)

// apply brings the speaker to a new desired state, touching only what differs.
func (s *Speaker) apply(machines context.Context, d seam.Desired) {
	before := s.desired
	if identity(before) != identity(d) || !endure(before.Keys, d.Keys) {
		s.removeAll() // every OPEN said something else, or was signed otherwise
	}
	s.desired = d
	s.setKeys(before.Keys, d.Keys)
	if before.Filter != d.Filter {
		s.judgeAnew()
	}
	wanted := make(map[netip.Addr]seam.Peer, len(d.Peers))
	for _, p := range d.Peers {
		wanted[p.Addr] = p
	}
	for addr, n := range s.neighbors {
		switch p, ok := wanted[addr]; {
		case !ok:
			s.removeNeighbor(n, ceaseDeconfigured)
		case p != n.peer:
			s.removeNeighbor(n, ceaseReconfigured)
		}
	}
	for addr, p := range wanted {
		if _, ok := s.neighbors[addr]; !ok {
			s.addNeighbor(machines, p)
		}
	}
	s.originate(d.Routes)
	if before.Shutdown != d.Shutdown && identity(before) == identity(d) {
		s.tellAll()
	}
	s.leaving = slices.DeleteFunc(s.leaving, ended)
	s.checkConverged()
}

// identity is what all sessions depend on.
func identity(d seam.Desired) local {
	return local{d.ASN, d.RouterID, d.Hostname, d.Restart.Time, d.Restart.Watched}
}

func (s *Speaker) addNeighbor(machines context.Context, p seam.Peer) {
	index := 0
	for s.indexes.has(index) {
		index++
	}
	s.indexes.add(index)
	ctx, remove := context.WithCancelCause(machines)
	n := &neighbor{
		addr:   p.Addr,
		peer:   p,
		index:  index,
		remove: remove,
		done:   make(chan struct{}),
		status: seam.PeerStatus{Addr: p.Addr, State: seam.Connect, Since: time.Now(), Reason: "connecting"},
	}
	n.machine = &machine{
		peer:       p,
		local:      identity(s.desired),
		port:       s.at.Port(),
		keys:       s.keys.Load,
		ban:        s.ban,
		inbound:    make(chan *net.TCPConn, parallel),
		report:     s.post,
		log:        s.log,
		restarting: s.restarting.Load,
		preserved:  s.desired.Restart.Restarting,
		candidates: make(map[*candidate]struct{}),
		progress:   make(chan progress),
		ended:      make(chan sessionEnd),
		heard:      make(chan witnessed),
	}
	s.neighbors[p.Addr] = n
	if conn := s.strangers.take(p.Addr, time.Now()); conn != nil {
		n.offer(conn)
	}
	go func() {
		defer close(n.done)
		n.machine.run(ctx)
	}()
	s.pending.peer(n)
}

// removeNeighbor ends a peer, telling it why by a subcode of Cease, and
// forgets its routes at once.
func (s *Speaker) removeNeighbor(n *neighbor, why uint8) {
	delete(s.neighbors, n.addr)
	n.remove(&notification{code: errCease, subcode: why})
	s.leaving = append(s.leaving, n)
	s.dropIdentity(n)
	s.forgetQueue(n)
	n.session = nil
	s.dropPaths(n, nil)
	s.indexes.remove(n.index)
	s.pending.gone(n)
}

func (s *Speaker) removeAll() {
	for _, n := range s.neighbors {
		s.removeNeighbor(n, ceaseReconfigured)
	}
}

func ended(n *neighbor) bool {
	select {
	case <-n.done:
		return true
	default:
		return false
	}
}

// forgetQueue takes a neighbor out of every destination's books, before its
// session's successor or another neighbor uses its index.
func (s *Speaker) forgetQueue(n *neighbor) {
	n.queue = queue{}
	n.owesEnd, n.owesRefresh = nil, false
	n.status.Sent = [seam.Families]int{}
	forget(s.unicast, n)
	forget(s.evpn, n)
}

func forget[K comparable](t *table[K], n *neighbor) {
	for _, e := range t.entries {
		e.sent.remove(n.index)
		e.queue.remove(n.index)
		t.collect(e)
	}
}

// message is something that a machine or a session tells the owner.
type message interface{ apply(*Speaker) }

type (
	// stateChanged is a state without a session.
	stateChanged struct {
		machine *machine
		state   seam.State
		reason  string
		fault   seam.KeyFault
	}
	sessionUp struct {
		machine *machine
		session *session
	}
	sessionDown struct {
		machine *machine
		session *session
		reason  string
		keep    bool
		// collided: another connection to the peer was preferred.
		collided bool
	}
	// drained: the session's writer has sent its batch.
	drained struct {
		machine *machine
		session *session
	}
	// refresh asks for everything of a family again (RFC 2918).
	refresh struct {
		machine *machine
		session *session
		family  seam.Family
	}
)

// neighborOf returns the neighbor that a message is about, unless it was
// removed meanwhile.
func (s *Speaker) neighborOf(m *machine) (*neighbor, bool) {
	n, ok := s.neighbors[m.peer.Addr]
	return n, ok && n.machine == m
}

// current is neighborOf for messages of a session: an older one has no say.
func (s *Speaker) current(m *machine, of *session) (*neighbor, bool) {
	n, ok := s.neighborOf(m)
	return n, ok && n.session == of
}

func (m stateChanged) apply(s *Speaker) {
	n, ok := s.neighborOf(m.machine)
	if !ok || n.session != nil {
		return
	}
	if n.status.State != m.state {
		n.status.State, n.status.Since = m.state, time.Now()
	}
	// That a next attempt has begun is no news as to why the last one failed.
	if m.state == seam.Idle || m.state == seam.Connect {
		n.status.Reason, n.status.KeyFault = m.reason, m.fault
		if n.ended != "" && n.ended != m.reason {
			n.status.Reason += " (the session before ended: " + n.ended + ")"
		}
	}
	s.pending.peer(n)
}

func (m sessionUp) apply(s *Speaker) {
	n, ok := s.neighborOf(m.machine)
	if !ok {
		return
	}
	a := m.session.agreement
	n.session, n.internal, n.routerID = m.session, a.internal, a.routerID
	n.epoch++
	n.idle, n.ended = true, ""
	n.refused.forget() // it tells all anew
	s.forgetQueue(n)
	n.status.State, n.status.Since, n.status.Reason = seam.Established, time.Now(), ""
	n.status.KeyFault = ""
	n.status.ASN, n.status.RouterID, n.status.Hostname, n.status.Software = a.asn, a.routerID, a.hostname, a.software
	n.status.Families, n.status.Hold = a.families, a.hold
	for f := range families {
		n.awaiting[f] = a.has(seam.Family(f)) && a.graceful
	}
	s.resumeAfterRestart(n)
	n.owesEnd = slices.Clone(a.families)
	tellEverything(s.unicast, n, &n.queue.unicast, nil)
	tellEverything(s.evpn, n, &n.queue.evpn, nil)
	s.log.Info("session established", "peer", n.addr, "name", a.hostname, "as", a.asn, "families", names(a.families))
	s.pending.peer(n)
	s.checkConverged()
}

// names are families as logs show them; a []Family is bytes to an encoder.
func names(families []seam.Family) string {
	all := make([]string, len(families))
	for i, f := range families {
		all[i] = f.String()
	}
	return strings.Join(all, " ")
}

func (m sessionDown) apply(s *Speaker) {
	n, ok := s.current(m.machine, m.session)
	if !ok {
		return
	}
	if !m.collided {
		s.dropStale(n) // RFC 4724 §4.2: nothing outlives two restarts unconfirmed
	}
	n.session, n.ended = nil, m.reason
	n.idle = false
	n.status.State, n.status.Since, n.status.Reason = seam.Connect, time.Now(), m.reason
	n.status.Flaps++
	s.forgetQueue(n)
	kept := m.keep && s.keepForRestart(n, m.session.agreement)
	if !kept {
		s.dropPaths(n, nil)
	}
	s.log.Warn("session down", "peer", n.addr, "name", n.status.Hostname, "reason", m.reason, "routesKept", kept)
	s.pending.peer(n)
}

func (m drained) apply(s *Speaker) {
	if n, ok := s.current(m.machine, m.session); ok {
		n.idle = true
	}
}

func (m refresh) apply(s *Speaker) {
	n, ok := s.current(m.machine, m.session)
	if !ok {
		return
	}
	if m.family == seam.EVPN {
		tellEverything(s.evpn, n, &n.queue.evpn, nil)
		return
	}
	tellEverything(s.unicast, n, &n.queue.unicast, func(p netip.Prefix) bool { return unicastFamily(p) == m.family })
}

// tellAll queues everything for everybody, as when all is to be said in
// another way.
func (s *Speaker) tellAll() {
	for _, n := range s.neighbors {
		if n.session != nil {
			tellEverything(s.unicast, n, &n.queue.unicast, nil)
			tellEverything(s.evpn, n, &n.queue.evpn, nil)
		}
	}
}

// tellEverything queues a table's destinations for one neighbor.
func tellEverything[K comparable](t *table[K], n *neighbor, queue *[]*entry[K], want func(K) bool) {
	for key, e := range t.entries {
		if (want == nil || want(key)) && !e.queue.has(n.index) {
			e.queue.add(n.index)
			*queue = append(*queue, e)
		}
	}
}
