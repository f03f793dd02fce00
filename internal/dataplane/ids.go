package dataplane

import (
	"encoding/binary"
	"slices"
)

// FirstID and LastID bound the ids of frond's nexthop objects. Whose an
// object is, its protocol tells; the range only keeps out of the way of those
// who count from 1.
const (
	FirstID uint32 = 0x66000000
	LastID  uint32 = 0x66ffffff
)

// idAllocator gives out ids of nexthop objects. It goes round the range, so
// that an id is not soon used for something else.
type idAllocator struct{ last uint32 }

// next returns an id that the kernel does not hold.
func (a *idAllocator) next(now *State) uint32 {
	for {
		a.last++
		if a.last < FirstID || a.last > LastID {
			a.last = FirstID
		}
		_, leg := now.NextHops[a.last]
		_, group := now.Groups[a.last]
		_, foreign := now.ForeignIDs[a.last]
		if !leg && !group && !foreign {
			return a.last
		}
	}
}

// adopt continues after the ids that the kernel holds.
func (a *idAllocator) adopt(now *State) {
	for id := range now.NextHops {
		a.last = max(a.last, min(id, LastID))
	}
	for id := range now.Groups {
		a.last = max(a.last, min(id, LastID))
	}
}

// legIDs turns the kernel's nexthop objects round: the id of each leg, the
// lowest where there are several.
func legIDs(nextHops map[uint32]NextHop) map[NextHop]uint32 {
	ids := make(map[NextHop]uint32, len(nextHops))
	for id, leg := range nextHops {
		if other, ok := ids[leg]; !ok || id < other {
			ids[leg] = id
		}
	}
	return ids
}

// membersKey names a set of legs by their ids.
func membersKey(ids []uint32) string {
	key := make([]byte, 0, 64)
	for _, id := range ids {
		key = binary.BigEndian.AppendUint32(key, id)
	}
	return string(key)
}

func membersOf(key string) []uint32 {
	members := make([]uint32, 0, len(key)/4)
	for chunk := range slices.Chunk([]byte(key), 4) {
		members = append(members, binary.BigEndian.Uint32(chunk))
	}
	return members
}
