package kernel

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"frond/internal/dataplane"
)

// Keys of sets: each part of a concatenated one fills whole registers of 4
// octets.

func nameKey(name string) []byte {
	return append([]byte(name), make([]byte, unix.IFNAMSIZ-len(name))...)
}

func nameKeys(names []string) [][]byte {
	var keys [][]byte
	for _, name := range names {
		if len(name) < unix.IFNAMSIZ {
			keys = append(keys, nameKey(name))
		}
	}
	return keys
}

func indexKey(index int) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(index)) }

func macKey(m dataplane.MAC) []byte { return append(m[:], 0, 0) }

func addressKeys(addresses []netip.Addr, size int) [][]byte {
	var keys [][]byte
	for _, a := range addresses {
		if a.BitLen() == 8*size {
			keys = append(keys, a.AsSlice())
		}
	}
	return keys
}

func holderKeys(g dataplane.Guard, size int) [][]byte {
	var keys [][]byte
	for _, h := range g.Holders {
		if h.IP.BitLen() == 8*size {
			keys = append(keys, append(macKey(h.MAC), h.IP.AsSlice()...))
		}
	}
	return keys
}

func heldKeys(g dataplane.Guard, size int) [][]byte {
	var addresses []netip.Addr
	for _, h := range g.Holders {
		addresses = append(addresses, h.IP)
	}
	return addressKeys(addresses, size)
}

func placeKeys(g dataplane.Guard) [][]byte {
	var keys [][]byte
	for _, p := range g.Places {
		if len(p.Port) < unix.IFNAMSIZ {
			keys = append(keys, append(nameKey(p.Port), macKey(p.MAC)...))
		}
	}
	return keys
}

// ownKeys are of what guests send by the port that they are behind from the
// addresses that they hold.
func ownKeys(g dataplane.Guard, size int) [][]byte {
	held := make(map[dataplane.MAC][]netip.Addr, len(g.Holders))
	for _, h := range g.Holders {
		if h.IP.BitLen() == 8*size {
			held[h.MAC] = append(held[h.MAC], h.IP)
		}
	}
	if len(held) == 0 {
		return nil
	}
	ports := make(map[string]int, len(g.GuestPorts))
	for _, d := range g.GuestPorts {
		ports[d.Name] = d.Index
	}
	var keys [][]byte
	for _, p := range g.Places {
		index, ok := ports[p.Port]
		if !ok {
			continue
		}
		for _, ip := range held[p.MAC] {
			keys = append(keys, slices.Concat(indexKey(index), macKey(p.MAC), ip.AsSlice()))
		}
	}
	return keys
}

func placedKeys(g dataplane.Guard) [][]byte {
	var keys [][]byte
	for _, p := range g.Places {
		keys = append(keys, p.MAC[:])
	}
	return keys
}

// prefixKeys are where each prefix begins and, after it, where what follows
// does; none follows the last address there is.
func prefixKeys(prefixes []netip.Prefix, size int) [][]byte {
	var keys [][]byte
	for _, p := range prefixes {
		if p.Addr().BitLen() == 8*size {
			keys = append(keys, p.Masked().Addr().AsSlice(), lastOf(p).Next().AsSlice())
		}
	}
	return keys
}
