package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/plan"
	"frond/internal/status"
	"frond/internal/uplink"
)

// uplinkWatch is what is used of uplink.Watcher.
type uplinkWatch interface {
	Set(uplink.Desired)
	Events() <-chan uplink.State
}

// sourceNAT is what is used of dataplane.NAT.
type sourceNAT interface {
	Set(dataplane.Masquerade)
	Refresh()
	Problem() (string, time.Time)
	Withdraw(context.Context) error
}

// exit is what the loop knows of the node's way out of the fabric.
type exit struct {
	watched uplink.Desired // that the watcher was told
	state   uplink.State   // that it told for that
	carrier bool
	// works are the routers that packets are sent to, by family; zero: none
	// that works. After a restart they are those that the kernel forwards
	// with, until it is known better.
	works [uplink.Families]netip.Addr
	since [uplink.Families]time.Time  // when works last changed
	told  [uplink.Families]netip.Addr // as the kernel was last told
	began bool
}

// uplinkChanged takes what the watcher says. What it says of another port, or
// of before the carrier last went, is of no use.
func (l *loop) uplinkChanged(s uplink.State) {
	if s.Desired == l.exit.watched {
		l.exit.state = s
	}
}

// adoptUplink takes over the routers that the kernel still forwards with by
// the run before, and tells whether the leg is one.
func (l *loop) adoptUplink(leg dataplane.NextHop) bool {
	u := l.plan.Uplink
	if u == nil || leg.Port != u.Port {
		return false
	}
	l.exit.works[uplink.Of(leg.Via)] = leg.Via
	return true
}

// applyUplink decides by which routers packets leave, and has the kernel do so.
func (l *loop) applyUplink(now time.Time) {
	e := &l.exit
	u := l.plan.Uplink
	var link dataplane.Link
	var masquerade dataplane.Masquerade
	if u != nil {
		link, masquerade = l.links[u.Port], u.Masquerade
	}
	if e.carrier != link.Carrier && e.began {
		l.log.Info("carrier of the uplink", "port", link.Name, "present", link.Carrier)
	}
	e.carrier, e.began = link.Carrier, true
	if d := uplinkToWatch(u, link); d != e.watched {
		if d.Port != e.watched.Port || d.Carrier != e.watched.Carrier {
			e.state.Families = [uplink.Families]uplink.Router{} // nobody was asked over this cable
		}
		if e.watched.Port != "" && d.Port != e.watched.Port {
			e.works = [uplink.Families]netip.Addr{}
		}
		e.watched = d
		l.way.Set(d)
	}
	l.nat.Set(masquerade)
	for f := range uplink.Families {
		works := e.decide(u, f)
		if works != e.works[f] {
			l.log.Info("way out of the fabric", "family", f.String(), "router", orNobody(works), "before", orNobody(e.works[f]))
		}
		if works != e.works[f] || e.since[f].IsZero() {
			e.works[f], e.since[f] = works, now
		}
		if works != e.told[f] {
			e.told[f] = works
			l.plane.UpdateRoutes([]dataplane.RouteUpdate{l.route(l.pathsTo(plan.Defaults[f]))})
			if works.IsValid() {
				l.plane.Then(l.nat.Refresh)
			}
		}
	}
}

// uplinkToWatch is what the watcher is to look after.
func uplinkToWatch(u *plan.Uplink, link dataplane.Link) uplink.Desired {
	if u == nil || link.Name == "" {
		return uplink.Desired{}
	}
	return uplink.Desired{
		Port: u.Port, Index: link.Index, MAC: link.MAC, Carrier: link.Carrier, DHCP: u.DHCP, LinkLocal: link.LinkLocal,
		Addresses: [uplink.Families]netip.Addr{u.Address.Addr(), u.Address6.Addr()},
		Routers:   [uplink.Families]netip.Addr{u.NextHop, u.NextHop6},
	}
}

// decide is the router that packets of a family are to leave by: one that
// answers, and while nobody was asked yet, the one that there was before.
func (e *exit) decide(u *plan.Uplink, f uplink.Family) netip.Addr {
	if u == nil || !e.carrier || f == uplink.IPv4 && e.strays(u) {
		return netip.Addr{}
	}
	router := e.state.Families[f]
	named := e.watched.Routers[f]
	if named.IsValid() && router.Addr != named {
		router = uplink.Router{} // of the document before
	}
	switch {
	case router.Verdict == uplink.Answers:
		return router.Addr
	case router.Verdict == uplink.Silent:
		return netip.Addr{}
	case router.Addr.IsValid() && router.Addr != e.works[f], named.IsValid() && named != e.works[f]:
		return netip.Addr{}
	}
	return e.works[f]
}

// strays tells that DHCP has given an address that is the fabric's own.
func (e *exit) strays(u *plan.Uplink) bool {
	given := e.state.Lease.Address
	return given.IsValid() && slices.ContainsFunc(u.Inside, func(p netip.Prefix) bool { return p.Overlaps(given.Masked()) })
}

// uplinkState is what the kernel is to hold of the uplink's port.
func (l *loop) uplinkState() dataplane.Uplink {
	u, e := l.plan.Uplink, &l.exit
	if u == nil {
		return dataplane.Uplink{}
	}
	leased := e.state.Lease.Address
	if !u.DHCP || e.strays(u) {
		leased = netip.Prefix{}
	}
	unsettled := u.DHCP && (e.state.Desired.Port != u.Port || e.state.Asking)
	return u.Desired(leased, unsettled)
}

// desiredPlane is the kernel's small state.
func (l *loop) desiredPlane() dataplane.Desired {
	d := l.planned.desired
	d.Uplink = l.uplinkState()
	return d
}

// uplinkRoutes are the default routes that the node announces: of the families
// that have a way out.
func (l *loop) uplinkRoutes() []bgp.Route {
	var routes []bgp.Route
	for f, router := range l.exit.works {
		if router.IsValid() {
			routes = append(routes, l.plan.Uplink.Announce(plan.Defaults[f]))
		}
	}
	return routes
}

// route is what the kernel needs for the best paths to a prefix. An exit's own
// way out goes before what others announce. While guests of an elected gateway
// are looked for here, they are found without its address too: that goes before
// another node has it.
func (l *loop) route(paths bgp.Paths) dataplane.RouteUpdate {
	if f := slices.Index(plan.Defaults[:], paths.Prefix); f >= 0 && l.plan.Uplink != nil && l.exit.works[f].IsValid() {
		return l.plan.Uplink.Route(paths.Prefix, l.exit.works[f])
	}
	if paths.Local {
		if bridge, ok := l.electedBridge(paths.Prefix); ok {
			return l.plan.Attached(paths.Prefix, bridge)
		}
	}
	return l.plan.Route(paths)
}

// pathsTo are the best paths to a prefix that BGP has told.
func (l *loop) pathsTo(prefix netip.Prefix) bgp.Paths {
	if paths, ok := l.table.paths[prefix]; ok {
		return paths
	}
	return bgp.Paths{Prefix: prefix}
}

// failedUplink are the legs over the uplink that must carry nothing now.
func (l *loop) failedUplink() []dataplane.NextHop {
	var failed []dataplane.NextHop
	for f, router := range l.exit.state.Families {
		if l.plan.Uplink != nil && router.Verdict == uplink.Silent && router.Addr.IsValid() && !l.exit.works[f].IsValid() {
			failed = append(failed, l.plan.Uplink.Leg(router.Addr))
		}
	}
	return failed
}

// The conditions of an uplink.
const (
	uplinkDown = "uplink-down"
	natNotSet  = "source-nat-not-set"
)

var uplinkConditions = []string{uplinkDown, natNotSet}

// judgeUplink puts on the board what is wrong with the way out.
func (l *loop) judgeUplink() {
	var wrong []status.Condition
	if u := l.plan.Uplink; u != nil {
		wrong = l.exit.problems(u)
		if text, since := l.nat.Problem(); text != "" {
			wrong = append(wrong, status.Condition{Name: natNotSet, Subject: u.Port, Severity: status.Failure, Since: since,
				Text: "packets leave with addresses that nobody outside can answer to: " + text})
		}
	}
	l.board.Replace(uplinkConditions, wrong)
}

// problems are what is wrong with the uplink. Of a family that neither the
// document nor the kernel gives a router, nothing is expected.
func (e *exit) problems(u *plan.Uplink) []status.Condition {
	problem := func(text string, since time.Time) status.Condition {
		return status.Condition{Name: uplinkDown, Subject: u.Port, Severity: status.Failure, Text: text, Since: since}
	}
	switch {
	case e.watched.Port == "":
		return []status.Condition{problem("there is no interface "+u.Port+": is the uplink's port named rightly?", time.Time{})}
	case !e.carrier:
		return []status.Condition{problem("the uplink has no carrier: is its cable plugged in, and the other end up?", e.since[uplink.IPv4])}
	case e.strays(u):
		return []status.Condition{problem(fmt.Sprintf("DHCP gives %s, which is inside of the fabric: does the uplink lead to another port of it?", e.state.Lease.Address), time.Time{})}
	}
	var texts []string
	expected := [uplink.Families]bool{u.DHCP || u.NextHop.IsValid(), u.NextHop6.IsValid()}
	for f, router := range e.state.Families {
		if e.works[f].IsValid() || router.Verdict != uplink.Silent {
			continue
		}
		switch {
		case router.Addr.IsValid():
			texts = append(texts, fmt.Sprintf("the router %s does not answer (%s): is it up, and is it the right next hop?", router.Addr, router.Reason))
		case f == int(uplink.IPv4) && u.DHCP:
			texts = append(texts, "there is no DHCP lease: "+e.state.Trouble)
		case expected[f] || !e.anybody():
			texts = append(texts, fmt.Sprintf("no %s router is known: set next_hop, or a default route over %s", uplink.Family(f), u.Port))
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return []status.Condition{problem(strings.Join(texts, "; "), time.Time{})}
}

// anybody tells whether any family has a router, working or not.
func (e *exit) anybody() bool {
	return slices.ContainsFunc(e.state.Families[:], func(r uplink.Router) bool { return r.Addr.IsValid() })
}

// describeUplink is the way out as status shows it; nil where there is none.
func (l *loop) describeUplink() *status.Uplink {
	u, e := l.plan.Uplink, &l.exit
	if u == nil {
		return nil
	}
	described := &status.Uplink{Port: u.Port, Routers: []status.Router{}, LeaseEnds: optional(e.state.Lease.Ends)}
	for f := range uplink.Families {
		router := e.works[f]
		works := router.IsValid()
		if !works {
			router = e.state.Families[f].Addr
		}
		if router.IsValid() {
			described.Routers = append(described.Routers, status.Router{
				Family: strings.ToLower(f.String()), Address: router.String(), Works: works, Since: e.since[f],
			})
		}
	}
	return described
}
