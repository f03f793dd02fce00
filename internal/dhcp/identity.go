package dhcp

import "time"

// Identifiers are no secret: guests of a node hear each other ask. What tells
// who asks is the MAC that a message comes from, which the guard lets be behind
// one port only, and that port itself.

// identify decides who has sent a message. An identifier that a client with
// another MAC, behind another port, has a lease by is that one's; who sends it
// from his own MAC besides, such as a clone of a machine, is known by that. It
// tells false for a message in the name of somebody who is elsewhere.
func (a *agent) identify(s *segment, r *request, now time.Duration) bool {
	own := ClientOf(r.mac)
	if mac, ok := r.client.mac(); ok && mac != r.mac {
		r.client = own
	}
	if e := a.book.entries[r.asksFor()]; e.lives(now) && e.Client == own {
		r.client = own // it goes on as what it was given the address as
	}
	if a.isThere(s, r, now) {
		return true
	}
	if r.source != r.mac || r.client == own {
		return false
	}
	r.client = own
	return a.isThere(s, r, now)
}

// isThere tells that nobody else than who has sent a message can be the client
// that it names.
func (a *agent) isThere(s *segment, r *request, now time.Duration) bool {
	if j := a.jobs[jobKey{r.link(), r.client}]; j != nil && j.request.port != r.port && j.request.mac != r.source {
		return false
	}
	if e := a.book.of(s.Segment, r.client); e.lives(now) {
		return e.place() == place{a.node, r.port.Port, r.six != nil} || e.MAC == r.source
	}
	_, reserved := s.reservations[r.client]
	_, byMAC := r.client.mac()
	return r.source == r.mac || !reserved || !byMAC
}
