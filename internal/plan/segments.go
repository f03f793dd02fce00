package plan

import (
	"slices"

	"frond/internal/dataplane"
	"frond/internal/fabric"
)

// overhead is what VXLAN over IPv4 adds to a guest's packet: the outer IP,
// UDP and VXLAN headers and the inner Ethernet header (RFC 7348 §5), octets.
const overhead = 20 + 8 + 8 + 14

// longestName is what the kernel takes as a device's name (IFNAMSIZ less one).
const longestName = 15

// defaultMACLimit is how many MACs one guest port may bring.
const defaultMACLimit = 1000

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
			Name:     s.Name,
			Bridge:   s.Bridge,
			VXLAN:    vxlanName(s.Name),
			VNI:      s.VNI,
			Local:    p.Node.Loopback,
			MTU:      mtu,
			MACLimit: defaultMACLimit,
		})
	}
	return segments
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
