package dhcp

import (
	"net/netip"
	"time"

	"frond/internal/dataplane"
)

// What is decided is said in the words of the client's protocol.

// keep tells who keeps guests from other addresses that one is about to be a
// client's: by the time that the client has it, it may speak from it.
func (a *agent) keep(r *request, address netip.Addr) {
	if r.source == r.mac { // else it is not known where the client is
		a.out.kept = append(a.out.kept, dataplane.LocalAddress{VNI: r.port.VNI, MAC: r.mac, IP: address, Port: r.port.Port})
	}
}

// offer tells a client which address is kept for it.
func (a *agent) offer(s *segment, r *request, address netip.Addr) {
	a.keep(r, address)
	if r.six != nil {
		a.advertise6(s, r, address)
		return
	}
	a.offer4(s, r, address)
}

// ack lets a client use an address for a term.
func (a *agent) ack(s *segment, r *request, e *entry, term time.Duration) {
	if r.six != nil {
		a.lease6(s, r, e.address, term)
	} else {
		a.ack4(s, r, e, term)
	}
	a.counts.Acks++
	if r.source != r.mac {
		return // who asks for others tells nothing of where they are
	}
	a.out.bound = append(a.out.bound, dataplane.LocalAddress{VNI: s.VNI, MAC: r.mac, IP: e.address, Port: r.port.Port})
}

// nak refuses; all nodes answer for all leases, so that this is the last word.
func (a *agent) nak(s *segment, r *request, why string, now time.Duration) {
	if r.six != nil {
		a.refuse6(s, r, why, now)
		return
	}
	a.counts.Naks++
	a.nak4(s, r, why)
}

// none tells a client that there is no address for it. One of IPv4 asks on.
func (a *agent) none(s *segment, r *request) {
	a.counts.Exhausted++
	if r.six != nil {
		a.none6(s, r, "all addresses are in use")
	}
}
