package node

import (
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/plan"
	"frond/internal/ra"
)

// port is an interface that may carry a cable of the fabric, and who is behind it.
type port struct {
	link  dataplane.Link
	heard []ra.Neighbor // in the order in which they came
	// looped: our own advertisements come back over this very port.
	looped bool
	// neighbor is the link-local address, without zone, that the session is
	// with; zero: nobody.
	neighbor  netip.Addr
	since     time.Time // when carrier or neighbour last changed
	wasPeered bool      // there was a session on this port in this run
	// met is the peer that last had a session here: who it is stays known
	// while BGP has none configured.
	met   bgp.PeerStatus
	flaps uint64 // sessions that left Established with peers that are no longer configured
}

// connected tells whether packets can leave: carrier, and an address to send from.
func (p *port) connected() bool { return p.link.Carrier && p.link.LinkLocal.IsValid() }

// lost keeps the count of a peer that is no longer configured.
func (p *port) lost(peer bgp.PeerStatus) {
	p.flaps += peer.Flaps
	if peer.State == bgp.Established {
		p.flaps++
	}
}

// unsettled are the ports that something was heard of since they were settled.
type unsettled struct {
	all   bool // of links, of the document, or of the run before
	ports map[string]struct{}
}

func (u *unsettled) port(name string) {
	if u.ports == nil {
		u.ports = make(map[string]struct{})
	}
	u.ports[name] = struct{}{}
}

// settle brings ports into line with links and decides who is the neighbour on
// each. A node may have hundreds, so it looks at those alone that it concerns.
func (l *loop) settle(now time.Time) {
	fresh := l.unsettled
	l.unsettled = unsettled{}
	if fresh.all {
		l.settleLinks(now)
		fresh.ports = make(map[string]struct{}, len(l.ports))
		for name := range l.ports {
			fresh.port(name)
		}
	}
	moved := fresh.all
	for name := range fresh.ports {
		if p, ok := l.ports[name]; ok {
			moved = l.settleNeighbor(name, p, now) || moved
		}
	}
	if moved {
		l.legs = l.findLegs()
		l.watched = l.sessions()
	}
	if len(fresh.ports) > 0 || fresh.all {
		l.forgetCables()
	}
}

// settleLinks brings ports into line with links.
func (l *loop) settleLinks(now time.Time) {
	for name := range l.ports {
		if _, ok := l.links[name]; !ok || !l.plan.IsPort(name) {
			delete(l.ports, name)
		}
	}
	for name, link := range l.links {
		if l.plan.IsPort(name) {
			l.settleLink(name, link, now)
		}
	}
	if names := slices.Sorted(maps.Keys(l.ports)); l.planned.plan != l.plan || !slices.Equal(names, l.portNames) {
		l.portNames, l.planned = names, planned{l.plan, l.plan.Desired(names)}
	}
	l.discovering = l.discoveryPorts()
	clear(l.own)
	for name, p := range l.ports {
		if a := p.link.LinkLocal; a.IsValid() {
			l.own[a] = name
		}
	}
}

func (l *loop) settleLink(name string, link dataplane.Link, now time.Time) {
	p, ok := l.ports[name]
	if !ok || p.link.Index != link.Index {
		p = &port{since: now}
		l.ports[name] = p
	}
	if p.link.Carrier != link.Carrier {
		p.since = now
		l.log.Info("carrier", "port", name, "present", link.Carrier)
	}
	p.link = link
}

// settleNeighbor decides who is the neighbour on a port, and tells whether that is
// somebody else than before.
func (l *loop) settleNeighbor(name string, p *port, now time.Time) (changed bool) {
	if !p.connected() {
		p.heard, p.looped = nil, false
	}
	before := p.neighbor
	p.neighbor = netip.Addr{}
	if p.connected() {
		p.neighbor = choose(before, l.strangers(p), l.works(name), l.expectedOn(name))
	}
	if p.neighbor == before {
		return false
	}
	p.since = now
	l.log.Debug("neighbour chosen", "port", name, "address", orNobody(p.neighbor), "before", orNobody(before))
	return true
}

func orNobody(a netip.Addr) string {
	if !a.IsValid() {
		return "nobody"
	}
	return a.String()
}

// choose decides whom to have a session with on a cable. The neighbour that
// works stays, whoever else is heard and however silent it is itself. Else it
// is the newest that is heard, for who comes last was plugged in last; and
// while nobody is, the neighbour of the run before, if there was one.
func choose(now netip.Addr, heard []netip.Addr, works func(netip.Addr) bool, expected netip.Addr) netip.Addr {
	if now.IsValid() && works(now) {
		return now
	}
	if len(heard) > 0 {
		return heard[len(heard)-1]
	}
	return expected
}

// works tells of an address on a port whether a session with it stands or is
// about to return: nobody else takes its place then.
func (l *loop) works(name string) func(netip.Addr) bool {
	return func(a netip.Addr) bool {
		leg := dataplane.NextHop{Port: name, Via: a}
		peer := l.peers[plan.Address(leg)]
		if peer.State == bgp.Established || peer.Restarting {
			return true
		}
		c, ok := l.cable[leg]
		return ok && c.state.State == "up"
	}
}

// strangers are the neighbours heard on a port that are not this node itself.
func (l *loop) strangers(p *port) []netip.Addr {
	var others []netip.Addr
	for _, n := range p.heard {
		if l.own[n.Addr] == "" {
			others = append(others, n.Addr)
		}
	}
	return others
}

// loopsTo returns the port at the other end of the cable if that is this node's.
func (l *loop) loopsTo(p *port) string {
	if p.looped {
		return p.link.Name
	}
	for _, n := range p.heard {
		if name := l.own[n.Addr]; name != "" {
			return name
		}
	}
	return ""
}

// discoveryPorts are the ports to advertise and listen on. One that has no
// carrier is left out, so that its cable is discovered anew.
func (l *loop) discoveryPorts() []ra.Port {
	var ports []ra.Port
	for _, name := range l.portNames {
		p := l.ports[name]
		if !p.connected() {
			continue
		}
		mac, _ := net.ParseMAC(p.link.MAC) // a port without one sends none
		ports = append(ports, ra.Port{Name: name, Index: p.link.Index, Addr: p.link.LinkLocal, MAC: mac})
	}
	return ports
}

// findLegs gives the ways out to all neighbours, in the order of their ports.
func (l *loop) findLegs() []dataplane.NextHop {
	var legs []dataplane.NextHop
	for _, name := range l.portNames {
		if p := l.ports[name]; p.neighbor.IsValid() {
			legs = append(legs, dataplane.NextHop{Port: name, Via: p.neighbor})
		}
	}
	return legs
}

// neighbors are the legs that should have a BGP session: all whose path is
// not known to have failed.
func (l *loop) neighbors(now time.Time) []dataplane.NextHop {
	failed := func(leg dataplane.NextHop) bool { return l.cableFailed(leg, now) }
	if !slices.ContainsFunc(l.legs, failed) {
		return l.legs
	}
	return slices.DeleteFunc(slices.Clone(l.legs), failed)
}
