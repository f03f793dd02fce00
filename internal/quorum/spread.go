package quorum

import (
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"frond/internal/gateway"
)

// Spread is how gateways are spread over the members.
type Spread string

// The spreads, as the document calls them.
const (
	OnLeader Spread = "leader" // all on the node of the database's leader
	ByHash   Spread = "hash"   // each on the member that rendezvous hashing prefers among those that are online
)

// offlineAfter is how long before the newest heartbeat of any member that of one
// is when it counts as away: LXD's own default (cluster.offline_threshold). By
// the database alone, so that all nodes see the same.
const offlineAfter = 20 * time.Second

// register is what the database's leader has read in it.
type register struct {
	from           string        // the leader
	sent, received time.Duration // of the question
	members        []registered
}

// online are the members whose nodes may have gateways: a pure function of the
// database, the same for whoever reads it.
func (r register) online() []registered {
	newest := int64(0)
	for _, m := range r.members {
		newest = max(newest, m.heartbeat)
	}
	return slices.DeleteFunc(slices.Clone(r.members), func(m registered) bool {
		return m.mark != "" || m.heartbeat <= newest-int64(offlineAfter/time.Second)
	})
}

// owner is the address of the member whose node should have a segment's
// gateway; empty: there is none.
func (r register) owner(s gateway.Segment, node func(registered) string) string {
	addresses := make(map[string]string)
	for _, m := range r.online() {
		if name := node(m); slices.Contains(s.Nodes, name) {
			addresses[name] = m.address
		}
	}
	return addresses[gateway.Prefer(s.Name, slices.Collect(maps.Keys(addresses)))]
}

// nodeOf is the node beside a member: the one with its address, else of its name.
func nodeOf(m registered, names map[string]string) string {
	host, _, err := net.SplitHostPort(m.address)
	if name, ok := names[host]; ok && err == nil {
		return name
	}
	return strings.ToLower(m.name)
}

// owners are the addresses of the members whose nodes should have the segments'
// gateways.
func (r register) owners(segments []gateway.Segment, names map[string]string) map[string]string {
	all := make(map[string]string)
	for _, s := range segments {
		all[s.Name] = r.owner(s, func(m registered) string { return nodeOf(m, names) })
	}
	return all
}

// proven tells that the register was read from whom the voters took for the
// leader after that: nobody was elected before it was read, and it is what was
// true when it was asked for.
func (r register) proven(by round) bool {
	return r.from != "" && r.from == by.leader && by.sent >= r.received
}
