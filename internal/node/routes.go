package node

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/plan"
	"frond/internal/status"
)

// table is the best paths to every prefix, and how many of them take each leg.
type table struct {
	paths map[netip.Prefix]bgp.Paths
	uses  map[dataplane.NextHop]int
}

func newTable() *table {
	return &table{paths: make(map[netip.Prefix]bgp.Paths), uses: make(map[dataplane.NextHop]int)}
}

// put notes the whole truth about a prefix.
func (t *table) put(p bgp.Paths) {
	t.count(t.paths[p.Prefix], -1)
	if !p.Local && len(p.Paths) == 0 {
		delete(t.paths, p.Prefix)
		return
	}
	t.paths[p.Prefix] = p
	t.count(p, 1)
}

func (t *table) count(p bgp.Paths, by int) {
	for _, path := range p.Paths {
		leg := plan.Leg(path.Peer)
		t.uses[leg] += by
		if t.uses[leg] == 0 {
			delete(t.uses, leg)
		}
	}
}

// pathsChanged hands changed best paths to the kernel.
func (l *loop) pathsChanged(changed []bgp.Paths) {
	updates := make([]dataplane.RouteUpdate, len(changed))
	for i, p := range changed {
		l.table.put(p)
		updates[i] = l.route(p)
	}
	l.plane.UpdateRoutes(updates)
	l.plane.Then(l.speaker.Applied)
}

// repeatRoutes hands down every route again, after the plan has changed what
// they look like.
func (l *loop) repeatRoutes() {
	updates := make([]dataplane.RouteUpdate, 0, len(l.table.paths))
	for _, p := range l.table.paths {
		updates = append(updates, l.route(p))
	}
	l.plane.UpdateRoutes(updates)
}

// failedLegs are the legs that routes use, of this run or the one before, and
// that must carry nothing now.
func (l *loop) failedLegs(now time.Time) []dataplane.NextHop {
	var failed []dataplane.NextHop
	consider := func(leg dataplane.NextHop) {
		if l.isFailed(leg, now) && !slices.Contains(failed, leg) {
			failed = append(failed, leg)
		}
	}
	for leg := range l.table.uses {
		consider(leg)
	}
	for leg := range l.expected {
		consider(leg)
	}
	return append(failed, l.failedUplink()...)
}

// isFailed tells whether packets over a leg would be lost: its port has no
// carrier, somebody else is behind it by now, or BFD has lost who is.
func (l *loop) isFailed(leg dataplane.NextHop, now time.Time) bool {
	p, ok := l.ports[leg.Port]
	if !ok || !p.link.Carrier {
		return true
	}
	if p.neighbor.IsValid() && p.neighbor != leg.Via {
		return true
	}
	return l.cableFailed(leg, now)
}

// Routes returns the best paths to all prefixes inside prefix, itself
// included, or all for the zero Prefix, and whether the kernel holds them.
func (n *Node) Routes(prefix netip.Prefix) []status.Route {
	var found []bgp.Paths
	var names map[netip.Addr]string
	var installed func(bgp.Paths) bool
	n.ask(context.Background(), func(l *loop) {
		found, names = l.table.inside(prefix), l.names()
		installed = installedBy(l.plan, l.plane)
	})
	slices.SortFunc(found, func(a, b bgp.Paths) int { return a.Prefix.Compare(b.Prefix) })
	routes := make([]status.Route, len(found))
	for i, p := range found {
		routes[i] = routeOf(p, names)
		routes[i].Installed = installed(p)
	}
	return routes
}

func (t *table) inside(prefix netip.Prefix) []bgp.Paths {
	var found []bgp.Paths
	for p, paths := range t.paths {
		if !prefix.IsValid() || prefix.Bits() <= p.Bits() && prefix.Contains(p.Addr()) {
			found = append(found, paths)
		}
	}
	return found
}

// names are the host names that peers told.
func (l *loop) names() map[netip.Addr]string {
	names := make(map[netip.Addr]string, len(l.peers))
	for addr, peer := range l.peers {
		names[addr] = peer.Hostname
	}
	return names
}

// installedBy compares with the kernel: it must hold exactly the next hops
// that BGP wants. What is originated here is not a route of the kernel's.
func installedBy(p *plan.Plan, plane dataPlane) func(bgp.Paths) bool {
	return func(paths bgp.Paths) bool {
		want := p.Route(paths)
		have, ok := plane.Installed(paths.Prefix)
		return paths.Local || ok && sameLegs(want.NextHops, have)
	}
}

func sameLegs(a, b []dataplane.NextHop) bool {
	order := func(x, y dataplane.NextHop) int {
		return cmp.Or(cmp.Compare(x.Port, y.Port), x.Via.Compare(y.Via))
	}
	return slices.Equal(slices.SortedFunc(slices.Values(a), order), slices.SortedFunc(slices.Values(b), order))
}

func routeOf(p bgp.Paths, names map[netip.Addr]string) status.Route {
	route := status.Route{Prefix: p.Prefix.String(), Local: p.Local}
	for _, path := range p.Paths {
		route.NextHops = append(route.NextHops, status.NextHop{
			Port:    path.Peer.Zone(),
			Address: path.Peer.WithZone("").String(),
			Name:    names[path.Peer],
			Stale:   path.Stale,
		})
	}
	if len(p.Paths) > 0 {
		route.ASPath = p.Paths[0].ASPath
	}
	slices.SortFunc(route.NextHops, func(a, b status.NextHop) int {
		return cmp.Or(cmp.Compare(a.Port, b.Port), cmp.Compare(a.Address, b.Address))
	})
	return route
}
