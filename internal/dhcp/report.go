package dhcp

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"frond/internal/dataplane"
	"frond/internal/status"
)

// Names of the conditions that Report gives.
const (
	ConditionPool = "dhcp-pool"
	ConditionAway = "dhcp-store-away"
	// ConditionCrowded: clients behind one port ask for more than its share.
	ConditionCrowded = "dhcp-port-limit"
)

// full is the share of a pool, in percent, from which on it is a condition.
const full = 90

// Report is what a node knows of the leases.
type Report struct {
	Pools      []Pool
	Counts     Counts
	Synced     bool // the leases are known
	Waiting    int  // clients that are being served
	Unwritten  int  // leases that the store has not been told of yet
	Conditions []status.Condition
}

// Pool is how much of a segment's ranges is in use.
type Pool struct {
	Segment    string
	Size, Used int // addresses; Used cannot be given to another client now
}

// Lease is what an address is to its client.
type Lease struct {
	Segment  string
	Address  netip.Addr
	Client   Client
	MAC      dataplane.MAC
	Hostname string
	State    string // offered, leased, released, declined; or ended
	Node     string // that gave it
	Port     string
	Since    time.Time
	Ends     time.Time     // as it was last written down
	Kept     time.Duration // how long others do not get it
}

func (a *agent) report(now time.Duration) Report {
	r := Report{Synced: a.synced, Counts: a.counts, Waiting: len(a.jobs), Unwritten: len(a.writes.pending)}
	leasing := false
	for _, s := range a.byPrefix {
		if !s.leases() {
			continue
		}
		leasing = true
		p := Pool{Segment: s.label(), Size: s.pool.usable, Used: s.pool.usable - s.pool.frees}
		r.Pools = append(r.Pools, p)
		if !a.synced || p.Size == 0 || p.Used*100 < p.Size*full {
			continue
		}
		c := status.Condition{
			Name: ConditionPool, Subject: s.label(), Severity: status.Warning,
			Text: fmt.Sprintf("%d of the pool's %d addresses are in use: widen its range, or shorten lease and grace", p.Used, p.Size),
		}
		if p.Used == p.Size {
			c.Severity = status.Failure
			c.Text = fmt.Sprintf("all %d addresses of the pool are in use, new guests get none: widen its range, or shorten lease and grace", p.Size)
		}
		r.Conditions = append(r.Conditions, c)
	}
	if leasing && (!a.synced || a.writes.failing) {
		r.Conditions = append(r.Conditions, status.Condition{
			Name: ConditionAway, Subject: "store", Severity: status.Failure,
			Text: "the store does not answer: guests that are known here keep their addresses, new ones get none; see frond store status",
		})
	}
	r.Conditions = append(r.Conditions, a.crowdedPorts(now)...)
	return r
}

func (a *agent) leases(segment string, now time.Duration) []Lease {
	var list []Lease
	for address, e := range a.book.entries {
		s := a.segmentOf(address)
		name := e.Segment
		if s != nil {
			name = s.Name
		}
		if segment != "" && segment != name {
			continue
		}
		l := Lease{
			Segment: name, Address: address, Client: e.Client, MAC: e.MAC, Hostname: e.Hostname, State: string(e.Kind),
			Node: e.Node, Port: e.Port, Since: e.Since, Ends: e.Ends, Kept: max(0, e.over()-now),
		}
		if now >= e.over() || e.Kind == leased && a.wall().After(e.Ends) {
			l.State = "ended"
		}
		list = append(list, l)
	}
	slices.SortFunc(list, func(x, y Lease) int { return x.Address.Compare(y.Address) })
	return list
}
