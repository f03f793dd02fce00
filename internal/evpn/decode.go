package evpn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"frond/internal/bgp"
	"frond/internal/dataplane"
)

const (
	maxVNI             = 1<<24 - 1
	ingressReplication = 6 // tunnel type (RFC 6514 §5)
)

// errUnused is for routes that are well formed as far as frond can tell, but
// of no use to it: of another type, or for another encapsulation.
var errUnused = errors.New("not used here")

// Decode reads a route. What is not as the RFC of its type says is an error.
func Decode(r bgp.EVPNRoute) (Route, error) {
	if len(r.NLRI) < 2 || len(r.NLRI) != 2+int(r.NLRI[1]) {
		return nil, fmt.Errorf("NLRI of %d bytes does not have the length that it tells", len(r.NLRI))
	}
	decode, used := decoders[r.NLRI[0]]
	if !used {
		return nil, fmt.Errorf("route type %d: %w", r.NLRI[0], errUnused)
	}
	c := decodeCommunities(r.ExtendedCommunities)
	if c.foreign {
		return nil, fmt.Errorf("encapsulation other than VXLAN: %w", errUnused)
	}
	if !destination(r.NextHop.Unmap()) {
		return nil, fmt.Errorf("next hop %s cannot be a VTEP", r.NextHop)
	}
	route, err := decode(r.NLRI[2:], r, c)
	if err != nil {
		return nil, fmt.Errorf("type %d: %w", r.NLRI[0], err)
	}
	if route.attributes().VNI == 0 {
		return nil, fmt.Errorf("type %d: neither label nor route target names a VNI", r.NLRI[0])
	}
	return route, nil
}

// decoders read the value of an NLRI by its route type.
var decoders = map[byte]func(value string, r bgp.EVPNRoute, c communities) (Route, error){
	typeMACIP:     decodeMACIP,
	typeMulticast: decodeMulticast,
	typePrefix:    decodePrefix,
}

// attributesOf takes the VNI from the label, which is what data packets will
// carry, or from the route target if there is no label.
func attributesOf(value string, tag string, vni uint32, r bgp.EVPNRoute, c communities) Attributes {
	if vni == 0 {
		vni = c.vni
	}
	return Attributes{
		RD:   RD([]byte(value[:8])),
		Tag:  binary.BigEndian.Uint32([]byte(tag)),
		VNI:  vni,
		ASN:  c.asn,
		VTEP: r.NextHop.Unmap(),
	}
}

func decodeMACIP(value string, r bgp.EVPNRoute, c communities) (Route, error) {
	const tagAt, macAt, addressAt = 18, 23, 30
	if len(value) < addressAt {
		return nil, fmt.Errorf("%d bytes are too few", len(value))
	}
	if bits := value[tagAt+4]; bits != 48 {
		return nil, fmt.Errorf("MAC of %d bits", bits)
	}
	mac := dataplane.MAC([]byte(value[macAt : macAt+6]))
	if mac.IsZero() || mac.IsGroup() {
		return nil, fmt.Errorf("%s is no MAC of a station", mac)
	}
	ip, labels, err := takeAddress(value[addressAt-1:])
	if err != nil {
		return nil, err
	}
	if ip.IsValid() && !destination(ip) {
		return nil, fmt.Errorf("%s is no address of a station", ip)
	}
	if len(labels) != 3 && len(labels) != 6 { // the second one is of a VRF (RFC 9135 §5)
		return nil, fmt.Errorf("%d bytes of labels", len(labels))
	}
	return MACIP{
		Attributes: attributesOf(value, value[tagAt:tagAt+4], label(labels), r, c),
		MAC:        mac,
		IP:         ip,
		Sequence:   c.sequence,
		Sticky:     c.sticky,
	}, nil
}

func decodeMulticast(value string, r bgp.EVPNRoute, c communities) (Route, error) {
	const tagAt, addressAt = 8, 12
	if len(value) <= addressAt {
		return nil, fmt.Errorf("%d bytes are too few", len(value))
	}
	originator, rest, err := takeAddress(value[addressAt:])
	if err != nil {
		return nil, err
	}
	if !destination(originator) || rest != "" {
		return nil, errors.New("its originator is no address")
	}
	vni, vtep, err := decodePMSI(r)
	if err != nil {
		return nil, err
	}
	m := Multicast{Attributes: attributesOf(value, value[tagAt:addressAt], vni, r, c), Originator: originator}
	m.VTEP = vtep
	return m, nil
}

// decodePMSI reads the tunnel by which flooded frames are sent (RFC 6514 §5):
// its VNI and the VTEP that wants them. Without one the next hop wants them.
func decodePMSI(r bgp.EVPNRoute) (uint32, netip.Addr, error) {
	const identifierAt = 5
	if r.PMSI == "" {
		return 0, r.NextHop.Unmap(), nil
	}
	if len(r.PMSI) < identifierAt {
		return 0, netip.Addr{}, fmt.Errorf("PMSI tunnel of %d bytes", len(r.PMSI))
	}
	if kind := r.PMSI[1]; kind != ingressReplication {
		return 0, netip.Addr{}, fmt.Errorf("PMSI tunnel type %d: %w", kind, errUnused)
	}
	vtep, ok := netip.AddrFromSlice([]byte(r.PMSI[identifierAt:]))
	if !ok || !destination(vtep) {
		return 0, netip.Addr{}, errors.New("the endpoint of its PMSI tunnel is no address")
	}
	return label(r.PMSI[2:identifierAt]), vtep.Unmap(), nil
}

func decodePrefix(value string, r bgp.EVPNRoute, c communities) (Route, error) {
	const tagAt, bitsAt, prefixAt = 18, 22, 23
	width := 4
	switch len(value) {
	case prefixAt + 2*4 + 3:
	case prefixAt + 2*16 + 3:
		width = 16
	default:
		return nil, fmt.Errorf("%d bytes are neither of an IPv4 nor of an IPv6 prefix", len(value))
	}
	addr, _ := netip.AddrFromSlice([]byte(value[prefixAt : prefixAt+width]))
	gateway, _ := netip.AddrFromSlice([]byte(value[prefixAt+width : prefixAt+2*width]))
	prefix, err := addr.Prefix(int(value[bitsAt]))
	if err != nil {
		return nil, err
	}
	if prefix.Addr() != addr || addr.Is4In6() {
		return nil, fmt.Errorf("%s/%d is no prefix", addr, value[bitsAt])
	}
	if gateway.IsUnspecified() {
		gateway = netip.Addr{}
	}
	return Prefix{
		Attributes: attributesOf(value, value[tagAt:bitsAt], label(value[prefixAt+2*width:]), r, c),
		Prefix:     prefix,
		Gateway:    gateway,
		RouterMAC:  c.routerMAC,
	}, nil
}

// takeAddress reads an address that follows its length in bits, and returns
// what comes after. Zero bits are no address.
func takeAddress(b string) (netip.Addr, string, error) {
	bits, rest := b[0], b[1:]
	if bits != 0 && bits != 32 && bits != 128 {
		return netip.Addr{}, "", fmt.Errorf("IP address of %d bits", bits)
	}
	n := int(bits) / 8
	if len(rest) < n {
		return netip.Addr{}, "", fmt.Errorf("IP address of %d bits in %d bytes", bits, len(rest))
	}
	addr, _ := netip.AddrFromSlice([]byte(rest[:n]))
	return addr, rest[n:], nil
}

// destination tells whether an address can be one station's: a VTEP's or a guest's.
func destination(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback() &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
