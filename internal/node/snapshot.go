package node

import (
	"strings"
	"time"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/plan"
	"frond/internal/status"
)

// down is the state of a port that no session is possible on.
const down = "down"

// snapshot is the node as it is now.
func (l *loop) snapshot(now time.Time) status.Snapshot {
	l.judge(now)
	l.judgeSegments()
	l.judgeStore(now)
	l.judgeGateways(now)
	l.judgeDHCP(now)
	l.judgeNames()
	l.judgeUplink()
	l.judgeGuard(now)
	l.judgeNetwork()
	l.judgeGuests()
	report := l.plane.Report()
	s := status.Snapshot{
		Fabric:     l.plan.Fabric,
		Node:       l.plan.Node.Name,
		Role:       string(l.plan.Node.Role),
		Ready:      l.converged,
		ASN:        l.plan.Node.ASN,
		Loopback:   l.plan.Node.Loopback.String(),
		Loopback6:  l.plan.Node.Loopback6.String(),
		Document:   l.document,
		Routes:     status.Totals{Desired: report.Desired, Installed: report.Installed},
		Uplink:     l.describeUplink(),
		Conditions: l.board.Conditions(),
	}
	for _, name := range l.portNames {
		s.Peers = append(s.Peers, l.peerOn(name, now))
	}
	return s
}

// peerOn says who is behind a port, and why there is no session if so.
func (l *loop) peerOn(name string, now time.Time) status.Peer {
	p := l.ports[name]
	s := status.Peer{Port: name, State: down, Since: p.since, BFD: "off",
		Received: counts([bgp.Families]int{}), Sent: counts([bgp.Families]int{})}
	if reason := l.whyNobody(p); reason != "" {
		s.Reason = reason
		return s
	}
	leg := dataplane.NextHop{Port: name, Via: p.neighbor}
	s.Address = p.neighbor.String()
	if p.met.Addr == plan.Address(leg) {
		introduce(&s, p.met)
	}
	if peer, ok := l.peers[plan.Address(leg)]; ok {
		describe(&s, peer)
		s.MalformedEVPN = l.segments.stations.MalformedFrom(peer.Addr)
	}
	s.Flaps += p.flaps
	established := s.State == string(bgp.Established)
	s.BFD = l.bfdWord(leg, established)
	switch c := l.cable[leg]; {
	case l.cableFailed(leg, now):
		s.State, s.Since, s.Reason = down, c.failed, bfdReason(c)
	case established:
	case c != nil && !c.failed.IsZero():
		s.Since, s.Reason = c.failed, strings.TrimSuffix(bfdReason(c)+"; "+s.Reason, "; ")
	case s.Reason == "":
		s.Reason = "the session is about to begin"
	}
	return s
}

// whyNobody says in words why a port has no neighbour; empty if it has one.
func (l *loop) whyNobody(p *port) string {
	switch {
	case p.neighbor.IsValid():
		return ""
	case !p.link.Up:
		return "the port is not up yet"
	case !p.link.Carrier:
		return "no carrier"
	case !p.link.LinkLocal.IsValid():
		return "the port has no IPv6 link-local address yet"
	case l.loopsTo(p) != "":
		return "the cable loops back to port " + l.loopsTo(p) + " of this node"
	}
	return "nobody answers on this cable"
}

// describe copies what the speaker knows of a session.
func describe(s *status.Peer, peer bgp.PeerStatus) {
	if peer.ASN != 0 {
		introduce(s, peer)
	}
	s.State, s.Reason, s.Since = string(peer.State), peer.Reason, peer.Since
	s.Key = string(peer.KeyFault)
	s.Restarting, s.Flaps, s.HoldSeconds = peer.Restarting, peer.Flaps, peer.Hold.Seconds()
	s.Received, s.Sent = counts(peer.Received), counts(peer.Sent)
	s.Malformed, s.Refused = peer.Messages.Malformed, peer.Refused.Count
	if peer.State == bgp.Established {
		s.Reason = ""
	}
}

// introduce copies who the peer said it is.
func introduce(s *status.Peer, peer bgp.PeerStatus) {
	s.Name, s.ASN, s.RouterID, s.Software = peer.Hostname, peer.ASN, peer.RouterID.String(), peer.Software
}

func counts(of [bgp.Families]int) map[string]int {
	named := make(map[string]int, bgp.Families)
	for family := range bgp.Families {
		named[family.String()] = of[family]
	}
	return named
}

// bfdWord is the BFD state as status shows it. One that stays down under an
// established session is one that the peer does not answer (see cable).
func (l *loop) bfdWord(leg dataplane.NextHop, established bool) string {
	if !l.plan.BFD.Enabled {
		return "off"
	}
	c, ok := l.cable[leg]
	switch {
	case !ok, established && c.tried:
		return "unanswered"
	case c.state.State == "admin-down":
		return down
	}
	return c.state.State
}

func bfdReason(c *cable) string {
	if c.state.Diagnostic == "" {
		return "BFD down"
	}
	return "BFD down: " + c.state.Diagnostic
}
