package plan

import (
	"net/netip"

	"frond/internal/fabric"
)

// Guests is whom a segment's guests ask for names, and who is asked then.
type Guests struct {
	Segment string
	// Names has the gateway answer for their names.
	Names bool
	// Resolvers are the name servers that they are told to ask.
	Resolvers []netip.Addr
	// Forwarders are the name servers that the gateway asks.
	Forwarders []netip.Addr
}

// Guests says it of each segment that the node takes part in.
func (p *Plan) Guests() []Guests {
	var all []Guests
	for _, s := range p.segments {
		all = append(all, Guests{Segment: s.Name, Names: named(s), Resolvers: s.Resolvers(), Forwarders: s.DNS})
	}
	return all
}

// search is where guests look names up: where the document says, and otherwise
// among their own.
func (p *Plan) search(s fabric.Segment) []string {
	switch {
	case s.DHCP != nil && len(s.DHCP.Search) > 0:
		return s.DHCP.Search
	case named(s):
		return []string{s.Name + "." + p.Fabric}
	}
	return nil
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
