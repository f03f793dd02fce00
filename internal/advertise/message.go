package advertise

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/ndp"
	"golang.org/x/sys/unix"
)

var (
	allNodes    = netip.MustParseAddr("ff02::1")  // RFC 4291 §2.7.1
	allNodesMAC = [6]byte{0x33, 0x33, 0, 0, 0, 1} // RFC 2464 §7
)

// What advertisements promise, by the defaults of RFC 4861 §6.2.1.
const (
	routerLifetime    = 3 * maxInterval
	validLifetime     = 30 * 24 * time.Hour
	preferredLifetime = 7 * 24 * time.Hour
	hopLimit          = 64
	// dnsLifetime is that of name servers and search domains (RFC 8106 §5.1).
	dnsLifetime = 3 * maxInterval
)

// autonomousBits is the only length of a prefix that guests on Ethernet make
// addresses in (RFC 4862 §5.5.3, RFC 2464 §4).
const autonomousBits = 64

// advertisement is the message that tells of a router. Prefixes that are not
// in force any more are told as such, so that guests leave them (RFC 9096 §3.5).
func advertisement(r Router, former []netip.Prefix) *ndp.RouterAdvertisement {
	m := &ndp.RouterAdvertisement{
		CurrentHopLimit:    hopLimit,
		OtherConfiguration: len(r.DNS)+len(r.Search) > 0, // by DHCPv6, too
		RouterLifetime:     routerLifetime,
		Options: []ndp.Option{
			&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: r.MAC[:]},
			ndp.NewMTU(uint32(r.MTU)),
			prefix(r.Prefix, preferredLifetime, validLifetime),
		},
	}
	for _, p := range former {
		m.Options = append(m.Options, prefix(p, 0, 0))
	}
	m.Options = append(m.Options, naming(r, dnsLifetime)...)
	return m
}

// farewell is the message that a router is none any more (RFC 4861 §6.2.5).
// Addresses stay: what guests have on the segment is still theirs.
func farewell(r Router) *ndp.RouterAdvertisement {
	return &ndp.RouterAdvertisement{
		CurrentHopLimit: hopLimit,
		Options: append([]ndp.Option{
			&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: r.MAC[:]},
		}, naming(r, 0)...),
	}
}

func prefix(p netip.Prefix, preferred, valid time.Duration) ndp.Option {
	return &ndp.PrefixInformation{
		PrefixLength: uint8(p.Bits()), Prefix: p.Masked().Addr(),
		OnLink: true, AutonomousAddressConfiguration: p.Bits() == autonomousBits,
		PreferredLifetime: preferred, ValidLifetime: valid,
	}
}

// naming are the options of RFC 8106 §5.
func naming(r Router, lifetime time.Duration) []ndp.Option {
	var options []ndp.Option
	if len(r.DNS) > 0 {
		options = append(options, &ndp.RecursiveDNSServer{Lifetime: lifetime, Servers: r.DNS})
	}
	if len(r.Search) > 0 {
		options = append(options, &ndp.DNSSearchList{Lifetime: lifetime, DomainNames: r.Search})
	}
	return options
}

// Sizes and offsets of headers, octets.
const (
	sizeEthernet       = 14
	sizeIPv6           = 40
	sizeHeaders        = sizeEthernet + sizeIPv6
	sizeSolicitation   = 8 // RFC 4861 §6.1.1
	icmpSolicitation   = 133
	icmpv6             = 58
	forwardedByNobody  = 255 // hop limit
	maxQuestion        = sizeHeaders + 1280
	offsetNextHeader   = sizeEthernet + 6
	offsetHopLimit     = sizeEthernet + 7
	offsetPayload      = sizeEthernet + 4
	offsetSource       = sizeEthernet + 8
	offsetDestination  = sizeEthernet + 24
	offsetEtherType    = 12
	offsetEtherSource  = 6
	optionSourceLinker = 1
)

// target is whom an advertisement is for.
type target struct {
	mac [6]byte
	ip  netip.Addr
}

// frame is a message of a router in Ethernet and IPv6.
func frame(r Router, to target, m ndp.Message) ([]byte, error) {
	body, err := ndp.MarshalMessageChecksum(m, r.LinkLocal, to.ip)
	if err != nil {
		return nil, fmt.Errorf("encode advertisement: %w", err)
	}
	return packet(r, to, icmpv6, body), nil
}

// packet puts the headers of Ethernet and IPv6 before a body.
func packet(r Router, to target, next byte, body []byte) []byte {
	b := make([]byte, 0, sizeHeaders+len(body))
	b = append(b, to.mac[:]...)
	b = append(b, r.MAC[:]...)
	b = binary.BigEndian.AppendUint16(b, unix.ETH_P_IPV6)
	b = append(b, 0x60, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
	b = append(b, next, forwardedByNobody)
	b = append(append(b, r.LinkLocal.AsSlice()...), to.ip.AsSlice()...)
	return append(b, body...)
}

var errUnsound = errors.New("unsound solicitation")

// solicitor reads who asks for an advertisement: the zero target where that
// is somebody who has no address yet. What RFC 4861 §6.1.1 says must be
// discarded is an error.
func solicitor(b []byte) (target, error) {
	if len(b) < sizeHeaders+sizeSolicitation || binary.BigEndian.Uint16(b[offsetEtherType:]) != unix.ETH_P_IPV6 ||
		b[sizeEthernet]>>4 != 6 || b[offsetNextHeader] != icmpv6 || b[offsetHopLimit] != forwardedByNobody {
		return target{}, errUnsound
	}
	length := int(binary.BigEndian.Uint16(b[offsetPayload:]))
	if length < sizeSolicitation || length > len(b)-sizeHeaders {
		return target{}, errUnsound
	}
	body := b[sizeHeaders : sizeHeaders+length]
	if body[0] != icmpSolicitation || body[1] != 0 || checksum(icmpv6, b[offsetSource:sizeHeaders], body) != 0 {
		return target{}, errUnsound
	}
	m, err := ndp.ParseMessage(body)
	if err != nil {
		return target{}, err
	}
	solicitation, ok := m.(*ndp.RouterSolicitation)
	if !ok {
		return target{}, errUnsound
	}
	from := target{mac: [6]byte(b[offsetEtherSource:]), ip: netip.AddrFrom16([16]byte(b[offsetSource:]))}
	switch {
	case from.mac[0]&1 != 0:
		return target{}, errUnsound
	case from.ip.IsUnspecified():
		for _, o := range solicitation.Options {
			if o.Code() == optionSourceLinker {
				return target{}, errUnsound
			}
		}
		return target{}, nil
	case !from.ip.IsLinkLocalUnicast():
		return target{}, nil // no address to answer to on this link for sure
	}
	return from, nil
}

// checksum is that of RFC 8200 §8.1 over addresses and body; of one that is
// whole, with its own in it, 0.
func checksum(next byte, addresses, body []byte) uint16 {
	sum := uint32(next) + uint32(len(body))
	for _, part := range [][]byte{addresses, body} {
		for ; len(part) >= 2; part = part[2:] {
			sum += uint32(binary.BigEndian.Uint16(part))
		}
		if len(part) == 1 {
			sum += uint32(part[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
