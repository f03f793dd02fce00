package plan

import (
	"net/netip"
	"slices"
	"time"

	"frond/internal/dataplane"
	"frond/internal/fabric"
)

// DHCP is what the guests of a segment are answered with on this node, of one
// family of addresses.
type DHCP struct {
	Segment string
	VNI     uint32
	Prefix  netip.Prefix
	// Server is where answers come from: the gateway's address, which is the same
	// wherever a guest goes, or the node's loopback where there is none. Of IPv6 it
	// is the gateway's link-local one.
	Server netip.Addr
	MAC    dataplane.MAC // that answers come from
	MTU    int
	Router netip.Addr // zero: none
	// Resolvers are the name servers that guests are told to ask, Search the
	// domains in which they look names up, NTP the time servers.
	Resolvers []netip.Addr
	Search    []string
	NTP       []netip.Addr

	// What is given away; without ranges and reservations, nothing.
	Ranges       []fabric.AddressRange
	Lease, Grace time.Duration
	Reservations []fabric.Reservation

	Routes     []fabric.StaticRoute // of IPv4, as the rest
	BootFile   string
	NextServer netip.Addr
	PortLimit  int // of addresses for those behind one port
}

// DHCP are the segments whose guests are answered here: by DHCP those that are
// given addresses by it, by DHCPv6 those too that make their own.
func (p *Plan) DHCP(portMTU int) []DHCP {
	var all []DHCP
	for _, s := range p.segments {
		common := DHCP{Segment: s.Name, VNI: s.VNI, MAC: gatewayMAC(s.VNI), MTU: s.MTU, Search: p.search(s)}
		if common.MTU == 0 {
			common.MTU = portMTU - overhead
		}
		if s.DHCP != nil {
			all = append(all, p.dhcp4(common, s))
		}
		if informs(s) {
			all = append(all, dhcp6(common, s))
		}
	}
	return all
}

// informs tells whether guests are told by DHCPv6 what router advertisements say
// to ask for.
func informs(s fabric.Segment) bool {
	return gateway(s).Address6.IsValid() && (s.RA || s.DHCP6 != nil)
}

func (p *Plan) dhcp4(d DHCP, s fabric.Segment) DHCP {
	d.Prefix, d.Server, d.Resolvers, d.NTP = s.Prefix, p.Node.Loopback, only(netip.Addr.Is4, s.Resolvers()), only(netip.Addr.Is4, s.NTP)
	if s.Gateway != nil && s.Gateway.Address.IsValid() {
		d.Server, d.Router = s.Gateway.Address, s.Gateway.Address
	}
	d.Ranges, d.Lease, d.Grace, d.Reservations = s.DHCP.Ranges, s.DHCP.Lease, s.DHCP.Grace, s.DHCP.Reservations
	d.PortLimit = s.DHCP.PortLimit
	d.Routes, d.BootFile, d.NextServer = s.DHCP.Routes, s.DHCP.BootFile, s.DHCP.NextServer
	return d
}

func dhcp6(d DHCP, s fabric.Segment) DHCP {
	d.Prefix, d.Server, d.Router = s.Prefix6, gateway(s).LinkLocal.Addr(), s.Gateway.Address6
	d.Resolvers, d.NTP = only(netip.Addr.Is6, s.Resolvers()), only(netip.Addr.Is6, s.NTP)
	if s.DHCP6 != nil {
		d.Ranges, d.Lease, d.Grace, d.Reservations = s.DHCP6.Ranges, s.DHCP6.Lease, s.DHCP6.Grace, s.DHCP6.Reservations
	}
	return d
}

// only are the addresses of one family.
func only(family func(netip.Addr) bool, all []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return !family(a) })
}
