package evpn

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"frond/internal/dataplane"
)

// segment is what the table knows of one VNI.
type segment struct {
	config    dataplane.Segment
	rd        RD
	macs      map[dataplane.MAC]*station
	addresses map[netip.Addr]*address
	lost      map[netip.Addr]dataplane.MAC // see lose
	ports     map[string]*port
	floods    map[*remote]struct{}     // Multicast routes
	placed    map[dataplane.MAC]string // ports that stations are held behind, see place
	unlearned map[*station]struct{}    // stations of which only addresses were seen
	doubted   map[*station]struct{}    // stations that were seen where they may not be
	loops     map[string]loop          // ports that are blocked because of a loop
	over      map[string]overflow      // ports with more behind them than is told of
	flood     []netip.Addr             // as told
	held      uint32                   // see SetHeld; 0: this node does not have the gateway
	touched   bool
}

// overflow is since when a port has more MACs than its limit.
type overflow struct {
	limit int
	since time.Time
}

// loop is since when a port is blocked, and where it leads to.
type loop struct {
	other string
	since time.Time
}

// SetSegments sets those that the node takes part in. Routes for others are
// remembered, and count as soon as their segment is added.
func (t *Table) SetSegments(segments []dataplane.Segment) {
	wanted := make(map[uint32]dataplane.Segment, len(segments))
	for _, s := range segments {
		wanted[s.VNI] = s
	}
	for vni, s := range t.segments {
		if _, ok := wanted[vni]; !ok {
			t.removeSegment(s)
		}
	}
	added := false
	for _, vni := range slices.Sorted(maps.Keys(wanted)) {
		if s, ok := t.segments[vni]; ok {
			t.change(s, wanted[vni])
			continue
		}
		t.addSegment(wanted[vni])
		added = true
	}
	if added {
		for _, r := range t.routes {
			if !r.attached {
				t.attach(r)
			}
		}
	}
	t.settle()
}

func (t *Table) addSegment(config dataplane.Segment) {
	s := &segment{
		config:    config,
		rd:        NewRD(t.config.RouterID, t.freeIndex(config.VNI)),
		macs:      make(map[dataplane.MAC]*station),
		addresses: make(map[netip.Addr]*address),
		lost:      make(map[netip.Addr]dataplane.MAC),
		ports:     make(map[string]*port),
		floods:    make(map[*remote]struct{}),
		placed:    make(map[dataplane.MAC]string),
		unlearned: make(map[*station]struct{}),
		doubted:   make(map[*station]struct{}),
		over:      make(map[string]overflow),
		loops:     make(map[string]loop),
	}
	t.segments[config.VNI] = s
	t.originate(originKey{vni: config.VNI}, Multicast{Attributes: t.attributes(s), Originator: t.config.VTEP})
	t.tellGateway(s)
}

// freeIndex numbers a segment in the node's route distinguishers. It is the
// low half of the VNI wherever it can be, so that it stays the same over
// restarts and changes of the document.
func (t *Table) freeIndex(vni uint32) uint16 {
	used := make(map[RD]bool, len(t.segments))
	for _, s := range t.segments {
		used[s.rd] = true
	}
	index := uint16(vni)
	for index == 0 || used[NewRD(t.config.RouterID, index)] {
		index++
	}
	return index
}

// attributes are those of the routes that this node tells of a segment.
func (t *Table) attributes(s *segment) Attributes {
	return Attributes{RD: s.rd, VNI: s.config.VNI, ASN: uint32(uint16(t.config.ASN)), VTEP: t.config.VTEP}
}

// removeSegment takes back all that was told of it. Its devices go with it,
// but one that comes back must not find entries of its former life desired.
func (t *Table) removeSegment(s *segment) {
	vni := s.config.VNI
	for mac, m := range s.macs {
		if m.told.IsValid() {
			t.news.mac(vni, mac, netip.Addr{})
		}
		m.removed = true
		for _, r := range m.remotes {
			r.attached = false
		}
		t.retract(originKey{vni: vni, mac: mac})
	}
	for ip, a := range s.addresses {
		if a.told != (dataplane.MAC{}) {
			t.news.neighbor(vni, ip, dataplane.MAC{})
		}
		a.removed = true
		if a.local != nil {
			t.retract(addressKey(vni, a.local.mac, ip))
		}
	}
	if len(s.flood) > 0 {
		t.news.flood(vni, nil)
	}
	for r := range s.floods {
		r.attached = false
	}
	t.untellGateway(s)
	t.retract(originKey{vni: vni})
	delete(t.segments, vni)
	t.frozen = slices.DeleteFunc(t.frozen, func(f thawing) bool { return f.removed() })
}

// decideFlood lists the VTEPs that flooded frames go to.
func (t *Table) decideFlood(s *segment) {
	if t.segments[s.config.VNI] != s {
		return
	}
	var vteps []netip.Addr
	for r := range s.floods {
		if r.vtep.reachable {
			vteps = append(vteps, r.vtep.addr)
		}
	}
	slices.SortFunc(vteps, netip.Addr.Compare)
	vteps = slices.Compact(vteps)
	if !slices.Equal(vteps, s.flood) {
		s.flood = vteps
		t.news.flood(s.config.VNI, slices.Clone(vteps))
	}
}
