package plan

import (
	"net/netip"

	"frond/internal/dataplane"
)

// Advertisement is what the guests of a segment are told of their router.
type Advertisement struct {
	Name    string
	VNI     uint32
	Elected bool       // only who has the gateway says so
	Router  netip.Addr // link-local
	MAC     dataplane.MAC
	Prefix  netip.Prefix
	MTU     int
	DNS     []netip.Addr // of IPv6
	Search  []string
	// Managed has guests ask for their addresses by DHCPv6, and make none.
	Managed bool
}

// Advertisements are those of the segments of this node that have a gateway
// with an IPv6 address.
func (p *Plan) Advertisements(portMTU int) []Advertisement {
	var all []Advertisement
	for i, s := range p.Segments(portMTU) {
		if !s.Advertise {
			continue
		}
		a := Advertisement{
			Name: s.Name, VNI: s.VNI, Elected: s.Gateway.Elected,
			Router: s.Gateway.LinkLocal.Addr(), MAC: s.BridgeMAC(), Prefix: s.Gateway.Address6.Masked(), MTU: s.MTU,
		}
		a.Search, a.Managed = p.search(p.segments[i]), p.segments[i].DHCP6 != nil
		a.DNS = only(netip.Addr.Is6, p.segments[i].Resolvers())
		all = append(all, a)
	}
	return all
}
