package dhcp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"frond/internal/dataplane"
	"frond/internal/status"
)

// Nothing keeps a guest from saying to be thousands of clients, or from
// declining and claiming one address after the other. So what is held on the
// word of those behind one port is counted, and bounded by PortLimit: the rest
// of the ranges is for the others.

// place is a guest's port, on whichever node.
type place struct{ node, port string }

func (l *lease) place() place { return place{l.Node, l.Port} }

// count notes that an entry holds an address for who is behind its port.
func (b *book) count(e *entry) {
	if e.Port != "" && e.address.Is4() { // there are enough of the others
		e.counted = true
		b.held[e.place()]++
	}
}

// uncount notes that it does no longer.
func (b *book) uncount(e *entry) {
	if !e.counted {
		return
	}
	e.counted = false
	if b.held[e.place()]--; b.held[e.place()] == 0 {
		delete(b.held, e.place())
	}
}

// crowded tells that those behind a port have as many addresses as they may, and
// that this would be one more: none that is reserved for the client.
func (a *agent) crowded(s *segment, port dataplane.LocalPort, client Client, address netip.Addr) bool {
	if owner, reserved := s.reserved[address]; s.PortLimit == 0 || reserved && owner == client {
		return false
	}
	held := a.book.held[place{a.node, port.Port}]
	if held+a.behind[port] < s.PortLimit {
		return false
	}
	for on, w := range a.writes.pending {
		if e := a.book.entries[on]; w.lease.Port == port.Port && (e == nil || !e.counted || e.place() != (place{a.node, port.Port})) {
			held++
		}
	}
	return held >= s.PortLimit
}

// crowdedTime is how long after the last client that got nothing because of the
// others behind its port that is a condition.
const crowdedTime = 10 * time.Minute

// maxCrowded bounds the ports that are remembered for that.
const maxCrowded = 64

// turnAway leaves a client without an address because of who is behind its port.
func (a *agent) turnAway(port dataplane.LocalPort, now time.Duration) {
	a.counts.Crowded++
	if _, known := a.turned[port]; known || len(a.turned) < maxCrowded {
		a.turned[port] = now
	}
}

// crowdedPorts are conditions, one for each port that has had its share lately.
func (a *agent) crowdedPorts(now time.Duration) []status.Condition {
	maps.DeleteFunc(a.turned, func(_ dataplane.LocalPort, at time.Duration) bool { return now-at > crowdedTime })
	var all []status.Condition
	for port := range a.turned {
		if s := a.segments[link{vni: port.VNI}]; s != nil {
			all = append(all, status.Condition{
				Name: ConditionCrowded, Subject: port.Port, Severity: status.Warning,
				Text: fmt.Sprintf("clients behind %s have %d addresses of segment %s, as many as one port may, and ask for more: if they are what they say, set dhcp.port_limit",
					port.Port, a.book.held[place{a.node, port.Port}], s.Name),
			})
		}
	}
	slices.SortFunc(all, func(x, y status.Condition) int { return strings.Compare(x.Subject, y.Subject) })
	return all
}
