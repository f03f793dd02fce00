package evpn

import (
	"bytes"
	"net/netip"
	"time"

	"frond/internal/dataplane"
)

// station is a MAC on a segment and everything that is claimed of it.
type station struct {
	segment   *segment
	mac       dataplane.MAC
	local     *presence    // nil: not here
	remotes   []*remote    // MACIP routes, in the order of their coming
	addresses []netip.Addr // seen of it here, the latest last
	contest   contest
	seenAt    string     // the port where it was seen while it was not allowed to move there
	owner     netip.Addr // the VTEP that it is taken to be at, this node's own for a local one
	since     time.Time  // of owner
	told      netip.Addr // the VTEP of its forwarding entry; zero: none
	touched   bool
	removed   bool
}

// presence is how a station is here.
type presence struct {
	port     *port
	since    time.Time // of port
	sequence uint32
	sticky   bool
	silent   time.Time // since when the kernel has not heard it; zero: it has
}

// claim is one node's word on where a MAC, or whose an address, is.
type claim struct {
	sticky   bool
	sequence uint32
	vtep     netip.Addr
	mac      dataplane.MAC
}

// beats orders claims the same way on every node, whatever came first: what
// never moves (RFC 7432 §15.2), then the highest sequence number, then the
// lowest VTEP (§7.7). The MAC tells claims of one address by one node apart.
func (c claim) beats(other claim) bool {
	if c.sticky != other.sticky {
		return c.sticky
	}
	if c.sequence != other.sequence {
		return c.sequence > other.sequence
	}
	if d := c.vtep.Compare(other.vtep); d != 0 {
		return d < 0
	}
	return bytes.Compare(c.mac[:], other.mac[:]) < 0
}

// best returns the route that claims most; nil if there is none.
func best(routes []*remote, counts func(*remote) bool) *remote {
	var winner *remote
	for _, r := range routes {
		if counts(r) && (winner == nil || r.claim.beats(winner.claim)) {
			winner = r
		}
	}
	return winner
}

func anyRoute(*remote) bool { return true }

func reachableRoute(r *remote) bool { return r.vtep.reachable }

func (t *Table) localClaim(m *station) claim {
	return claim{sticky: m.local.sticky, sequence: m.local.sequence, vtep: t.config.VTEP, mac: m.mac}
}

// station returns what is known of a MAC, or a new one to be filled.
func (t *Table) station(s *segment, mac dataplane.MAC) *station {
	m, ok := s.macs[mac]
	if !ok {
		m = &station{segment: s, mac: mac}
		s.macs[mac] = m
	}
	return m
}

// decide finds out where a station is, after something about it has changed.
func (t *Table) decide(m *station) {
	if m.removed {
		return
	}
	t.news.Guests = t.news.Guests || m.local != nil
	winner := best(m.remotes, reachableRoute)
	if m.local != nil && winner != nil && winner.claim.beats(t.localClaim(m)) && t.mayMove(m) {
		// RFC 7432 §15: whoever holds the lesser claim withdraws. Should the
		// station be here after all, its next frame says so.
		t.leave(m)
	}
	if m.local == nil && m.unopposed(winner) {
		t.thaw(m)
	}
	t.resume(m)
	t.settleOwner(m, winner)
	t.announce(m)
	t.collect(m)
}

// unopposed tells whether what kept a station from being taken to be here is
// over: nobody else has a claim any more, or none that forbids moves.
func (m *station) unopposed(winner *remote) bool {
	if m.frozen() {
		return winner == nil
	}
	if m.seenAt == "" {
		return false
	}
	blocker := best(m.remotes, anyRoute)
	return blocker == nil || !blocker.claim.sticky
}

// see notes a port where a station was seen without being taken to be there;
// none if it is empty.
func (m *station) see(at string) {
	m.seenAt = at
	if at == "" {
		delete(m.segment.doubted, m)
	} else {
		m.segment.doubted[m] = struct{}{}
	}
}

func (t *Table) settleOwner(m *station, winner *remote) {
	var owner, entry netip.Addr
	switch {
	case m.local != nil:
		owner = t.config.VTEP
	case winner != nil:
		owner, entry = winner.vtep.addr, winner.vtep.addr
	}
	if owner != m.owner {
		m.owner, m.since = owner, t.config.Now()
	}
	if entry != m.told {
		m.told = entry
		t.news.mac(m.segment.config.VNI, m.mac, entry)
	}
}

// announce originates the routes of a station that is here, one for the MAC
// alone and one for each of its addresses, and takes them back of one that
// is not.
func (t *Table) announce(m *station) {
	key := originKey{vni: m.segment.config.VNI, mac: m.mac}
	if m.local == nil {
		t.retract(key)
		return
	}
	route := MACIP{Attributes: t.attributes(m.segment), MAC: m.mac, Sequence: m.local.sequence, Sticky: m.local.sticky}
	t.originate(key, route)
	for _, ip := range m.addresses {
		if a, ok := m.segment.addresses[ip]; ok && a.local == m {
			route.IP = ip
			t.originate(addressKey(key.vni, m.mac, ip), route)
		}
	}
}

// collect forgets a station of which nothing is known any more.
func (t *Table) collect(m *station) {
	s := m.segment
	if m.local != nil || len(m.remotes) > 0 {
		delete(s.unlearned, m)
		return
	}
	if len(m.addresses) > 0 {
		s.unlearned[m] = struct{}{}
		return
	}
	m.see("")
	delete(s.unlearned, m)
	delete(s.macs, m.mac)
	m.removed = true
}

// leave makes a station be here no longer.
func (t *Table) leave(m *station) {
	t.news.Guests = true
	for _, ip := range m.addresses {
		if a, ok := m.segment.addresses[ip]; ok && a.local == m {
			a.local = nil
			t.retract(addressKey(m.segment.config.VNI, m.mac, ip))
			t.touchAddress(a)
		}
	}
	m.addresses = nil
	m.local.port.remove(m)
	m.local = nil
	t.touchMAC(m)
}
