package dhcp

import (
	"net/netip"
	"time"

	"frond/internal/dataplane"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// heard takes in a frame that came in by a guest's port.
func (a *agent) heard(port dataplane.LocalPort, frame []byte, now time.Duration) {
	if mac, ip, ok := parseARPReply(frame); ok {
		a.claimed(port, mac, ip, now)
		return
	}
	r, ok, ours := readRequest(port, frame)
	if !ours {
		return
	}
	if !ok {
		a.counts.Malformed++
		return
	}
	a.handle(r, now)
}

// readRequest reads a frame, and tells whether it is a whole message of a client,
// and whether it is for DHCP servers at all.
func readRequest(port dataplane.LocalPort, frame []byte) (r request, ok, ours bool) {
	if d, six := parseFrame6(frame); six {
		r, ok = parseRequest6(port, d)
		return r, ok, true
	}
	payload, ours := parseFrame(frame)
	if !ours {
		return request{}, false, false
	}
	r, ok = parseRequest(port, payload)
	r.source = dataplane.MAC(frame[6:])
	return r, ok, true
}

// handle decides what a client's message is answered with.
func (a *agent) handle(r request, now time.Duration) {
	s := a.segments[r.link()]
	if s == nil {
		return
	}
	if r.six != nil && a.handle6(s, &r, now) {
		return
	}
	if !a.synced {
		return // without the leases nothing can be said, neither yes nor no
	}
	a.tick(now) // whose time is over can be given
	if r.six == nil && !a.identify(s, &r, now) {
		a.counts.Posed++
		return
	}
	a.counts.count(r.kind)
	switch r.kind { //nolint:exhaustive // the others are a server's
	case dhcpv4.MessageTypeDiscover:
		a.discover(s, r, now)
	case dhcpv4.MessageTypeRequest:
		a.request(s, r, now)
	case dhcpv4.MessageTypeDecline:
		a.decline(s, &r, now)
	case dhcpv4.MessageTypeRelease:
		a.release(s, &r, now)
	case dhcpv4.MessageTypeInform:
		a.inform(s, &r)
	}
}

// discover offers an address (RFC 2131 §4.3.1): the one that the client has,
// or one that nobody has, which is written down first, so that no other node
// offers it, and probed then.
func (a *agent) discover(s *segment, r request, now time.Duration) {
	if j := a.jobs[jobKey{r.link(), r.client}]; j != nil && j.request.kind == r.kind {
		j.request = r // sent once more, and still the same to do
		return
	}
	rapid := r.rapid
	e := a.book.of(s.Segment, r.client)
	if e != nil && a.keeps(s, &r, e, now) {
		switch live := e.Kind != released && now < e.over(); {
		case rapid:
			a.grant(s, r, e, !live, now)
			return
		case live && e.Kind == leased, live && now < e.over()-offerHold/2:
			if !a.writes.failing || e.promised(a.run, now) >= leastPromise {
				a.offer(s, &r, e.address)
			}
			return
		}
		a.reserve(s, r, e.address, e, offered, true, now)
		return
	}
	address, ok := a.choose(s, &r, now)
	if !ok {
		a.none(s, &r)
		return
	}
	if a.crowded(s, r.port, r.client, address) {
		a.turnAway(s, r.port, now)
		return
	}
	k := offered
	if rapid {
		k = leased
	}
	a.reserve(s, r, address, a.book.entries[address], k, true, now)
}

// keeps tells that a client is to keep the address that it has or had: the
// document lets it, none is reserved for it that it could have instead, and
// nobody else is there.
func (a *agent) keeps(s *segment, r *request, e *entry, now time.Duration) bool {
	if e.surrendered || !a.mayHave(s, r.client, e.address) || !a.vacant(s, r.mac, e.address) ||
		a.writes.pending[e.address] != nil && e.Kind != leased {
		return false
	}
	reserved, ok := s.reservations[r.client]
	return !ok || reserved.Address == e.address || !a.canGive(s, r.client, r.mac, reserved.Address, now)
}

// request is answered by what the client has (RFC 2131 §4.3.2).
func (a *agent) request(s *segment, r request, now time.Duration) {
	address := r.asksFor()
	if j := a.jobs[jobKey{r.link(), r.client}]; j != nil && j.request.kind == r.kind && j.address == address {
		j.request = r
		return
	}
	selecting := r.server.IsValid() && !r.ciaddr.IsValid()
	switch {
	case selecting && r.server != s.Server:
		return // it has taken another server's offer
	case !address.IsValid():
		return
	case !s.Prefix.Contains(address):
		a.nak(s, &r, "the address is not of this segment", now)
		return
	}
	e := a.book.entries[address]
	if e != nil && e.Client == r.client && e.Kind != declined {
		if !a.keeps(s, &r, e, now) {
			a.nak(s, &r, "the address is no longer for this client", now)
			return
		}
		a.grant(s, r, e, false, now)
		return
	}
	if selecting || !a.canGive(s, r.client, r.mac, address, now) {
		if a.writes.pending[address] == nil {
			a.nak(s, &r, "the address is not this client's", now)
		}
		return
	}
	if a.crowded(s, r.port, r.client, address) {
		a.turnAway(s, r.port, now)
		return
	}
	// It has an address that nothing is known of any more: since nobody else
	// has it, it may go on.
	a.reserve(s, r, address, e, leased, false, now)
}

// grant lets a client have what is its own: at once, if this node can promise
// it, and with the store's word if not.
func (a *agent) grant(s *segment, r request, e *entry, probe bool, now time.Duration) {
	if e.promised(a.run, now) >= s.Lease && !probe {
		a.ack(s, &r, e, s.Lease)
		if now-e.Sent >= s.Lease/4 || e.Ends.IsZero() {
			a.renewFor(s, e, &r, now)
		}
		return
	}
	if w := a.writes.pending[e.address]; w != nil {
		if w.delete || w.lease.Client != r.client || w.lease.Kind != leased {
			return // it will ask again
		}
		if j := a.begin(r, e.address, leased, probe); j != nil {
			w.job = j
		}
		return
	}
	if a.writes.failing {
		if term := e.promised(a.run, now); term >= leastPromise && !probe {
			a.ack(s, &r, e, min(term, s.Lease))
			a.renewFor(s, e, &r, now)
			return
		}
	}
	a.reserve(s, r, e.address, e, leased, probe, now)
}

// reserve has an address written down for a client, and the client answered
// when that is done.
func (a *agent) reserve(s *segment, r request, address netip.Addr, before *entry, k kind, probe bool, now time.Duration) {
	if a.writes.pending[address] != nil {
		return
	}
	if j := a.begin(r, address, k, probe); j != nil {
		a.write(address, before, a.record(s, before, &r, k, now), j, now)
	}
}

// renewFor writes back that a client has its lease for longer.
func (a *agent) renewFor(s *segment, e *entry, r *request, now time.Duration) {
	if a.writes.pending[e.address] == nil {
		a.write(e.address, e, a.record(s, e, r, leased, now), nil, now)
	}
}

// renew writes a lease anew as it is.
func (a *agent) renew(s *segment, e *entry, now time.Duration) {
	if a.writes.pending[e.address] != nil {
		return
	}
	l := e.lease
	l.Hold = max(s.hold(), e.keep(a.run, now))
	a.write(e.address, e, l, nil, now)
}

// record is what is written for a client that had before of an address.
func (a *agent) record(s *segment, before *entry, r *request, k kind, now time.Duration) lease {
	l := lease{
		Segment: s.Name, Client: r.client, MAC: r.mac, Kind: k, Port: r.port.Port,
		Circuit: r.circuit, Hostname: r.hostname, Since: a.wall(), Hold: s.hold(),
	}
	l.Named, l.Ends = l.Since, l.Since.Add(s.Lease)
	if k == offered {
		l.Hold, l.Ends = offerHold, l.Since.Add(offerHold)
	}
	if before == nil || before.Client != r.client || now >= before.over() {
		return l
	}
	if before.Kind == leased {
		l.Since = before.Since
	}
	if l.Hostname == "" {
		l.Hostname = before.Hostname
	}
	if l.Hostname == before.Hostname && before.Kind != released {
		l.Named = before.named()
	}
	l.Hold = max(l.Hold, before.keep(a.run, now))
	l.Moved = before.Moved || before.Node != a.node
	return l
}

// release takes an address back (RFC 2131 §4.3.4). If no other node can have
// promised it, others can have it at once.
func (a *agent) release(s *segment, r *request, now time.Duration) {
	e := a.book.entries[r.ciaddr]
	if e == nil || e.Client != r.client || e.Kind == declined || e.Kind == released || !s.Prefix.Contains(r.ciaddr) {
		return
	}
	a.giveUp(e, now)
}

// giveUp has an address given back.
func (a *agent) giveUp(e *entry, now time.Duration) {
	if a.writes.pending[e.address] != nil {
		return
	}
	e.surrendered = true
	l := e.lease
	l.Kind, l.Hold = released, e.keep(a.run, now)
	w := a.write(e.address, e, l, nil, now)
	w.delete = !e.Moved && (e.Node == a.node || e.Kind == declined)
}

// decline sets an address aside that the client has found somebody else at
// (RFC 2131 §4.3.3).
func (a *agent) decline(s *segment, r *request, now time.Duration) {
	e := a.book.entries[r.wanted]
	if e == nil || e.Client != r.client || e.Kind == declined || e.Kind == released || !s.Prefix.Contains(r.wanted) {
		return
	}
	a.counts.Conflicts++
	a.setAside(s, r.wanted, r.mac, r.port, now)
}
