package native

import (
	"encoding/binary"
	"net/netip"

	seam "frond/internal/bgp"
)

// update is a decoded UPDATE: what it reaches and what it takes away, all
// with the same attributes (RFC 4271 §4.3, RFC 4760).
type update struct {
	attributes *attributes // nil if nothing is reached
	reach      nlri
	unreach    nlri
	endOfRIB   bool // RFC 4724 §2, for family
	family     seam.Family
	malformed  error // routes were treated as withdrawn (RFC 7606)
}

// nlri are routes of any family.
type nlri struct {
	prefixes []netip.Prefix
	evpn     []evpnRoute
}

// decodeUpdate reads an UPDATE's body. Errors that only spoil its routes
// are in update.malformed; a returned notification ends the session. Equal
// attribute bytes give the same *attributes through cache.
func decodeUpdate(body []byte, session *agreement, cache *attributeCache) (*update, *notification) {
	withdrawn, rest, ok := cutLength(body)
	if !ok {
		return nil, badUpdate("withdrawn routes are cut short")
	}
	raw, announced, ok := cutLength(rest)
	if !ok {
		return nil, badUpdate("path attributes are cut short")
	}
	u := &update{}
	if len(body) == 4 {
		u.endOfRIB, u.family = true, seam.IPv4
		return u, nil
	}
	if n := u.takePlain(withdrawn, announced, session); n != nil {
		return nil, n
	}
	shared, reach, unreach, n := splitAttributes(raw, session.internal)
	if n != nil {
		return nil, n
	}
	if unreach != nil {
		if n := u.takeUnreach(unreach, session); n != nil {
			return nil, n
		}
		if len(unreach) == 3 && len(shared) == 0 && reach == nil {
			f, ok := familyOf(binary.BigEndian.Uint16(unreach), unreach[2])
			u.endOfRIB, u.family = ok, f
		}
	}
	if reach == nil {
		return u, nil
	}
	return u, u.takeReach(reach, shared, session, cache)
}

// takePlain reads the fields of plain IPv4 (RFC 4271 §4.3). Peers withdraw
// there even when they announced with MP_REACH; what is announced there has
// an IPv4 next hop, which no cable of ours has, and counts as malformed.
func (u *update) takePlain(withdrawn, announced []byte, session *agreement) *notification {
	if !session.has(seam.IPv4) {
		return nil
	}
	for _, field := range [][]byte{withdrawn, announced} {
		for len(field) > 0 {
			prefix, rest, ok := cutPrefix(field, 32)
			if !ok {
				return badUpdate("IPv4 NLRI is malformed")
			}
			u.unreach.prefixes = append(u.unreach.prefixes, prefix)
			field = rest
		}
	}
	if len(announced) > 0 {
		u.malformed = malformed("IPv4 routes with an IPv4 next hop: the session agreed on IPv6 next hops (RFC 8950)")
	}
	return nil
}

// splitAttributes takes MP_REACH and MP_UNREACH out of the attributes, and
// leaves out what is only for internal peers to say (RFC 7606 §7.5).
// Framing that cannot be followed ends the session, because then the
// routes that were meant are unknown (RFC 7606 §4, §5.3).
func splitAttributes(raw []byte, internal bool) (shared, reach, unreach []byte, n *notification) {
	for len(raw) > 0 {
		attr, rest, ok := nextAttribute(raw)
		if !ok {
			return nil, nil, nil, badUpdate("an attribute is longer than the message")
		}
		raw = rest
		switch attr.kind {
		case attrReach:
			if reach != nil || len(attr.value) < 5 {
				return nil, nil, nil, badUpdate("MP_REACH_NLRI is malformed")
			}
			reach = attr.value
		case attrUnreach:
			if unreach != nil || len(attr.value) < 3 {
				return nil, nil, nil, badUpdate("MP_UNREACH_NLRI is malformed")
			}
			unreach = attr.value
		case attrLocalPref:
			if internal {
				shared = append(shared, attr.whole...)
			}
		default:
			shared = append(shared, attr.whole...)
		}
	}
	return shared, reach, unreach, nil
}

func (u *update) takeUnreach(v []byte, session *agreement) *notification {
	f, ok := familyOf(binary.BigEndian.Uint16(v), v[2])
	if !ok || !session.has(f) {
		return nil
	}
	return u.unreach.decode(f, v[3:])
}

func (u *update) takeReach(v, shared []byte, session *agreement, cache *attributeCache) *notification {
	f, ok := familyOf(binary.BigEndian.Uint16(v), v[2])
	if !ok || !session.has(f) {
		return nil
	}
	hopLength := int(v[3])
	if len(v) < 5+hopLength {
		return badUpdate("next hop is cut short")
	}
	hop, routes := v[4:4+hopLength], v[5+hopLength:]
	var n nlri
	if fault := n.decode(f, routes); fault != nil {
		return fault
	}
	attrs, err := cache.decode(shared, f, hop)
	if err != nil {
		u.malformed = err
		u.unreach.prefixes = append(u.unreach.prefixes, n.prefixes...)
		u.unreach.evpn = append(u.unreach.evpn, n.evpn...)
		return nil
	}
	u.attributes, u.reach = attrs, n
	return nil
}

// decode appends the routes that b holds.
func (n *nlri) decode(f seam.Family, b []byte) *notification {
	longest := 32
	if f == seam.IPv6 {
		longest = 128
	}
	for len(b) > 0 {
		if f == seam.EVPN {
			if len(b) < 2 || len(b) < 2+int(b[1]) {
				return badUpdate("EVPN NLRI is cut short")
			}
			end := 2 + int(b[1])
			wire := string(b[:end])
			n.evpn = append(n.evpn, evpnRoute{key: evpnKey(wire), wire: wire})
			b = b[end:]
			continue
		}
		prefix, rest, ok := cutPrefix(b, longest)
		if !ok {
			return badUpdate(f.String() + " NLRI is malformed")
		}
		n.prefixes = append(n.prefixes, prefix)
		b = rest
	}
	return nil
}

// cutPrefix reads one prefix: its length in bits and as many bytes as needed.
func cutPrefix(b []byte, longest int) (netip.Prefix, []byte, bool) {
	bits := int(b[0])
	size := (bits + 7) / 8
	if bits > longest || len(b) < 1+size {
		return netip.Prefix{}, nil, false
	}
	var address [16]byte
	copy(address[:], b[1:1+size])
	addr := netip.AddrFrom16(address)
	if longest == 32 {
		addr = netip.AddrFrom4([4]byte(address[:4]))
	}
	return netip.PrefixFrom(addr, bits).Masked(), b[1+size:], true
}

func cutLength(b []byte) (field, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	end := 2 + int(binary.BigEndian.Uint16(b))
	if len(b) < end {
		return nil, nil, false
	}
	return b[2:end], b[end:], true
}

func badUpdate(text string) *notification {
	return &notification{code: errUpdate, subcode: errUpdateMalformedAttrs, text: "malformed UPDATE: " + text}
}

// attributeCache interns attributes of one session by their bytes. It is
// bounded: when full it starts anew, which only costs sharing.
type attributeCache struct {
	known map[string]*attributes
}

const attributeCacheSize = 4096

func (c *attributeCache) decode(shared []byte, f seam.Family, hop []byte) (*attributes, error) {
	var vtep netip.Addr
	if f == seam.EVPN {
		addr, ok := netip.AddrFromSlice(hop)
		if !ok || addr.IsUnspecified() {
			return nil, malformed("EVPN next hop %x is not an address", hop)
		}
		vtep = addr
	}
	key := string(append(append([]byte{uint8(vtep.BitLen())}, vtep.AsSlice()...), shared...))
	if a, ok := c.known[key]; ok {
		return a, nil
	}
	a, err := decodeAttributes(shared)
	if err != nil {
		return nil, err
	}
	a.nextHop = vtep
	if c.known == nil || len(c.known) >= attributeCacheSize {
		c.known = make(map[string]*attributes)
	}
	c.known[key] = a
	return a, nil
}
