package plan

import (
	"net/netip"
	"slices"

	"frond/internal/dataplane"
	"frond/internal/fabric"
)

// DHCP is what the guests of a segment are answered with on this node.
type DHCP struct {
	fabric.Segment // whose DHCP is set
	// Server is the server identifier: the gateway's address, which is the
	// same wherever a guest goes, or the node's loopback where there is none.
	Server netip.Addr
	MAC    dataplane.MAC // that answers come from
	MTU    int
	// Resolvers are the name servers that guests are told to ask, Search the
	// domains in which they look names up.
	Resolvers []netip.Addr
	Search    []string
}

// DHCP are the segments whose guests are given addresses here.
func (p *Plan) DHCP(portMTU int) []DHCP {
	var all []DHCP
	for _, s := range p.segments {
		if s.DHCP == nil {
			continue
		}
		d := DHCP{Segment: s, Server: p.Node.Loopback, MAC: gatewayMAC(s.VNI), MTU: s.MTU, Resolvers: only4(s.Resolvers()), Search: p.search(s)}
		if s.Gateway != nil && s.Gateway.Address.IsValid() {
			d.Server = s.Gateway.Address
		}
		if d.MTU == 0 {
			d.MTU = portMTU - overhead
		}
		all = append(all, d)
	}
	return all
}

func only4(all []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(all), netip.Addr.Is6)
}
