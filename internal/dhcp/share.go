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

// place is a guest's port, on whichever node, as one family of addresses sees it.
type place struct {
	node, port string
	six        bool
}

func (e *entry) place() place { return place{e.Node, e.Port, e.address.Is6()} }

// portLimit is how many addresses those behind one port have at a time; 0: as
// many as there are. Of IPv6, half of the ranges': whoever needs more can have
// larger ones.
func (s *segment) portLimit() int {
	if s.six() {
		return max(1, s.pool.usable/2)
	}
	return s.PortLimit
}

// count notes that an entry holds an address for who is behind its port.
func (b *book) count(e *entry) {
	if e.Port != "" {
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
	limit, here := s.portLimit(), place{a.node, port.Port, s.six()}
	if owner, reserved := s.reserved[address]; limit == 0 || reserved && owner == client {
		return false
	}
	held := a.book.held[here]
	if held+a.behind[port] < limit {
		return false
	}
	for on, w := range a.writes.pending {
		if e := a.book.entries[on]; w.lease.Port == port.Port && on.Is6() == s.six() && (e == nil || !e.counted || e.place() != here) {
			held++
		}
	}
	return held >= limit
}

// crowdedTime is how long after the last client that got nothing because of the
// others behind its port that is a condition.
const crowdedTime = 10 * time.Minute

// maxCrowded bounds the ports that are remembered for that.
const maxCrowded = 64

// turnAway leaves a client without an address because of who is behind its port.
func (a *agent) turnAway(s *segment, port dataplane.LocalPort, now time.Duration) {
	a.counts.Crowded++
	on := crowd{port, s.six()}
	if _, known := a.turned[on]; known || len(a.turned) < maxCrowded {
		a.turned[on] = now
	}
}

// crowd are the clients behind a port, of one family.
type crowd struct {
	dataplane.LocalPort
	six bool
}

// crowdedPorts are conditions, one for each port that has had its share lately.
func (a *agent) crowdedPorts(now time.Duration) []status.Condition {
	maps.DeleteFunc(a.turned, func(_ crowd, at time.Duration) bool { return now-at > crowdedTime })
	var all []status.Condition
	for on := range a.turned {
		s := a.segments[link{on.VNI, on.six}]
		if s == nil {
			continue
		}
		mend := "set dhcp.port_limit"
		if on.six {
			mend = "widen the range of dhcp6"
		}
		all = append(all, status.Condition{
			Name: ConditionCrowded, Subject: on.Port, Severity: status.Warning,
			Text: fmt.Sprintf("clients behind %s have %d addresses of segment %s, as many as one port may, and ask for more: if they are what they say, %s",
				on.Port, a.book.held[place{a.node, on.Port, on.six}], s.label(), mend),
		})
	}
	slices.SortFunc(all, func(x, y status.Condition) int { return strings.Compare(x.Subject+x.Text, y.Subject+y.Text) })
	return all
}
