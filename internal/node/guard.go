package node

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"frond/internal/bgp"
	"frond/internal/evpn"
	"frond/internal/guard"
	"frond/internal/plan"
	"frond/internal/status"
)

// guarded is what the loop knows of the guard.
type guarded struct {
	filter *routeFilter // nil: peers may announce what they like
	of     *plan.Plan   // that filter was made for
}

// routeFilter puts the document's rules before the speaker.
type routeFilter struct{ *guard.Routes }

// EVPN reads what the rules ask of a route. One that cannot be read may be
// told on as far as its distinguisher goes: nobody uses it.
func (f *routeFilter) EVPN(r bgp.EVPNRoute, t bgp.Teller) bgp.Refusal {
	c := guard.Claim{RD: evpn.RDNode(r.NLRI)}
	route, err := evpn.Decode(r)
	if err != nil {
		return f.Routes.EVPN(c, t)
	}
	c.VTEPs = []netip.Addr{r.NextHop.Unmap()}
	switch route := route.(type) {
	case evpn.MACIP:
		c.VNI = route.VNI
	case evpn.Multicast:
		c.VNI, c.VTEPs = route.VNI, append(c.VTEPs, route.VTEP, route.Originator)
	case evpn.Prefix:
		c.VNI, c.Prefix = route.VNI, route.Prefix
	}
	return f.Routes.EVPN(c, t)
}

// filter is what the speaker is to take in of its peers. It stays the same
// one as long as the document's rules do.
func (l *loop) filter() bgp.Filter {
	g := &l.guarded
	if g.of != l.plan {
		g.of = l.plan
		switch routes := l.plan.Guard.Routes; {
		case routes == nil:
			g.filter = nil
		case g.filter == nil || !reflect.DeepEqual(g.filter.Routes, routes):
			g.filter = &routeFilter{routes}
		}
	}
	if g.filter == nil {
		return nil
	}
	return g.filter
}

// notation is an EVPN route as operators know it.
func notation(r bgp.EVPNRoute) string {
	route, err := evpn.Decode(r)
	if err != nil {
		return fmt.Sprintf("EVPN route %x", r.NLRI)
	}
	return route.String()
}

// The conditions of the guard.
const (
	routesRefused   = "routes-refused"   // a peer tells what the document does not let it
	duplicateOrigin = "duplicate-origin" // two nodes say that a loopback is theirs
)

// judgeGuard puts on the board what the guard refuses.
func (l *loop) judgeGuard() {
	var wrong []status.Condition
	for _, name := range l.portNames() {
		refused := l.refusedOn(name)
		if len(refused) == 0 {
			continue
		}
		first := refused[0]
		text := fmt.Sprintf("%s by %s is refused: %s", first.Route, first.Peer, first.Reason)
		if len(refused) > 1 {
			text += fmt.Sprintf(" (and %d more, see frond guard)", len(refused)-1)
		}
		wrong = append(wrong, status.Condition{Name: routesRefused, Subject: name, Severity: status.Warning, Text: text})
		for _, r := range refused {
			if r.Owner != "" {
				wrong = append(wrong, status.Condition{Name: duplicateOrigin, Subject: r.Route, Severity: status.Failure,
					Text: fmt.Sprintf("%s says that the loopback of %s is its own, heard from %s: is a machine cloned, or not what it says?", originOf(r), r.Owner, r.Peer)})
			}
		}
	}
	l.board.Replace([]string{routesRefused, duplicateOrigin}, wrong)
}

func originOf(r status.RefusedRoute) string {
	if r.Node != "" {
		return r.Node
	}
	return fmt.Sprintf("AS %d", r.Origin)
}

// refusedOn are the routes that the neighbour on a port tells and is refused.
func (l *loop) refusedOn(port string) []status.RefusedRoute {
	p := l.ports[port]
	peer, ok := l.peers[p.neighbor.WithZone(port)]
	if !ok {
		return nil
	}
	refused := make([]status.RefusedRoute, 0, len(peer.Refused.Standing))
	for _, r := range peer.Refused.Standing {
		refused = append(refused, l.describeRefused(port, peer, r))
	}
	slices.SortFunc(refused, func(a, b status.RefusedRoute) int { return strings.Compare(a.Route, b.Route) })
	return refused
}

func (l *loop) describeRefused(port string, peer bgp.PeerStatus, r bgp.Refused) status.RefusedRoute {
	d := status.RefusedRoute{Port: port, Peer: peer.Hostname, Route: r.Prefix.String(), Origin: r.Origin, Reason: string(r.Why)}
	if d.Peer == "" {
		d.Peer = peer.Addr.WithZone("").String()
	}
	for _, n := range l.plan.Nodes {
		if n.ASN == peer.ASN && n.Loopback == peer.RouterID {
			d.Peer = n.Name
		}
	}
	if !r.Prefix.IsValid() {
		d.Route = notation(r.EVPN)
	}
	for _, n := range l.plan.Nodes {
		if n.ASN == r.Origin {
			d.Node = n.Name
		}
		if r.Prefix.IsValid() && r.Prefix.IsSingleIP() && (n.Loopback == r.Prefix.Addr() || n.Loopback6 == r.Prefix.Addr()) && n.ASN != r.Origin {
			d.Owner = n.Name
		}
	}
	return d
}
