package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/fabric"
	"frond/internal/gateway"
	"frond/internal/plan"
	"frond/internal/quorum"
	"frond/internal/status"
)

// electedGateways is what is used of gateway.Gateway.
type electedGateways interface {
	SetSegments([]gateway.Segment)
	SetGuests(map[string]int)
	Leave(context.Context) error
	Report() gateway.Report
}

// quorumGateways is what is used of quorum.Quorum.
type quorumGateways interface {
	SetPlace(quorum.Place)
	SetSegments([]gateway.Segment)
	SetSpread(quorum.Spread)
	SetNames(map[string]string)
	Drain(bool)
	Leave(context.Context) error
	Report() gateway.Report
}

// heldGateways is what is used of heldByEither.
type heldGateways interface {
	SetSegments(here []dataplane.Segment, byLXD map[string]bool)
	Held() map[string]uint32
	Changed() <-chan struct{}
}

// gateways is what the loop knows of elected gateways.
type gateways struct {
	plan   *plan.Plan        // that told is of
	told   []gateway.Segment // those of the whole fabric that the store decides about
	place  quorum.Place      // of this node's member of the hypervisors' cluster
	guests map[string]int
	held   map[string]uint32 // terms of those that this node has, by segment
	routes []bgp.Route       // that lead to them
	former []formerRoute     // in the order of their end
}

// formerRoute leads to a gateway that this node no longer has. It is told for
// a moment yet: whoever has the gateway now tells a route that comes later, and
// until that is known everywhere, nobody looks for ways that are none.
type formerRoute struct {
	route bgp.Route
	until time.Time
}

// lingerTime is how long that moment is: many times what a route takes through
// a fabric.
const lingerTime = time.Second

// applyGateways has this node take part in elections as soon as it can
// forward, and tells of the gateways that have come to it.
func (l *loop) applyGateways(now time.Time) {
	g := &l.gateways
	for len(g.former) > 0 && !now.Before(g.former[0].until) {
		g.former, l.told.routes = g.former[1:], false
	}
	if l.converged || len(l.expected) > 0 { // one that was restarted forwards already
		if g.plan != l.plan {
			g.plan, g.told = l.plan, electedSegments(l.plan, fabric.ByStore)
			l.elected.SetSegments(g.told)
			l.held.SetSegments(l.segments.here, byLXD(l.plan))
			l.quorum.SetSpread(quorum.Spread(l.plan.Spread))
			l.quorum.SetNames(namesOf(l.plan.Nodes))
			l.quorum.SetSegments(electedSegments(l.plan, fabric.ByLXD))
		}
	}
	if place := placeOf(l.guests.state); place != g.place {
		g.place = place
		l.quorum.SetPlace(place)
	}
	if guests := l.guestsOfElected(); !maps.Equal(guests, g.guests) {
		g.guests = guests
		l.elected.SetGuests(guests)
	}
	if held := l.held.Held(); !maps.Equal(held, g.held) {
		g.held = held
		before := g.routes
		l.tellHeld()
		for _, route := range before {
			if !slices.ContainsFunc(g.routes, func(r bgp.Route) bool { return r.Prefix == route.Prefix }) {
				g.former = append(g.former, formerRoute{route, now.Add(lingerTime)})
			}
		}
	}
}

// announced are the routes to gateways that are told now.
func (g *gateways) announced() []bgp.Route {
	all := slices.Clone(g.routes)
	for _, former := range g.former {
		if !slices.ContainsFunc(all, func(r bgp.Route) bool { return r.Prefix == former.route.Prefix }) {
			all = append(all, former.route)
		}
	}
	return all
}

// electedBridge is the bridge of the elected gateway with this prefix, if this
// node takes part in its segment.
func (l *loop) electedBridge(prefix netip.Prefix) (string, bool) {
	for _, s := range l.segments.here {
		if s.Gateway.Elected && (s.Gateway.Address.Masked() == prefix || s.Gateway.Address6.Masked() == prefix) {
			return s.Bridge, true
		}
	}
	return "", false
}

// electedSegments are all of the fabric that an election decides about, also
// those that this node has no part in.
func electedSegments(p *plan.Plan, by fabric.Election) []gateway.Segment {
	var all []gateway.Segment
	for _, g := range p.Elected(by) {
		all = append(all, gateway.Segment{Name: g.Segment, Nodes: g.Nodes, Locality: g.Locality})
	}
	return all
}

// tellHeld tells EVPN and BGP of the gateways that this node has now.
func (l *loop) tellHeld() {
	terms := make(map[uint32]uint32)
	l.gateways.routes = nil
	for _, s := range l.segments.here {
		term, held := l.gateways.held[s.Name]
		if !held || !s.Gateway.Elected {
			continue
		}
		terms[s.VNI] = term
		for _, p := range []netip.Prefix{s.Gateway.Address, s.Gateway.Address6} {
			if p.IsValid() {
				l.gateways.routes = append(l.gateways.routes, bgp.Route{Prefix: p.Masked(), Sequence: term})
			}
		}
	}
	l.segments.stations.SetHeld(terms)
	l.told.routes = false
}

// guestsOfElected counts the guests here that may draw a gateway to them.
func (l *loop) guestsOfElected() map[string]int {
	counts := make(map[string]int)
	for _, s := range l.gateways.told {
		if !s.Locality {
			continue
		}
		i := slices.IndexFunc(l.segments.here, func(here dataplane.Segment) bool { return here.Name == s.Name })
		if i < 0 {
			continue
		}
		if n := l.segments.stations.Guests(l.segments.here[i].VNI); n > 0 {
			counts[s.Name] = n
		}
	}
	return counts
}

// handOverTime bounds how long a node that stops waits for others to take over
// its gateways.
const handOverTime = 2 * time.Second

// handOver has other nodes take over the gateways of this one, which stops.
func (l *loop) handOver() {
	if l.handing != nil {
		return
	}
	handed := make(chan struct{})
	l.handing = handed
	go func() { // run waits for it
		defer close(handed)
		ctx, cancel := context.WithTimeout(context.Background(), handOverTime)
		defer cancel()
		if err := errors.Join(l.elected.Leave(ctx), l.quorum.Leave(ctx)); err != nil {
			l.log.Warn("elected gateways are not handed over, other nodes take them when their lease is over", "error", err)
		}
	}()
}

// gatewayConditions are those that gateway.Report gives, and that of the node.
var gatewayConditions = []string{gateway.ConditionStoreAway, gateway.ConditionNoNode, gateway.ConditionNotTaken, gateway.ConditionAddress, gateway.ConditionNameTwice, quorum.ConditionAway, nodeDrained}

// nodeDrained tells that the operator wants no elected gateways here.
const nodeDrained = "node-drained"

func (l *loop) judgeGateways(now time.Time) {
	report := l.electionReport()
	wrong := slices.DeleteFunc(slices.Clone(report.Conditions), func(c status.Condition) bool {
		return c.Name == gateway.ConditionStoreAway && now.Sub(l.store.Report().Since) < storeGrace ||
			c.Name == quorum.ConditionAway && now.Sub(l.adoptedAt) < storeGrace
	})
	if slices.Contains(report.Drained, l.plan.Node.Name) {
		wrong = append(wrong, status.Condition{Name: nodeDrained, Subject: l.plan.Node.Name, Severity: status.Warning,
			Text: fmt.Sprintf("drained: no elected gateway comes here until \"frond undrain %s\"", l.plan.Node.Name)})
	}
	l.board.Replace(gatewayConditions, wrong)
}

// electionReport is what both elections say, each of its own gateways.
func (l *loop) electionReport() gateway.Report {
	r, other := l.elected.Report(), l.quorum.Report()
	r.Gateways = slices.Concat(r.Gateways, other.Gateways)
	r.Drained = slices.Concat(r.Drained, other.Drained)
	r.Conditions = slices.Concat(r.Conditions, other.Conditions)
	return r
}

// Gateways returns the gateways of all segments of the fabric.
func (n *Node) Gateways() []status.Gateway {
	var all []status.Gateway
	n.ask(context.Background(), func(l *loop) {
		report := l.electionReport()
		for _, s := range l.plan.Gateways() {
			all = append(all, l.describeGateway(s, report))
		}
	})
	return all
}

func (l *loop) describeGateway(s fabric.Segment, report gateway.Report) status.Gateway {
	g := status.Gateway{Segment: s.Name, VNI: s.VNI, Mode: string(s.Gateway.Mode), Addresses: []string{}}
	for _, a := range []netip.Addr{s.Gateway.Address, s.Gateway.Address6} {
		if a.IsValid() {
			g.Addresses = append(g.Addresses, a.String())
		}
	}
	if s.Gateway.Mode == fabric.Anycast {
		g.Here = slices.Contains(s.Nodes, l.plan.Node.Name)
		return g
	}
	_, g.Here = l.gateways.held[s.Name]
	for _, e := range report.Gateways {
		if e.Segment != s.Name {
			continue
		}
		g.Holder, g.Next, g.Why, g.Term = e.Holder, e.Next, e.Why, e.Term
		g.LeftSeconds, g.Score, g.Weight = e.Left.Seconds(), e.Score, e.Weight
		g.Since = optional(e.Since)
	}
	if s.Gateway.Election == fabric.ByLXD && g.Holder == "" {
		g.Holder = l.announcer(s.Prefix, s.Prefix6)
	}
	return g
}

// announcer is the node whose announcement of one of the prefixes is the best,
// if its AS is of one node alone. Who has a gateway that LXD's cluster decides
// about, no store knows.
func (l *loop) announcer(prefixes ...netip.Prefix) string {
	for _, prefix := range prefixes {
		paths := l.table.paths[prefix.Masked()].Paths
		if len(paths) == 0 || len(paths[0].ASPath) == 0 {
			continue
		}
		as := paths[0].ASPath[len(paths[0].ASPath)-1]
		if i := slices.IndexFunc(l.plan.Nodes, func(n fabric.Node) bool { return n.ASN == as }); i >= 0 && !l.plan.Nodes[i].InternalPeers {
			return l.plan.Nodes[i].Name
		}
	}
	return ""
}

// machine tells this kernel's network namespace apart from any other, of this
// machine or another one, and from itself before it was booted.
func machine() string {
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	space, _ := os.Readlink("/proc/self/ns/net")
	return strings.TrimSpace(string(boot)) + " " + space
}

// VolatileKeys are the beginnings of the store's keys that say which node has
// which elected gateway at the moment: a backup of them would be of use to nobody.
func VolatileKeys() []string {
	var all []string
	for _, prefix := range gateway.VolatileKeys {
		all = append(all, gatewayKeys+prefix)
	}
	return all
}
