package native

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Attribute types (RFC 4271 §5, 1997, 4360, 4456, 4760, 6514, 6793).
const (
	attrOrigin              = 1
	attrASPath              = 2
	attrNextHop             = 3
	attrMED                 = 4
	attrLocalPref           = 5
	attrCommunities         = 8
	attrOriginatorID        = 9
	attrClusterList         = 10
	attrReach               = 14
	attrUnreach             = 15
	attrExtendedCommunities = 16
	attrAS4Path             = 17
	attrAS4Aggregator       = 18
	attrPMSI                = 22
)

// Attribute flags (RFC 4271 §4.3).
const (
	flagOptional   = 0x80
	flagTransitive = 0x40
	flagPartial    = 0x20
	flagExtended   = 0x10
)

// Well-known communities (RFC 1997, 8326).
const (
	communityGracefulShutdown  = 0xffff0000
	communityNoExport          = 0xffffff01
	communityNoAdvertise       = 0xffffff02
	communityNoExportSubconfed = 0xffffff03
)

// Segment types of an AS path.
const (
	segmentSet      = 1
	segmentSequence = 2
)

// attributes are the path attributes that routes of one UPDATE share. They
// are interned: equal attributes are the same pointer, and never change.
type attributes struct {
	origin      uint8
	asPath      []uint32 // every AS in it, sets included, in their order
	pathLength  int      // for the decision: a set counts as one (RFC 4271 §9.1.2.2)
	segments    []byte   // AS_PATH as on the wire
	localPref   uint32
	communities []uint32
	extended    string     // extended communities as on the wire
	sequence    uint32     // of extended: see seam.Route; 0: none
	pmsi        string     // PMSI tunnel as on the wire
	nextHop     netip.Addr // of EVPN: the VTEP; zero for unicast
	transitive  string     // whole attributes that we do not know but pass on

	extendedValues []uint64  // extended, once asked for; see extendedCommunities
	encoded        [4][]byte // see encode
	encodedBy      uint32    // the AS that encoded says
}

// extendedCommunities are the same for all who ask, and are not to be changed.
func (a *attributes) extendedCommunities() []uint64 {
	if a.extendedValues == nil && a.extended != "" {
		a.extendedValues = decodeExtended(a.extended)
	}
	return a.extendedValues
}

func (a *attributes) hasCommunity(c uint32) bool { return slices.Contains(a.communities, c) }

// passes tells whether as is in the path already.
func (a *attributes) passes(as uint32) bool { return slices.Contains(a.asPath, as) }

// errWithdraw marks attributes so broken that their routes count as
// withdrawn, while the session stays (RFC 7606 §2).
var errWithdraw = errors.New("treated as withdrawal")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), errWithdraw)
}

// rawAttribute is one attribute as it lies in an UPDATE.
type rawAttribute struct {
	flags, kind uint8
	value       []byte
	whole       []byte // with its header
}

// nextAttribute cuts the first attribute off b.
func nextAttribute(b []byte) (rawAttribute, []byte, bool) {
	if len(b) < 3 {
		return rawAttribute{}, nil, false
	}
	header, length := 3, int(b[2])
	if b[0]&flagExtended != 0 {
		if len(b) < 4 {
			return rawAttribute{}, nil, false
		}
		header, length = 4, int(binary.BigEndian.Uint16(b[2:]))
	}
	if len(b) < header+length {
		return rawAttribute{}, nil, false
	}
	end := header + length
	return rawAttribute{flags: b[0], kind: b[1], value: b[header:end], whole: b[:end]}, b[end:], true
}

// decodeAttributes reads path attributes other than MP_REACH and MP_UNREACH.
// The error wraps errWithdraw.
func decodeAttributes(raw []byte) (*attributes, error) {
	a := &attributes{localPref: defaultLocalPref}
	var seen [256]bool
	for len(raw) > 0 {
		attr, rest, ok := nextAttribute(raw)
		if !ok {
			return nil, malformed("attribute list is cut short")
		}
		raw = rest
		if seen[attr.kind] { // RFC 7606 §3 (g): all but the first are discarded
			continue
		}
		seen[attr.kind] = true
		if err := a.take(attr); err != nil {
			return nil, err
		}
	}
	if !seen[attrOrigin] || !seen[attrASPath] {
		return nil, malformed("ORIGIN or AS_PATH is missing")
	}
	return a, nil
}

// take reads one attribute in, copying what it keeps (RFC 7606 §7).
func (a *attributes) take(attr rawAttribute) error {
	v := attr.value
	switch attr.kind {
	case attrOrigin:
		if len(v) != 1 || v[0] > 2 {
			return malformed("ORIGIN is invalid")
		}
		a.origin = v[0]
	case attrASPath:
		return a.takeASPath(v)
	case attrNextHop: // of IPv4 NLRI outside MP_REACH, which we never agree to
	case attrMED:
		if len(v) != 4 {
			return malformed("MULTI_EXIT_DISC is %d bytes long, not 4", len(v))
		}
	case attrLocalPref:
		if len(v) != 4 {
			return malformed("LOCAL_PREF is %d bytes long, not 4", len(v))
		}
		a.localPref = binary.BigEndian.Uint32(v)
	case attrCommunities:
		if len(v) == 0 || len(v)%4 != 0 {
			return malformed("COMMUNITIES is %d bytes long, not a multiple of 4", len(v))
		}
		for ; len(v) > 0; v = v[4:] {
			a.communities = append(a.communities, binary.BigEndian.Uint32(v))
		}
	case attrExtendedCommunities:
		if len(v) == 0 || len(v)%8 != 0 {
			return malformed("EXTENDED COMMUNITIES is %d bytes long, not a multiple of 8", len(v))
		}
		a.extended = string(v)
		a.sequence = sequenceOf(v)
	case attrPMSI:
		if len(v) < 5 {
			return malformed("PMSI_TUNNEL is %d bytes long, at least 5 are needed", len(v))
		}
		a.pmsi = string(v)
	case attrOriginatorID, attrClusterList: // of route reflection, which we take no part in
	case attrAS4Path, attrAS4Aggregator: // from speakers with 2-octet AS numbers, which we refuse (RFC 6793 §4.1)
	default:
		return a.takeUnknown(attr)
	}
	return nil
}

func (a *attributes) takeUnknown(attr rawAttribute) error {
	if attr.flags&flagOptional == 0 && attr.kind > attrCommunities {
		return malformed("unrecognized well-known attribute %d", attr.kind)
	}
	if attr.flags&flagTransitive == 0 || attr.flags&flagOptional == 0 {
		return nil
	}
	whole := slices.Clone(attr.whole)
	whole[0] |= flagPartial // RFC 4271 §5: passed on by one who does not know it
	a.transitive += string(whole)
	return nil
}

func (a *attributes) takeASPath(v []byte) error {
	a.segments = slices.Clone(v)
	for len(v) > 0 {
		if len(v) < 2 {
			return malformed("AS_PATH is cut short")
		}
		kind, count := v[0], int(v[1])
		v = v[2:]
		if kind != segmentSet && kind != segmentSequence {
			return malformed("AS_PATH has a segment of type %d", kind)
		}
		if count == 0 || len(v) < 4*count {
			return malformed("AS_PATH has a segment of impossible length %d", count)
		}
		for i := range count {
			a.asPath = append(a.asPath, binary.BigEndian.Uint32(v[4*i:]))
		}
		v = v[4*count:]
		if kind == segmentSet {
			count = 1
		}
		a.pathLength += count
	}
	if slices.Contains(a.asPath, 0) { // RFC 7607
		return malformed("AS_PATH contains AS 0")
	}
	return nil
}

// encode returns the attributes as this speaker passes them on, without
// MP_REACH: to an external peer with its own AS in front, to an internal
// one with LOCAL_PREF. The result is kept and must not be changed.
func (a *attributes) encode(asn uint32, internal, shutdown bool) []byte {
	if a.encodedBy != asn {
		a.encoded, a.encodedBy = [4][]byte{}, asn
	}
	slot := 0
	if internal {
		slot |= 1
	}
	if shutdown {
		slot |= 2
	}
	if a.encoded[slot] == nil {
		a.encoded[slot] = a.build(asn, internal, shutdown)
	}
	return a.encoded[slot]
}

func (a *attributes) build(asn uint32, internal, shutdown bool) []byte {
	b := []byte{flagTransitive, attrOrigin, 1, a.origin}
	path := a.segments
	if !internal {
		path = prepend(asn, path)
	}
	b = appendAttribute(b, flagTransitive, attrASPath, path)
	if internal {
		b = appendAttribute(b, flagTransitive, attrLocalPref, binary.BigEndian.AppendUint32(nil, a.localPref))
	}
	communities := a.communities
	if shutdown && !a.hasCommunity(communityGracefulShutdown) {
		communities = append(slices.Clone(communities), communityGracefulShutdown)
	}
	if len(communities) > 0 {
		var v []byte
		for _, c := range communities {
			v = binary.BigEndian.AppendUint32(v, c)
		}
		b = appendAttribute(b, flagOptional|flagTransitive, attrCommunities, v)
	}
	if a.extended != "" {
		b = appendAttribute(b, flagOptional|flagTransitive, attrExtendedCommunities, []byte(a.extended))
	}
	if a.pmsi != "" {
		b = appendAttribute(b, flagOptional|flagTransitive, attrPMSI, []byte(a.pmsi))
	}
	return append(b, a.transitive...)
}

// prepend puts asn in front of an AS_PATH (RFC 4271 §5.1.2).
func prepend(asn uint32, segments []byte) []byte {
	if len(segments) > 0 && segments[0] == segmentSequence && segments[1] < 255 {
		b := []byte{segmentSequence, segments[1] + 1}
		b = binary.BigEndian.AppendUint32(b, asn)
		return append(b, segments[2:]...)
	}
	b := binary.BigEndian.AppendUint32([]byte{segmentSequence, 1}, asn)
	return append(b, segments...)
}

func appendAttribute(b []byte, flags, kind uint8, value []byte) []byte {
	if len(value) > 255 {
		b = append(b, flags|flagExtended, kind)
		b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
		return append(b, value...)
	}
	b = append(b, flags, kind, uint8(len(value)))
	return append(b, value...)
}
