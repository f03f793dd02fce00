package evpn

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"frond/internal/bgp"
	"frond/internal/dataplane"
)

// Route types (RFC 7432 §7, RFC 9136 §3).
const (
	typeMACIP     = 2
	typeMulticast = 3
	typePrefix    = 5
)

// segmentLength is that of an Ethernet segment identifier (RFC 7432 §5). What
// frond tells sits on no segment with several links: all zero.
const segmentLength = 10

// Route is a decoded EVPN route of a type that frond uses: MACIP, Multicast
// or Prefix.
type Route interface {
	// String is the notation that operators know from other routers' tables:
	// [2]:[0]:[48]:[02:00:00:00:00:01]:[32]:[172.16.0.11].
	String() string
	Encode() bgp.EVPNRoute
	attributes() Attributes
}

// Attributes are what every Route carries.
type Attributes struct {
	RD   RD
	Tag  uint32     // Ethernet tag; 0 for a segment of its own (RFC 8365 §5.1.2)
	VNI  uint32     // as label, and as the number of the route target
	ASN  uint32     // of the route target, which holds the low 16 bits
	VTEP netip.Addr // the next hop
}

func (a Attributes) attributes() Attributes { return a }

// MACIP says where a MAC is (RFC 7432 §7.2), and with an IP also whose that is.
type MACIP struct {
	Attributes
	MAC      dataplane.MAC
	IP       netip.Addr // zero: the MAC alone
	Sequence uint32     // MAC mobility (RFC 7432 §7.7)
	Sticky   bool       // never moves (RFC 7432 §15.2)
}

// Multicast says that a VTEP takes part in a segment and wants its flooded
// frames (RFC 7432 §7.3, by ingress replication).
type Multicast struct {
	Attributes
	Originator netip.Addr
}

// Prefix says that a prefix is reached through a VTEP (RFC 9136 §3.1).
type Prefix struct {
	Attributes
	Prefix    netip.Prefix
	Gateway   netip.Addr    // overlay index; zero: none
	RouterMAC dataplane.MAC // where routed frames are sent to (RFC 9135 §8.1); zero: not told
}

func (r MACIP) String() string {
	if !r.IP.IsValid() {
		return fmt.Sprintf("[%d]:[%d]:[48]:[%s]", typeMACIP, r.Tag, r.MAC)
	}
	return fmt.Sprintf("[%d]:[%d]:[48]:[%s]:[%d]:[%s]", typeMACIP, r.Tag, r.MAC, r.IP.BitLen(), r.IP)
}

func (r Multicast) String() string {
	return fmt.Sprintf("[%d]:[%d]:[%d]:[%s]", typeMulticast, r.Tag, r.Originator.BitLen(), r.Originator)
}

func (r Prefix) String() string {
	return fmt.Sprintf("[%d]:[%d]:[%d]:[%s]", typePrefix, r.Tag, r.Prefix.Bits(), r.Prefix.Addr())
}

// RD is a route distinguisher (RFC 4364 §4.2) as on the wire. It keeps the
// same route of two nodes apart.
type RD [8]byte

// NewRD returns the distinguisher of type 1, which RFC 7432 §7.9 recommends:
// a node's IPv4 address and a number of its own choice.
func NewRD(routerID netip.Addr, index uint16) RD {
	rd := RD{1: 1}
	id := routerID.As4()
	copy(rd[2:], id[:])
	binary.BigEndian.PutUint16(rd[6:], index)
	return rd
}

// number is what NewRD took as index.
func (rd RD) number() uint16 { return binary.BigEndian.Uint16(rd[6:]) }

// RDNode is the address in the distinguisher of an NLRI; zero where there is
// none.
func RDNode(nlri string) netip.Addr {
	const rdAt, numberAt = 2, 8
	if len(nlri) < numberAt || nlri[rdAt] != 0 || nlri[rdAt+1] != 1 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte([]byte(nlri[rdAt+2 : numberAt])))
}

// String is ADMINISTRATOR:NUMBER, as in 10.0.200.1:100.
func (rd RD) String() string {
	switch binary.BigEndian.Uint16(rd[:]) {
	case 0:
		return fmt.Sprintf("%d:%d", binary.BigEndian.Uint16(rd[2:]), binary.BigEndian.Uint32(rd[4:]))
	case 1:
		return fmt.Sprintf("%s:%d", netip.AddrFrom4([4]byte(rd[2:6])), binary.BigEndian.Uint16(rd[6:]))
	case 2:
		return fmt.Sprintf("%d:%d", binary.BigEndian.Uint32(rd[2:]), binary.BigEndian.Uint16(rd[6:]))
	default:
		return fmt.Sprintf("%x", rd[:])
	}
}

// Encode returns the route as the speaker sends it.
func (r MACIP) Encode() bgp.EVPNRoute {
	b := make([]byte, 0, 2+33+16)
	b = append(b, typeMACIP, 0)
	b = append(b, r.RD[:]...)
	b = append(b, make([]byte, segmentLength)...)
	b = binary.BigEndian.AppendUint32(b, r.Tag)
	b = append(b, 48)
	b = append(b, r.MAC[:]...)
	b = append(b, byte(r.IP.BitLen()))
	b = append(b, r.IP.AsSlice()...)
	b = appendLabel(b, r.VNI)
	b[1] = byte(len(b) - 2)
	route := r.wire(b)
	if r.Sequence > 0 || r.Sticky {
		route.ExtendedCommunities = append(route.ExtendedCommunities, mobility(r.Sequence, r.Sticky))
	}
	return route
}

// Encode returns the route as the speaker sends it.
func (r Multicast) Encode() bgp.EVPNRoute {
	b := make([]byte, 0, 2+29)
	b = append(b, typeMulticast, 0)
	b = append(b, r.RD[:]...)
	b = binary.BigEndian.AppendUint32(b, r.Tag)
	b = append(b, byte(r.Originator.BitLen()))
	b = append(b, r.Originator.AsSlice()...)
	b[1] = byte(len(b) - 2)
	route := r.wire(b)
	pmsi := []byte{0, ingressReplication}
	pmsi = appendLabel(pmsi, r.VNI)
	route.PMSI = string(append(pmsi, r.VTEP.AsSlice()...))
	return route
}

// Encode returns the route as the speaker sends it.
func (r Prefix) Encode() bgp.EVPNRoute {
	gateway := r.Gateway
	if !gateway.IsValid() {
		gateway = netip.IPv4Unspecified()
		if r.Prefix.Addr().Is6() {
			gateway = netip.IPv6Unspecified()
		}
	}
	b := make([]byte, 0, 2+58)
	b = append(b, typePrefix, 0)
	b = append(b, r.RD[:]...)
	b = append(b, make([]byte, segmentLength)...)
	b = binary.BigEndian.AppendUint32(b, r.Tag)
	b = append(b, byte(r.Prefix.Bits()))
	b = append(b, r.Prefix.Addr().AsSlice()...)
	b = append(b, gateway.AsSlice()...)
	b = appendLabel(b, r.VNI)
	b[1] = byte(len(b) - 2)
	route := r.wire(b)
	if r.RouterMAC != (dataplane.MAC{}) {
		route.ExtendedCommunities = append(route.ExtendedCommunities, routerMAC(r.RouterMAC))
	}
	return route
}

func (a Attributes) wire(nlri []byte) bgp.EVPNRoute {
	return bgp.EVPNRoute{
		NLRI:                string(nlri),
		NextHop:             a.VTEP,
		ExtendedCommunities: []uint64{routeTarget(a.ASN, a.VNI), encapsulationVXLAN},
	}
}

// appendLabel appends a VNI in the place of an MPLS label, all 24 bits of it
// (RFC 8365 §5.1.3).
func appendLabel(b []byte, vni uint32) []byte {
	return append(b, byte(vni>>16), byte(vni>>8), byte(vni))
}

func label(b string) uint32 {
	return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])
}
