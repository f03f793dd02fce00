package advertise

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/mdlayher/ndp"

	"frond/internal/dataplane"
)

// Segment is one whose guests are told their router.
type Segment struct {
	VNI    uint32
	Router netip.Addr    // the gateway's link-local address
	MAC    dataplane.MAC // that it is at
	Prefix netip.Prefix
	MTU    int // octets
	DNS    []netip.Addr
	Search []string
	// Managed has guests ask for addresses by DHCPv6, and make none of their own
	// (RFC 4861 §4.2, M). What else there is they may always ask for (O).
	Managed bool
	// Everywhere tells that this node alone has the gateway: the guests of all
	// nodes are told, across the fabric.
	Everywhere bool
}

func (s Segment) equal(o Segment) bool {
	return s.VNI == o.VNI && s.Router == o.Router && s.MAC == o.MAC && s.Prefix == o.Prefix && s.MTU == o.MTU && s.Managed == o.Managed && s.Everywhere == o.Everywhere &&
		equal(s.DNS, o.DNS) && equal(s.Search, o.Search)
}

func equal[T comparable](a, b []T) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// Lifetimes: of the router, three times the longest pause between two
// advertisements (RFC 4861 §6.2.1), of name servers likewise (RFC 8106 §5.1),
// and of the prefix as RFC 4861 has them.
const (
	routerLifetime    = 3 * longestPause
	validLifetime     = 30 * 24 * time.Hour
	preferredLifetime = 7 * 24 * time.Hour

	hopLimit   = 64  // for what guests send
	ndHopLimit = 255 // of the message itself: nobody has routed it
)

var allNodes = netip.IPv6LinkLocalAllNodes()

// advertisement is the Ethernet frame that tells everybody of a router, or
// with last that it is none any more. Prefixes that were the segment's before
// are told as such, so that guests leave them (RFC 9096 §3.5).
func (s Segment) advertisement(former []netip.Prefix, last bool) ([]byte, error) {
	lifetime := routerLifetime
	if last {
		lifetime = 0
	}
	options := []ndp.Option{
		&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: net.HardwareAddr(s.MAC[:])},
		ndp.NewMTU(uint32(s.MTU)),
		prefixOption(s.Prefix, !s.Managed, validLifetime, preferredLifetime),
	}
	for _, p := range former {
		options = append(options, prefixOption(p, true, 0, 0))
	}
	if len(s.DNS) > 0 {
		options = append(options, &ndp.RecursiveDNSServer{Lifetime: lifetime, Servers: s.DNS})
	}
	if len(s.Search) > 0 {
		options = append(options, &ndp.DNSSearchList{Lifetime: lifetime, DomainNames: s.Search})
	}
	message, err := ndp.MarshalMessageChecksum(&ndp.RouterAdvertisement{
		CurrentHopLimit: hopLimit, RouterLifetime: lifetime, Options: options,
		ManagedConfiguration: s.Managed, OtherConfiguration: true,
	}, s.Router, allNodes)
	if err != nil {
		return nil, fmt.Errorf("encode the router advertisement of VNI %d: %w", s.VNI, err)
	}
	return s.frame(message), nil
}

func prefixOption(p netip.Prefix, autonomous bool, valid, preferred time.Duration) ndp.Option {
	return &ndp.PrefixInformation{
		PrefixLength: uint8(p.Bits()), Prefix: p.Masked().Addr(), OnLink: true,
		// An interface identifier has 64 bits (RFC 4862 §5.5.3 d).
		AutonomousAddressConfiguration: p.Bits() == 64 && autonomous,
		ValidLifetime:                  valid, PreferredLifetime: preferred,
	}
}

// frame puts headers before a message to everybody.
func (s Segment) frame(message []byte) []byte {
	frame := append([]byte{0x33, 0x33, 0, 0, 0, 1}, s.MAC[:]...) // RFC 2464 §7
	frame = binary.BigEndian.AppendUint16(frame, etherTypeIPv6)
	frame = append(frame, 0x60, 0, 0, 0)
	frame = binary.BigEndian.AppendUint16(frame, uint16(len(message)))
	frame = append(frame, icmpv6, ndHopLimit)
	source, destination := s.Router.As16(), allNodes.As16()
	frame = append(append(frame, source[:]...), destination[:]...)
	return append(frame, message...)
}

// Offsets in a frame without options of IPv6.
const (
	etherTypeIPv6 = 0x86dd
	icmpv6        = 58

	offsetEtherType  = 12
	offsetNextHeader = 14 + 6
	offsetHopLimit   = 14 + 7
	offsetMessage    = 14 + 40
	solicitation     = 133 // RFC 4861 §4.1
)

// isSolicitation tells that a frame is a router solicitation that is valid as
// far as it matters to an answer to everybody on the port (RFC 4861 §6.1.1).
func isSolicitation(frame []byte) bool {
	const least = offsetMessage + 8
	return len(frame) >= least && binary.BigEndian.Uint16(frame[offsetEtherType:]) == etherTypeIPv6 &&
		frame[offsetNextHeader] == icmpv6 && frame[offsetHopLimit] == ndHopLimit &&
		frame[offsetMessage] == solicitation && frame[offsetMessage+1] == 0
}
