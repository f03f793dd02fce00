package node

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/evpn"
	"frond/internal/guard"
	"frond/internal/plan"
	"frond/internal/status"
)

// guarded is what the loop knows of the guard.
type guarded struct {
	changed bool       // something that the rules for guests go by
	settles time.Time  // when the next guest has been at its place for long enough; zero: none will
	due     time.Time  // when they are to be made again; zero: they are as they should be
	next    time.Time  // when that may be, at the earliest
	rules   *plan.Plan // that they were made for
	drops   dropRate
	filter  *routeFilter // nil: peers may announce what they like
	of      *plan.Plan   // that filter was made for
	untold  int          // addresses and MACs of guests that the rules have no room for
	strictly
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

// guardKeeper is what is used of dataplane.Guarding.
type guardKeeper interface {
	Set(dataplane.Guard)
	Problem() (string, time.Time)
	Drops() ([]dataplane.GuardDrop, error)
	Withdraw(context.Context) error
}

// settling is how long a guest has to be behind a port until others are kept
// from being it. In a loop of cables none stays behind one for so long: rules
// would name the port that it was seen at last, and an agent that ends then
// would leave the guest cut off.
const settling = time.Second

// applyGuard has the kernel keep guests from what the document does not let
// them, by what is known of them now.
func (l *loop) applyGuard(now time.Time) {
	g := &l.guarded
	if g.rules != l.plan {
		g.changed, g.next = true, time.Time{}
	}
	if !g.settles.IsZero() && !now.Before(g.settles) {
		g.changed, g.settles = true, time.Time{}
	}
	if g.changed && g.due.IsZero() {
		g.due = later(now, g.next)
	}
	if g.due.IsZero() || now.Before(g.due) {
		return
	}
	g.changed, g.due, g.settles, g.rules = false, time.Time{}, time.Time{}, l.plan
	begin := time.Now()
	defer func() { g.next = afterPause(now, time.Since(begin)) }()
	if l.plan.Guard.Guests == nil {
		g.untold = 0
		l.guard.Set(dataplane.Guard{})
		return
	}
	here := guard.Here{Segments: l.segments.here, Links: l.links, Ports: l.portNames, Stations: make(map[string][]guard.Station)}
	if l.strict() {
		if here.Leases = l.granted(); here.Leases == nil {
			g.changed, g.due = true, now.Add(time.Second)
			if now.Sub(g.waited(now)) < strictPatience {
				return // the rules of the run before are in force meanwhile
			}
		}
		g.leases = here.Leases
	}
	for _, s := range l.segments.here {
		for m := range l.segments.stations.EachMAC(s.VNI) {
			if !m.Local && len(m.IPs) == 0 && !l.strict() {
				continue // nothing of it is its own here
			}
			station := guard.Station{MAC: m.MAC, IPs: m.IPs, Port: m.Port, Silent: !m.Silent.IsZero(), Held: m.Held}
			if m.Held {
				station.Given = l.givenTo(dataplane.MACKey{VNI: s.VNI, MAC: m.MAC})
			}
			if m.Local && m.Frozen.IsZero() {
				settles := m.Plugged.Add(settling)
				station.Settled = !now.Before(settles)
				if !station.Settled {
					g.settles = sooner(g.settles, settles)
				}
			}
			here.Stations[s.Name] = append(here.Stations[s.Name], station)
		}
	}
	rules, untold := l.plan.Guard.Guests.Rules(here)
	g.untold = untold
	l.guard.Set(rules)
}

// believe takes out of what guests say what the guard keeps them from saying:
// who listens on a port hears also what the rules drop.
func (l *loop) believe(event dataplane.OverlayEvent) dataplane.OverlayEvent {
	l.guarded.changed = true
	claims, ok := event.(dataplane.LocalAddresses)
	if !ok || l.plan.Guard.Guests == nil {
		return event
	}
	return slices.DeleteFunc(claims, func(a dataplane.LocalAddress) bool {
		var holder *guard.Station
		if m, ok := l.segments.stations.Holder(a.VNI, a.IP); ok {
			holder = &guard.Station{MAC: m.MAC, Port: m.Port, Silent: l.leaves(m, a.IP)}
		}
		return !l.plan.Guard.Guests.MayClaim(l.segmentName(a.VNI), a, holder, l.guarded.leases[l.segmentName(a.VNI)])
	})
}

// The conditions of the guard.
const (
	guardMissing    = "guard-missing"    // the kernel does not hold its rules
	guardFull       = "guard-full"       // there are more guests than its rules have room for
	guestDropped    = "guest-dropped"    // the guard drops much of what a guest sends
	routesRefused   = "routes-refused"   // a peer tells what the document does not let it
	duplicateOrigin = "duplicate-origin" // two nodes say that a loopback is theirs
)

// judgeGuard puts on the board what the guard refuses.
func (l *loop) judgeGuard(now time.Time) {
	var wrong []status.Condition
	for _, name := range l.portNames {
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
	wrong = append(wrong, l.guestConditions(now)...)
	l.board.Replace([]string{guardMissing, guardFull, guestDropped, routesRefused, duplicateOrigin}, wrong)
}

// guestConditions are what is wrong with the rules, and who runs into them.
func (l *loop) guestConditions(now time.Time) []status.Condition {
	var wrong []status.Condition
	if problem, since := l.guard.Problem(); problem != "" {
		wrong = append(wrong, status.Condition{Name: guardMissing, Subject: "kernel", Severity: status.Failure, Since: since,
			Text: "guests are not kept from what the document does not let them: " + problem})
	}
	if n := l.guarded.untold; n > 0 {
		what := "others can take them"
		if l.strict() {
			what = "guests cannot speak from them"
		}
		wrong = append(wrong, status.Condition{Name: guardFull, Subject: "kernel", Severity: status.Failure,
			Text: fmt.Sprintf("the guard's rules have no room for %d addresses and MACs of guests, and %s: make segments smaller, or turn the guard off", n, what)})
	}
	drops, err := l.guard.Drops()
	if err != nil {
		return wrong // Problem says it
	}
	for _, d := range l.guarded.drops.many(drops, now) {
		wrong = append(wrong, status.Condition{Name: guestDropped, Subject: d.Port, Severity: status.Warning,
			Text: fmt.Sprintf("%d packets by %s were dropped within a minute, most of all time by rule %s: see frond guard", d.Packets, d.Port, d.Rule)})
	}
	return wrong
}

// dropRate tells which ports have lately had much dropped. It is looked at when
// somebody asks for status.
type dropRate struct {
	since  time.Time // of before
	before map[string]uint64
	noisy  map[string]dataplane.GuardDrop // of the minute before since
}

const (
	dropSpan  = time.Minute
	manyDrops = 100 // packets within dropSpan
)

// many returns the ports with many packets dropped within a minute.
func (r *dropRate) many(drops []dataplane.GuardDrop, now time.Time) []dataplane.GuardDrop {
	total, most := make(map[string]uint64), make(map[string]dataplane.GuardDrop)
	for _, d := range drops {
		total[d.Port] += d.Packets
		if d.Packets > most[d.Port].Packets {
			most[d.Port] = d
		}
	}
	if r.since.IsZero() { // nobody knows when these were dropped
		r.since, r.before = now, total
		return nil
	}
	current := make(map[string]dataplane.GuardDrop)
	for port, packets := range total {
		if more := packets - min(packets, r.before[port]); more >= manyDrops {
			current[port] = dataplane.GuardDrop{Rule: most[port].Rule, Port: port, Packets: more}
		}
	}
	noisy := maps.Clone(current)
	if noisy == nil {
		noisy = make(map[string]dataplane.GuardDrop)
	}
	for port, d := range r.noisy {
		if _, ok := noisy[port]; !ok {
			noisy[port] = d
		}
	}
	if now.Sub(r.since) >= dropSpan {
		r.since, r.before, r.noisy = now, total, current
	}
	return slices.SortedFunc(maps.Values(noisy), func(a, b dataplane.GuardDrop) int { return strings.Compare(a.Port, b.Port) })
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

// maxGuestsNamed bounds the MACs that are named of one port.
const maxGuestsNamed = 8

// Guard says what peers and guests do that the document does not let them.
func (n *Node) Guard() status.Guard {
	g := status.Guard{Routes: []status.RefusedRoute{}, Drops: []status.GuardDrop{}}
	n.ask(context.Background(), func(l *loop) {
		for _, name := range l.portNames {
			g.Routes = append(g.Routes, l.refusedOn(name)...)
		}
		drops, err := l.guard.Drops()
		if err != nil {
			return // the condition guard-missing says so
		}
		for _, d := range drops {
			g.Drops = append(g.Drops, l.describeDrop(d))
		}
	})
	return g
}

func (l *loop) describeDrop(d dataplane.GuardDrop) status.GuardDrop {
	drop := status.GuardDrop{Rule: d.Rule, Port: d.Port, MACs: []string{}, Packets: d.Packets}
	for _, s := range l.segments.here {
		if d.Port != s.Bridge && l.links[d.Port].Master != s.Bridge {
			continue
		}
		drop.Segment = s.Name
		for _, m := range l.segments.stations.MACs(s.VNI) {
			if m.Port == d.Port && len(drop.MACs) < maxGuestsNamed {
				drop.MACs = append(drop.MACs, m.MAC.String())
			}
		}
	}
	return drop
}
