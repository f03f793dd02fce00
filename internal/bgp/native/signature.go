package native

import (
	"bytes"
	"crypto/md5"
	"encoding/binary"
	"net/netip"

	seam "frond/internal/bgp"
	"frond/internal/secret"
)

// segment is a TCP segment as it came in over IPv6.
type segment struct {
	from, to netip.Addr
	tcp      []byte // header and data
	header   int    // length of the header
	digest   []byte // of its TCP-MD5 option; nil: it is not signed
}

const (
	ipv6Header  = 40
	tcpHeader   = 20
	protocolTCP = 6
	optionEnd   = 0
	optionNoOp  = 1
	optionMD5   = 19 // RFC 2385 §3.0
	flagSYN     = 0x02
)

// parseSegment takes a packet that begins with its IPv6 header. Such with
// extension headers are none of BGP's.
func parseSegment(packet []byte) (segment, bool) {
	if len(packet) < ipv6Header+tcpHeader || packet[0]>>4 != 6 || packet[6] != protocolTCP {
		return segment{}, false
	}
	length := int(binary.BigEndian.Uint16(packet[4:]))
	if length < tcpHeader || len(packet) < ipv6Header+length {
		return segment{}, false
	}
	s := segment{
		from: netip.AddrFrom16([16]byte(packet[8:24])),
		to:   netip.AddrFrom16([16]byte(packet[24:40])),
		tcp:  packet[ipv6Header : ipv6Header+length],
	}
	if s.header = int(s.tcp[12]>>4) * 4; s.header < tcpHeader || s.header > length {
		return segment{}, false
	}
	s.digest = findDigest(s.tcp[tcpHeader:s.header])
	return s, true
}

// findDigest looks for the signature among a segment's options.
func findDigest(options []byte) []byte {
	for len(options) > 0 && options[0] != optionEnd {
		if options[0] == optionNoOp {
			options = options[1:]
			continue
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return nil
		}
		if options[0] == optionMD5 && options[1] == 2+md5.Size {
			return options[2 : 2+md5.Size]
		}
		options = options[options[1]:]
	}
	return nil
}

// signedWith tells whether the key made the segment's signature (RFC 2385
// §2.0, with the pseudo-header of RFC 8200 §8.1).
func (s segment) signedWith(key secret.Text) bool {
	h := md5.New()
	from, to := s.from.As16(), s.to.As16()
	h.Write(from[:])
	h.Write(to[:])
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(s.tcp))))
	h.Write([]byte{0, 0, 0, protocolTCP})
	fixed := bytes.Clone(s.tcp[:tcpHeader])
	fixed[16], fixed[17] = 0, 0 // the checksum
	h.Write(fixed)
	h.Write(s.tcp[s.header:])
	h.Write([]byte(key))
	return bytes.Equal(h.Sum(nil), s.digest)
}

// fault tells why the kernel drops the segment, if it does for its signature.
func (s segment) fault(keys seam.Keys) seam.KeyFault {
	switch {
	case keys.Current == "" && s.digest == nil:
		return ""
	case keys.Current == "":
		return seam.KeyUnexpected
	case s.digest == nil:
		return seam.KeyMissing
	case s.signedWith(keys.Current), keys.Previous != "" && s.signedWith(keys.Previous):
		return ""
	}
	return seam.KeyDiffers
}

// words say what is wrong with the keys of the two ends.
func words(fault seam.KeyFault) string {
	switch fault {
	case seam.KeyDiffers:
		return "the neighbour signs with another key than that in password_file: one of the two has not the fabric's key"
	case seam.KeyMissing:
		return "the neighbour does not sign its segments: it has no password_file, and this node has one"
	case seam.KeyUnexpected:
		return "the neighbour signs its segments: it has a password_file, and this node has none"
	}
	return ""
}
