package kernel

import (
	"encoding/binary"
	"slices"

	"frond/internal/dataplane"

	"golang.org/x/sys/unix"
)

// sizeofNexthopGroup is the size of struct nexthop_grp (linux/nexthop.h).
const sizeofNexthopGroup = 8

// addNextHop encodes a leg. An existing id is refused: it may be anybody's.
func (b *batch) addNextHop(op dataplane.SetNextHop, oif uint32) {
	via := op.NextHop.Via
	b.begin(unix.RTM_NEWNEXTHOP, unix.NLM_F_CREATE|unix.NLM_F_EXCL, nhmsg(family(via))...)
	b.number(unix.NHA_ID, op.ID)
	b.number(unix.NHA_OIF, oif)
	if !via.IsUnspecified() {
		b.address(unix.NHA_GATEWAY, via)
	}
}

// setGroup encodes a group whose members weigh the same.
func (b *batch) setGroup(op dataplane.SetGroup) {
	members := make([]byte, 0, len(op.Members)*sizeofNexthopGroup)
	for _, id := range op.Members {
		members = binary.NativeEndian.AppendUint32(members, id)
		members = append(members, 0, 0, 0, 0) // weight - 1, reserved
	}
	b.begin(unix.RTM_NEWNEXTHOP, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, nhmsg(unix.AF_UNSPEC)...)
	b.number(unix.NHA_ID, op.ID)
	b.attribute(unix.NHA_GROUP, members)
}

func (b *batch) deleteNextHop(op dataplane.DeleteNextHop) {
	b.begin(unix.RTM_DELNEXTHOP, 0, make([]byte, unix.SizeofNhmsg)...)
	b.number(unix.NHA_ID, op.ID)
}

// nhmsg is struct nhmsg: family, scope, protocol, reserved, flags.
func nhmsg(family uint8) []byte {
	return []byte{family, unix.RT_SCOPE_UNIVERSE, Protocol, 0, 0, 0, 0, 0}
}

func (d *dumper) nextHops() error {
	reset := func() {
		d.state.NextHops = make(map[uint32]dataplane.NextHop)
		d.state.Groups = make(map[uint32][]uint32)
		d.state.ForeignIDs = make(map[uint32]struct{})
	}
	return d.conn.dump(unix.RTM_GETNEXTHOP, make([]byte, unix.SizeofNhmsg), reset, d.nextHop)
}

func (d *dumper) nextHop(m message) {
	if m.kind != unix.RTM_NEWNEXTHOP || len(m.body) < unix.SizeofNhmsg {
		return
	}
	var id uint32
	leg := dataplane.NextHop{Via: unspecified(m.body[0])}
	var members []uint32
	for kind, value := range attributes(m.body[unix.SizeofNhmsg:]) {
		switch kind {
		case unix.NHA_ID:
			id = number(value)
		case unix.NHA_OIF:
			leg.Port = d.name(number(value))
		case unix.NHA_GATEWAY:
			leg.Via = address(value)
		case unix.NHA_GROUP:
			for member := range slices.Chunk(value, sizeofNexthopGroup) {
				members = append(members, number(member[:min(4, len(member))]))
			}
		}
	}
	slices.Sort(members)
	switch protocol := m.body[2]; {
	case protocol != Protocol:
		if id >= dataplane.FirstID && id <= dataplane.LastID {
			d.state.ForeignIDs[id] = struct{}{}
		}
	case members != nil:
		d.state.Groups[id] = members
	default:
		d.state.NextHops[id] = leg
	}
}
