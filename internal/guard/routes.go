// Package guard says what the document lets nodes announce and guests send,
// as pure functions of the document and of who is where: rules and verdicts,
// no input or output.
package guard

import (
	"net/netip"
	"slices"

	"frond/internal/bgp"
	"frond/internal/fabric"
)

// Why routes are refused.
const (
	OwnAddress      bgp.Refusal = "it is this node's own address"
	OtherOrigin     bgp.Refusal = "it belongs to another node"
	NoNode          bgp.Refusal = "no node of the document has this loopback"
	NotInDocument   bgp.Refusal = "the document has no such prefix"
	NotAnExit       bgp.Refusal = "only exits announce a default route"
	OutsideSegment  bgp.Refusal = "its node does not take part in the segment"
	GatewayAddress  bgp.Refusal = "it is the address of a gateway that is everywhere"
	UnknownSegment  bgp.Refusal = "the document has no segment of this VNI"
	OtherVTEP       bgp.Refusal = "its VTEP is not the loopback of the node that it comes from"
	OtherRD         bgp.Refusal = "its route distinguisher is that of another node"
	PathOfNobody    bgp.Refusal = "its AS path leads through an AS of no node"
	PathNotOfTeller bgp.Refusal = "its AS path does not begin with the AS of the peer"
	PathWithSet     bgp.Refusal = "its AS path has a set in it"
)

// Routes is what the document lets nodes announce.
type Routes struct {
	origins   map[netip.Prefix]origins // of what stands in the document as it is announced
	loopbacks []netip.Prefix
	own       map[netip.Addr]struct{}
	ases      map[uint32]struct{}         // of all nodes
	vteps     map[netip.Addr]*fabric.Node // by their loopbacks
	segments  map[netip.Prefix]*segment   // by prefix
	vnis      map[uint32]*segment
	bits      []int // lengths of the prefixes of segments, each once, of both families
}

// origins are the ASes that may announce a prefix, and how others are refused.
type origins struct {
	ases   []uint32
	refuse bgp.Refusal
}

func (o origins) judge(as uint32) bgp.Refusal {
	if slices.Contains(o.ases, as) {
		return ""
	}
	return o.refuse
}

// segment is who may announce what of a segment.
type segment struct {
	nodes    map[string]struct{}
	members  origins
	gateways []netip.Addr // that are everywhere
}

// RoutesFor is what a node may be told.
func RoutesFor(f *fabric.Fabric, self fabric.Node) *Routes {
	r := &Routes{
		origins:   make(map[netip.Prefix]origins),
		loopbacks: f.Underlay.Loopbacks,
		own:       make(map[netip.Addr]struct{}),
		ases:      make(map[uint32]struct{}),
		vteps:     make(map[netip.Addr]*fabric.Node),
		segments:  make(map[netip.Prefix]*segment),
		vnis:      make(map[uint32]*segment),
	}
	for i := range f.Nodes {
		r.addNode(&f.Nodes[i])
	}
	for _, s := range f.Segments {
		r.addSegment(f, s)
	}
	for _, a := range []netip.Addr{self.Loopback, self.Loopback6} {
		r.own[a] = struct{}{}
		r.origins[hostRoute(a)] = origins{refuse: OwnAddress}
	}
	return r
}

func hostRoute(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func (r *Routes) addNode(n *fabric.Node) {
	r.ases[n.ASN] = struct{}{}
	for _, a := range []netip.Addr{n.Loopback, n.Loopback6} {
		r.vteps[a] = n
		r.allow(hostRoute(a), n.ASN, OtherOrigin)
	}
	for _, p := range slices.Concat(n.Advertise, n.Anycast) {
		r.allow(p, n.ASN, OtherOrigin)
	}
	for _, p := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
		if n.Role == fabric.Exit {
			r.allow(p, n.ASN, NotAnExit)
		} else if _, ok := r.origins[p]; !ok {
			r.origins[p] = origins{refuse: NotAnExit}
		}
	}
}

func (r *Routes) allow(p netip.Prefix, as uint32, otherwise bgp.Refusal) {
	r.origins[p] = origins{append(r.origins[p].ases, as), otherwise}
}

func (r *Routes) addSegment(f *fabric.Fabric, s fabric.Segment) {
	own := &segment{nodes: make(map[string]struct{}, len(s.Nodes)), members: origins{refuse: OutsideSegment}}
	for _, name := range s.Nodes {
		own.nodes[name] = struct{}{}
		if n, ok := f.Node(name); ok {
			own.members.ases = append(own.members.ases, n.ASN)
		}
	}
	if g := s.Gateway; g != nil && g.Mode == fabric.Anycast {
		own.gateways = []netip.Addr{g.Address, g.Address6}
	}
	r.vnis[s.VNI] = own
	for _, p := range []netip.Prefix{s.Prefix, s.Prefix6} {
		if !p.IsValid() {
			continue
		}
		r.segments[p], r.origins[p] = own, own.members
		if !slices.Contains(r.bits, p.Bits()) {
			r.bits = append(r.bits, p.Bits())
		}
	}
}

// Unicast says why a prefix from a peer is refused; empty: it is not.
func (r *Routes) Unicast(p netip.Prefix, t bgp.Teller) bgp.Refusal {
	if why := r.way(t); why != "" {
		return why
	}
	return r.prefix(p, t.Origin())
}

// way looks at the AS path. It must begin with the peer's own, or a node could
// pass a route off as nearer than it is.
func (r *Routes) way(t bgp.Teller) bgp.Refusal {
	if !t.Internal && (len(t.Path) == 0 || t.Path[0] != t.ASN) {
		return PathNotOfTeller
	}
	if t.Sets {
		return PathWithSet
	}
	if _, ok := r.ases[t.ASN]; !ok {
		return PathOfNobody
	}
	for _, as := range t.Path {
		if _, ok := r.ases[as]; !ok {
			return PathOfNobody
		}
	}
	return ""
}

// prefix looks at where a prefix comes from.
func (r *Routes) prefix(p netip.Prefix, origin uint32) bgp.Refusal {
	if o, ok := r.origins[p]; ok {
		return o.judge(origin)
	}
	if !p.IsSingleIP() {
		return NotInDocument
	}
	if s := r.segmentOf(p.Addr()); s != nil {
		if slices.Contains(s.gateways, p.Addr()) {
			return GatewayAddress
		}
		return s.members.judge(origin)
	}
	if slices.ContainsFunc(r.loopbacks, func(l netip.Prefix) bool { return l.Contains(p.Addr()) }) {
		return NoNode
	}
	return NotInDocument
}

// segmentOf is the segment that an address is in; nil: none. Prefixes of
// segments do not overlap.
func (r *Routes) segmentOf(a netip.Addr) *segment {
	for _, bits := range r.bits {
		p, err := a.Prefix(bits)
		if err != nil {
			continue // longer than an address of this family
		}
		if s, ok := r.segments[p]; ok {
			return s
		}
	}
	return nil
}

// Claim is what an EVPN route says.
type Claim struct {
	VNI    uint32       // 0: none
	VTEPs  []netip.Addr // that packets would be sent to
	RD     netip.Addr   // the node that the route distinguisher names; zero: none
	Prefix netip.Prefix // of a type 5 route
}

// EVPN says why an EVPN route from a peer is refused; empty: it is not.
func (r *Routes) EVPN(c Claim, t bgp.Teller) bgp.Refusal {
	if why := r.way(t); why != "" {
		return why
	}
	for _, vtep := range c.VTEPs {
		if why := r.vtep(vtep, c.VNI, t.Origin()); why != "" {
			return why
		}
	}
	if n, ok := r.vteps[c.RD]; ok && n.ASN != t.Origin() {
		return OtherRD
	}
	if c.Prefix.IsValid() {
		return r.prefix(c.Prefix, t.Origin())
	}
	return ""
}

// vtep looks at whose VTEP it is, and whether it takes part in the segment.
func (r *Routes) vtep(a netip.Addr, vni, origin uint32) bgp.Refusal {
	n, ok := r.vteps[a]
	if !ok || n.ASN != origin {
		return OtherVTEP
	}
	if _, ok := r.own[a]; ok {
		return OwnAddress
	}
	if vni == 0 {
		return ""
	}
	s, ok := r.vnis[vni]
	if !ok {
		return UnknownSegment
	}
	if _, takesPart := s.nodes[n.Name]; !takesPart {
		return OutsideSegment
	}
	return ""
}
