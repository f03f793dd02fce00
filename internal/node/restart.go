package node

import (
	"net/netip"
	"slices"
	"time"

	"frond/internal/bgp"
	"frond/internal/plan"
)

// deferral bounds how long best paths are held back after a restart for
// peers of the run before (Selection_Deferral_Timer, RFC 4724 §4.1).
const deferral = 15 * time.Second

// begin tells whether desired sets may be handed down: the kernel was looked
// at and has told its links. The first time, it takes note of the peers whose
// routes of the run before the kernel still forwards with.
func (l *loop) begin(now time.Time) bool {
	if l.began {
		return true
	}
	if !l.adopted || l.links == nil {
		return false
	}
	l.began, l.adoptedAt, l.unsettled.all = true, now, true
	for _, leg := range l.plane.AdoptedNextHops() {
		if !l.adoptUplink(leg) {
			l.expected[leg] = struct{}{}
		}
	}
	l.log.Info("kernel adopted", "legsOfTheRunBefore", len(l.expected), "restart", len(l.awaited()) > 0)
	return true
}

// awaited are the peers of the run before that may still be there: those
// behind a port with carrier that nobody else was found on.
func (l *loop) awaited() []netip.Addr {
	var peers []netip.Addr
	for leg := range l.expected {
		link, ok := l.links[leg.Port]
		if !ok || !link.Carrier || !l.plan.IsPort(leg.Port) {
			continue
		}
		if p, ok := l.ports[leg.Port]; !ok || !p.neighbor.IsValid() || p.neighbor == leg.Via {
			peers = append(peers, plan.Address(leg))
		}
	}
	slices.SortFunc(peers, netip.Addr.Compare)
	return peers
}

// readTime bounds how long a node that was restarted waits for what its kernel
// knows of guests.
const readTime = time.Second

// speechDue is when BGP may begin. After a restart it waits until it can tell
// of the guests here, too: peers drop what they have kept from the run before
// and not been told again (RFC 4724 §4.2), and would send around here meanwhile.
func (l *loop) speechDue(now time.Time) time.Time {
	if l.segments.read || len(l.segments.here) == 0 || len(l.awaited()) == 0 {
		return now
	}
	return l.adoptedAt.Add(readTime)
}

// restart is what the speaker has to know: whether to wait, and for whom.
// Without a route of a run before, there is nothing to wait for.
func (l *loop) restart() bgp.GracefulRestart {
	peers := l.awaited()
	if len(peers) == 0 {
		return bgp.GracefulRestart{}
	}
	return bgp.GracefulRestart{Restarting: true, Expect: peers, Deferral: deferral}
}

// expectedOn is the neighbour that the run before had on a port: until all
// has converged, it counts as there though it was not heard yet, so that its
// BFD session goes on and BGP need not wait for discovery.
func (l *loop) expectedOn(name string) netip.Addr {
	var found netip.Addr
	for leg := range l.expected {
		if leg.Port == name && (!found.IsValid() || leg.Via.Less(found)) {
			found = leg.Via
		}
	}
	return found
}

// complete is called when every expected peer has told all that it has, or
// was waited for long enough: what is not desired by now may go.
func (l *loop) complete() {
	if l.converged {
		return
	}
	l.converged, l.unsettled.all = true, true
	clear(l.expected)
	l.plane.Complete()
	l.overlay.Complete()
	notifyReady()
	l.log.Info("converged", "prefixes", len(l.table.paths), "peers", len(l.peers))
}
