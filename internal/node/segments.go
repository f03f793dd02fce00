package node

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/evpn"
	"frond/internal/plan"
	"frond/internal/status"
)

// overlay is what is used of dataplane.Overlay.
type overlay interface {
	SetSegments([]dataplane.Segment)
	Update(dataplane.OverlayUpdate)
	Observe(dataplane.OverlayEvent)
	Complete()
	Report() dataplane.OverlayReport
	Withdraw(context.Context) error
}

// guestWatch is what is used of kernel.OverlayWatch.
type guestWatch interface {
	SetSegments([]dataplane.Segment)
	Events() <-chan dataplane.OverlayEvent
}

// segments is the layer-2 side of what the loop knows: which segments there
// are here, and where their stations are.
type segments struct {
	shape    shape // that here is of
	here     []dataplane.Segment
	stations *evpn.Table
	read     bool // what the kernel knew of their guests is taken in
}

func newSegments(p *plan.Plan) segments {
	return segments{stations: evpn.New(identity(p))}
}

// identity is who the node is to other nodes of a segment.
func identity(p *plan.Plan) evpn.Config {
	return evpn.Config{ASN: p.Node.ASN, RouterID: p.Node.Loopback, VTEP: p.Node.Loopback}
}

// defaultMTU is a port's MTU as long as there is no port.
const defaultMTU = 1500

// portMTU is the smallest MTU of all ports: every packet of a segment must
// fit through each of them.
func (l *loop) portMTU() int {
	smallest := 0
	for _, p := range l.ports {
		if mtu := p.link.MTU; smallest == 0 || mtu < smallest {
			smallest = mtu
		}
	}
	if smallest == 0 {
		return defaultMTU
	}
	return smallest
}

// shape is what the segments here follow from, besides what is learned of
// their stations.
type shape struct {
	plan    *plan.Plan
	portMTU int
}

// reshaped brings a shape up to date, and tells whether it was another: what
// follows from it is made anew only then, and not for each thing that happens.
func (l *loop) reshaped(s *shape) bool {
	before := *s
	*s = shape{l.plan, l.portMTU()}
	return *s != before
}

// applySegments brings devices and entries into line with plan and stations.
func (l *loop) applySegments() {
	s := &l.segments
	if l.reshaped(&s.shape) {
		l.tellSegments(l.plan.Segments(s.shape.portMTU))
	}
	l.applyGuests()
	changes := s.stations.Changes()
	update := changes.Overlay
	if len(update.MACs)+len(update.Neighbors)+len(update.Flood) > 0 {
		l.overlay.Update(update)
	}
	if len(update.Neighbors) > 0 {
		l.addresses.Observe(update.Neighbors)
		l.addressesChanged(update.Neighbors)
	}
	if changes.Routes {
		l.told.routes = false
	}
	if changes.Guests || len(update.MACs) > 0 && l.strict() {
		l.guarded.changed = true
	}
}

// tellSegments has every part know which segments there are here.
func (l *loop) tellSegments(here []dataplane.Segment) {
	s := &l.segments
	if reflect.DeepEqual(here, s.here) && l.told.segments {
		return
	}
	s.here, l.told.segments, l.guests.changed = here, true, true
	s.stations.SetSegments(here)
	l.overlay.SetSegments(here)
	l.watch.SetSegments(here)
	l.held.SetSegments(here, byLXD(l.plan))
	l.tellHeld()
}

// overlayChanged takes in what happened on the segments.
func (l *loop) overlayChanged(event dataplane.OverlayEvent) {
	if _, read := event.(dataplane.LocalRead); read {
		l.segments.read = true
		return
	}
	event = l.believe(event)
	l.segments.stations.Observe(event)
	l.overlay.Observe(event)
}

// learnSegments takes in EVPN routes, and which VTEPs there is a way to.
func (l *loop) learnSegments(event bgp.PathsChanged) {
	l.segments.stations.Learn(event.EVPN)
	for _, m := range l.segments.stations.FirstMalformed() {
		l.log.Warn("malformed EVPN route taken as withdrawn; further ones of its type from this peer are only counted",
			"peer", m.Peer, "type", m.Type, "error", m.Err)
	}
	if len(event.Unicast) > 0 {
		l.segments.stations.SetReachable(l.reachable)
	}
}

// reachable tells whether there is a route to another node's VTEP.
func (l *loop) reachable(vtep netip.Addr) bool {
	paths, ok := l.table.paths[netip.PrefixFrom(vtep, vtep.BitLen())]
	return ok && len(paths.Paths) > 0
}

// The conditions of segments.
const (
	segmentBroken  = "segment-broken"  // the kernel does not hold it as desired
	segmentTrouble = "segment-trouble" // something is wrong with its stations or their routes
)

// judgeSegments puts on the board what is wrong with segments. It looks
// through all stations, so only when somebody asks.
func (l *loop) judgeSegments() {
	var wrong []status.Condition
	for _, problem := range l.overlay.Report().Problems {
		subject, _, _ := strings.Cut(problem.Text, ": ")
		wrong = append(wrong, status.Condition{
			Name: segmentBroken, Subject: subject, Severity: status.Failure, Text: problem.Text, Since: problem.Since,
		})
	}
	for _, problem := range l.segments.stations.Problems() {
		wrong = append(wrong, status.Condition{
			Name: segmentTrouble, Subject: l.segmentName(problem.VNI), Severity: status.Warning, Text: problem.Text, Since: problem.Since,
		})
	}
	l.board.Replace([]string{segmentBroken, segmentTrouble}, wrong)
}

func (l *loop) segmentName(vni uint32) string {
	for _, s := range l.segments.here {
		if s.VNI == vni {
			return s.Name
		}
	}
	return "evpn"
}

// Segments returns the segments that the node takes part in.
func (n *Node) Segments() []status.Segment {
	var all []status.Segment
	n.ask(context.Background(), func(l *loop) {
		for _, report := range l.overlay.Report().Segments {
			i := slices.IndexFunc(l.segments.here, func(s dataplane.Segment) bool { return s.VNI == report.VNI })
			if i >= 0 {
				all = append(all, l.describeSegment(l.segments.here[i], report))
			}
		}
	})
	return all
}

func (l *loop) describeSegment(s dataplane.Segment, report dataplane.SegmentReport) status.Segment {
	described := status.Segment{
		Name: s.Name, VNI: s.VNI, Bridge: s.Bridge, VXLAN: s.VXLAN, MTU: s.MTU,
		Ready: report.Ready, Pending: report.Pending, VTEPs: []string{}, Problems: []string{},
	}
	for _, vtep := range l.segments.stations.VTEPs(s.VNI) {
		described.VTEPs = append(described.VTEPs, vtep.String())
	}
	for _, mac := range l.segments.stations.MACs(s.VNI) {
		if mac.Local {
			described.LocalMACs++
		} else {
			described.RemoteMACs++
		}
	}
	for _, problem := range l.segments.stations.Problems() {
		if problem.VNI == s.VNI {
			described.Problems = append(described.Problems, problem.Text)
		}
	}
	return described
}

// MACs returns the stations of a segment, or of all segments for the empty name.
func (n *Node) MACs(segment string) []status.MAC {
	var all []status.MAC
	n.ask(context.Background(), func(l *loop) {
		for _, s := range l.segments.here {
			if segment != "" && segment != s.Name {
				continue
			}
			for _, mac := range l.segments.stations.MACs(s.VNI) {
				all = append(all, l.describeMAC(s.Name, mac))
			}
		}
	})
	return all
}

func (l *loop) describeMAC(segment string, m evpn.MACStatus) status.MAC {
	described := status.MAC{
		Segment: segment, VNI: m.VNI, MAC: m.MAC.String(), IPs: []string{},
		Name: l.guests.names[m.MAC], Local: m.Local, Port: m.Port, VTEP: m.VTEP.String(),
		Sequence: m.Sequence, Sticky: m.Sticky, Since: m.Since,
		Silent: optional(m.Silent), Frozen: optional(m.Frozen),
	}
	for _, ip := range m.IPs {
		described.IPs = append(described.IPs, ip.String())
	}
	return described
}

// optional is nil for a moment that was not.
func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// EVPN returns the EVPN routes that the node tells and has been told.
func (n *Node) EVPN() []status.EVPNRoute {
	var all []status.EVPNRoute
	n.ask(context.Background(), func(l *loop) {
		for _, r := range l.segments.stations.Routes() {
			route := status.EVPNRoute{
				Route: r.Notation, Type: r.Type, RD: r.RD, VNI: r.VNI, VTEP: r.VTEP.String(),
				Sequence: r.Sequence, Sticky: r.Sticky, Local: r.Local, Used: r.Used, Since: optional(r.Since),
			}
			if r.Peer.IsValid() {
				route.Peer = l.peers[r.Peer].Hostname
			}
			all = append(all, route)
		}
	})
	return all
}
