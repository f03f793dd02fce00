package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// rawLeg is a next hop as routes and nexthop objects have it.
type rawLeg struct {
	index uint32 // of the port
	via   netip.Addr
	flags uint32 // RTNH_F_…
}

// routeAnswer is a route as the kernel answers a lookup with it. It has legs
// of its own, or names a nexthop object.
type routeAnswer struct {
	kind      uint8 // RTN_…
	prefix    netip.Prefix
	nextHopID uint32
	legs      []rawLeg
}

// parseRouteLookup reads struct rtmsg and its attributes: an answer for to.
func parseRouteLookup(m message, to netip.Addr) routeAnswer {
	answer := routeAnswer{kind: m.body[7]}
	answer.prefix, _ = to.Prefix(int(m.body[1]))
	single := rawLeg{flags: binary.NativeEndian.Uint32(m.body[8:])}
	for kind, value := range attributes(m.body[unix.SizeofRtMsg:]) {
		switch kind {
		case rtaNhID:
			answer.nextHopID = number(value)
		case unix.RTA_OIF:
			single.index = number(value)
		case unix.RTA_MULTIPATH:
			answer.legs = multipath(value)
		default:
			single.setVia(kind, value)
		}
	}
	if answer.legs == nil {
		answer.legs = []rawLeg{single}
	}
	return answer
}

// multipath reads struct rtnexthop after struct rtnexthop.
func multipath(data []byte) []rawLeg {
	var legs []rawLeg
	for rest := data; len(rest) >= unix.SizeofRtNexthop; {
		length := int(binary.NativeEndian.Uint16(rest))
		if length < unix.SizeofRtNexthop || length > len(rest) {
			break
		}
		leg := rawLeg{flags: uint32(rest[2]), index: binary.NativeEndian.Uint32(rest[4:])}
		for kind, value := range attributes(rest[unix.SizeofRtNexthop:length]) {
			leg.setVia(kind, value)
		}
		legs = append(legs, leg)
		rest = rest[min(align(length), len(rest)):]
	}
	return legs
}

// setVia takes the next hop's address: of the route's family in RTA_GATEWAY,
// of another one in RTA_VIA, behind the family's number.
func (l *rawLeg) setVia(kind uint16, value []byte) {
	switch {
	case kind == unix.RTA_GATEWAY:
		l.via = address(value)
	case kind == unix.RTA_VIA && len(value) > 2:
		l.via = address(value[2:])
	}
}

// objectLegs asks for a nexthop object: its one leg, or those of the group.
func (c *conn) objectLegs(id uint32, groups bool) ([]rawLeg, error) {
	request := appendAttribute(make([]byte, unix.SizeofNhmsg), unix.NHA_ID, binary.NativeEndian.AppendUint32(nil, id))
	m, err := c.get(unix.RTM_GETNEXTHOP, request)
	if err != nil {
		return nil, fmt.Errorf("find nexthop object %d: %w", id, err)
	}
	if len(m.body) < unix.SizeofNhmsg {
		return nil, fmt.Errorf("find nexthop object %d: the kernel's answer is none", id)
	}
	leg := rawLeg{flags: binary.NativeEndian.Uint32(m.body[4:])}
	var group []uint32
	for kind, value := range attributes(m.body[unix.SizeofNhmsg:]) {
		switch kind {
		case unix.NHA_OIF:
			leg.index = number(value)
		case unix.NHA_GATEWAY:
			leg.via = address(value)
		case unix.NHA_GROUP:
			for member := range slices.Chunk(value, sizeofNexthopGroup) {
				group = append(group, number(member[:min(4, len(member))]))
			}
		}
	}
	if group == nil {
		return []rawLeg{leg}, nil
	}
	if !groups {
		return nil, fmt.Errorf("nexthop object %d: a group inside a group", id)
	}
	return c.groupLegs(group)
}

// groupLegs asks for the objects of a group. One that vanished meanwhile has
// left the group too.
func (c *conn) groupLegs(group []uint32) ([]rawLeg, error) {
	var legs []rawLeg
	for _, id := range group {
		member, err := c.objectLegs(id, false)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return nil, err
		}
		legs = append(legs, member...)
	}
	return legs, nil
}
