package plan

import (
	"net/netip"

	"frond/internal/fabric"
)

// Guests is what a node does for a segment's guests besides forwarding.
type Guests struct {
	Segment string
	// RA has them told of the gateway by router advertisements.
	RA bool
	// Names has the gateway answer for their names.
	Names bool
	// Resolvers are the name servers that they are told to ask.
	Resolvers []netip.Addr
	// Search are the domains in which they look names up.
	Search []string
	// Forwarders are the name servers that the gateway asks.
	Forwarders []netip.Addr
}

// Guests says it of each segment that the node takes part in.
func (p *Plan) Guests() []Guests {
	var all []Guests
	for _, s := range p.segments {
		g := Guests{
			Segment:    s.Name,
			RA:         s.RA && s.Gateway != nil && s.Gateway.Address6.IsValid(),
			Names:      named(s),
			Resolvers:  s.Resolvers(),
			Forwarders: s.DNS,
		}
		if g.Names {
			g.Search = []string{s.Name + "." + p.Fabric}
		}
		all = append(all, g)
	}
	return all
}

// named tells whether the segment's gateway answers for names.
func named(s fabric.Segment) bool { return s.DNSNames && s.Gateway != nil }

// Named are the segments of the whole fabric whose guests have names.
func (p *Plan) Named() []fabric.Segment {
	var all []fabric.Segment
	for _, s := range p.gateways {
		if named(s) {
			all = append(all, s)
		}
	}
	return all
}
