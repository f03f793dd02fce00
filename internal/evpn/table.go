// Package evpn decides where the stations of each segment are: it turns what
// is seen of local guests into EVPN routes (RFC 7432, RFC 8365), and those of
// other nodes, together with the local ones, into forwarding entries. It does
// no input or output and starts no goroutine: what changes comes in by calls,
// and Changes tells what follows from it.
package evpn

import (
	"net/netip"
	"slices"
	"time"

	"frond/internal/bgp"
	"frond/internal/dataplane"
)

// Config is what a Table needs to know of its node.
type Config struct {
	ASN      uint32
	RouterID netip.Addr       // IPv4
	VTEP     netip.Addr       // the node's own
	Now      func() time.Time // nil: time.Now
}

// Table is the EVPN state of a node: its segments, their stations, and the
// routes that say so. Each call costs time by what it changes, not by how
// much there is. It is to be used by one goroutine.
//
// After a start, what the kernels' bridges already hold is to be reported
// before the first routes are learned: a station that is still remembered
// here but has moved meanwhile then counts as older than its new place.
type Table struct {
	config    Config
	segments  map[uint32]*segment // by VNI
	routes    map[string]*remote  // by the speaker's key
	vteps     map[netip.Addr]*vtep
	reachable func(netip.Addr) bool

	originated map[originKey]origin
	order      []ordered
	gaps       int // in order
	news       Changes
	touched    touched
	frozen     []thawing // in the order of time
	malformed  malformed
	crowded    uint64 // routes that were too many of one MAC
}

// Changes is what follows from all that came in since it was last asked for.
type Changes struct {
	Overlay dataplane.OverlayUpdate // forwarding entries, as differences
	Routes  bool                    // what Originated returns is another
	// Guests tells that something may be another of stations that are or were
	// here, or of whose an address is. MACs elsewhere that nobody knows an address
	// of come and go without.
	Guests bool
}

// originKey tells the routes of this node apart. Multicast routes have no
// address, Prefix routes no MAC.
type originKey struct {
	vni     uint32
	mac     dataplane.MAC
	address netip.Prefix
}

type origin struct {
	route Route
	wire  *bgp.EVPNRoute
	at    int // in order
}

// ordered is an originated route in the order in which they came: who is handed
// all of them sees by that what is new.
type ordered struct {
	key  originKey
	wire *bgp.EVPNRoute // nil: it was retracted
}

// New returns an empty table.
func New(config Config) *Table {
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Table{
		config:     config,
		segments:   make(map[uint32]*segment),
		routes:     make(map[string]*remote),
		vteps:      make(map[netip.Addr]*vtep),
		originated: make(map[originKey]origin),
		malformed:  newMalformed(),
	}
}

// Changes returns what has changed since it was last called.
func (t *Table) Changes() Changes {
	t.thawDue()
	c := t.news
	t.news = Changes{}
	return c
}

// Originated returns the whole set of routes that this node originates: those of
// EVPN in the order in which they came, and host routes.
func (t *Table) Originated() []bgp.Route {
	routes := make([]bgp.Route, 0, len(t.originated))
	for _, o := range t.order {
		if o.wire != nil {
			routes = append(routes, bgp.Route{EVPN: o.wire})
		}
	}
	for _, o := range t.order {
		if o.wire == nil {
			continue
		}
		if prefix, ok := t.hostRoute(o.key); ok {
			routes = append(routes, bgp.Route{Prefix: prefix})
		}
	}
	return routes
}

// originate makes the node tell a route, in place of the one that it told by
// that key before.
func (t *Table) originate(key originKey, route Route) {
	before, ok := t.originated[key]
	if ok && before.route == route {
		return
	}
	if ok {
		t.outOfOrder(before.at)
	}
	wire := route.Encode()
	t.originated[key] = origin{route, &wire, len(t.order)}
	t.order = append(t.order, ordered{key, &wire})
	t.news.Routes = true
}

func (t *Table) retract(key originKey) {
	if o, ok := t.originated[key]; ok {
		t.outOfOrder(o.at)
		delete(t.originated, key)
		t.news.Routes = true
	}
}

// outOfOrder drops a route from the order, and closes the gaps when most of it
// are such.
func (t *Table) outOfOrder(at int) {
	t.order[at].wire = nil
	if t.gaps++; t.gaps <= len(t.order)/2 {
		return
	}
	t.order = slices.DeleteFunc(t.order, func(o ordered) bool { return o.wire == nil })
	t.gaps = 0
	for at, o := range t.order {
		left := t.originated[o.key]
		left.at = at
		t.originated[o.key] = left
	}
}

func (c *Changes) mac(vni uint32, mac dataplane.MAC, vtep netip.Addr) {
	if c.Overlay.MACs == nil {
		c.Overlay.MACs = make(map[dataplane.MACKey]netip.Addr)
	}
	c.Overlay.MACs[dataplane.MACKey{VNI: vni, MAC: mac}] = vtep
}

func (c *Changes) neighbor(vni uint32, ip netip.Addr, mac dataplane.MAC) {
	if c.Overlay.Neighbors == nil {
		c.Overlay.Neighbors = make(map[dataplane.NeighborKey]dataplane.MAC)
	}
	c.Overlay.Neighbors[dataplane.NeighborKey{VNI: vni, IP: ip}] = mac
}

func (c *Changes) moved(vni uint32, ip netip.Addr) {
	if c.Overlay.Moved == nil {
		c.Overlay.Moved = make(map[dataplane.NeighborKey]struct{})
	}
	c.Overlay.Moved[dataplane.NeighborKey{VNI: vni, IP: ip}] = struct{}{}
}

func (c *Changes) flood(vni uint32, vteps []netip.Addr) {
	if c.Overlay.Flood == nil {
		c.Overlay.Flood = make(map[uint32][]netip.Addr)
	}
	c.Overlay.Flood[vni] = vteps
}

// touched is what is to be decided again, each once.
type touched struct {
	macs      []*station
	addresses []*address
	segments  []*segment
}

func (t *Table) touchMAC(m *station) {
	if !m.touched {
		m.touched = true
		t.touched.macs = append(t.touched.macs, m)
	}
}

func (t *Table) touchAddress(a *address) {
	t.news.Guests = true
	if !a.touched {
		a.touched = true
		t.touched.addresses = append(t.touched.addresses, a)
	}
}

func (t *Table) touchFlood(s *segment) {
	if !s.touched {
		s.touched = true
		t.touched.segments = append(t.touched.segments, s)
	}
}

// settle decides what was touched. MACs come first, as a MAC that is no
// longer here takes its addresses along.
func (t *Table) settle() {
	for len(t.touched.macs) > 0 {
		macs := t.touched.macs
		t.touched.macs = nil
		for _, m := range macs {
			m.touched = false
			t.decide(m)
		}
	}
	for len(t.touched.addresses) > 0 {
		addresses := t.touched.addresses
		t.touched.addresses = nil
		for _, a := range addresses {
			a.touched = false
			t.decideAddress(a)
		}
	}
	for _, s := range t.touched.segments {
		s.touched = false
		t.decideFlood(s)
	}
	t.touched.segments = t.touched.segments[:0]
}
