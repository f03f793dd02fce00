package plan

import (
	"net/netip"
	"slices"

	"frond/internal/dataplane"
	"frond/internal/fabric"
)

// overhead is what VXLAN over IPv4 adds to a guest's packet: the outer IP,
// UDP and VXLAN headers and the inner Ethernet header (RFC 7348 §5), octets.
const overhead = 20 + 8 + 8 + 14

// longestName is what the kernel takes as a device's name (IFNAMSIZ less one).
const longestName = 15

// Segments are the segments that this node takes part in. portMTU is the
// smallest of the ports', on which each segment's depends unless the document
// says otherwise.
func (p *Plan) Segments(portMTU int) []dataplane.Segment {
	var segments []dataplane.Segment
	for _, s := range p.segments {
		mtu := s.MTU
		if mtu == 0 {
			mtu = portMTU - overhead
		}
		segments = append(segments, dataplane.Segment{
			Name:      s.Name,
			Bridge:    s.Bridge,
			VXLAN:     vxlanName(s.Name),
			VNI:       s.VNI,
			Local:     p.Node.Loopback,
			MTU:       mtu,
			MACLimit:  s.MACLimit,
			Gateway:   gateway(s),
			DHCP:      s.DHCP != nil,
			DHCP6:     informs(s),
			Advertise: s.RA && gateway(s).Address6.IsValid(),
		})
	}
	return segments
}

// gateway is the segment's gateway as its nodes have it. Whoever has an
// elected one is the only way to the segment from outside: there are no routes
// to its hosts.
func gateway(s fabric.Segment) dataplane.Gateway {
	if s.Gateway == nil {
		return dataplane.Gateway{}
	}
	g := dataplane.Gateway{
		Address:  within(s.Gateway.Address, s.Prefix),
		Address6: within(s.Gateway.Address6, s.Prefix6),
	}
	if g.Address6.IsValid() {
		g.LinkLocal = gatewayMAC(s.VNI).LinkLocal()
	}
	if s.Gateway.Mode == fabric.Elected {
		g.Elected = true
		return g
	}
	g.MAC, g.HostRoutes = gatewayMAC(s.VNI), s.Gateway.HostRoutes
	return g
}

// Gateways are the segments of the whole fabric that have a gateway.
func (p *Plan) Gateways() []fabric.Segment { return p.gateways }

// Elected are the gateways of the whole fabric that are on one node at a time,
// and that an election decides about: every node has to see the same one.
func (p *Plan) Elected(by fabric.Election) []ElectedGateway {
	var all []ElectedGateway
	for _, s := range p.gateways {
		if s.Gateway.Mode == fabric.Elected && s.Gateway.Election == by {
			all = append(all, ElectedGateway{Segment: s.Name, Nodes: s.Nodes, Locality: s.Gateway.Locality})
		}
	}
	return all
}

// ElectedGateway is one that is on one node at a time.
type ElectedGateway struct {
	Segment  string
	Nodes    []string // that may have it
	Locality bool     // the one with most of the segment's guests is to have it
}

// gatewaysOf are the segments that have a gateway.
func gatewaysOf(f *fabric.Fabric) []fabric.Segment {
	return slices.DeleteFunc(slices.Clone(f.Segments), func(s fabric.Segment) bool { return s.Gateway == nil })
}

// gatewayMAC derives a gateway's MAC from the VNI: locally administered, and
// the same on every node.
func gatewayMAC(vni uint32) dataplane.MAC {
	return dataplane.MAC{0x02, 0x68, 0, byte(vni >> 16), byte(vni >> 8), byte(vni)}
}

// within is an address with the length of the prefix that it is in.
func within(a netip.Addr, p netip.Prefix) netip.Prefix {
	if !a.IsValid() || !p.IsValid() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, p.Bits())
}

// served are the prefixes of the segments whose gateway is on this node for
// good.
func served(segments []fabric.Segment) []netip.Prefix {
	var prefixes []netip.Prefix
	for _, s := range segments {
		if gateway(s).Elected {
			continue
		}
		for _, p := range []netip.Prefix{gateway(s).Address, gateway(s).Address6} {
			if p.IsValid() {
				prefixes = append(prefixes, p.Masked())
			}
		}
	}
	return prefixes
}

func vxlanName(segment string) string {
	name := "vx-" + segment
	return name[:min(len(name), longestName)]
}

// segmentsOf are the segments of the document that a node takes part in.
func segmentsOf(f *fabric.Fabric, node string) []fabric.Segment {
	return slices.DeleteFunc(slices.Clone(f.Segments), func(s fabric.Segment) bool {
		return !slices.Contains(s.Nodes, node)
	})
}
