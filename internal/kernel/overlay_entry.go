package kernel

import (
	"encoding/binary"
	"net/netip"

	"frond/internal/dataplane"

	"golang.org/x/sys/unix"
)

// ndaProtocol is NDA_PROTOCOL: who made a neighbour entry.
const ndaProtocol = 12

// flooding is the MAC under which a VXLAN device keeps whom broadcasts,
// multicasts and frames to unknown MACs go to.
var flooding dataplane.MAC

// entry is struct ndmsg and its attributes: what a bridge or a VXLAN device
// knows of a MAC (family AF_BRIDGE), or who an IP address is.
type entry struct {
	family uint8
	index  uint32 // of the device
	state  uint16
	flags  uint8
	mac    dataplane.MAC
	dst    netip.Addr
	master uint32 // index of the bridge whose entry it is
}

// beginEntry opens a message with struct ndmsg: family, padding, index,
// state, flags, type.
func (b *batch) beginEntry(kind, flags uint16, e entry) {
	body := make([]byte, unix.SizeofNdMsg)
	body[0] = e.family
	binary.NativeEndian.PutUint32(body[4:], e.index)
	binary.NativeEndian.PutUint16(body[8:], e.state)
	body[10] = e.flags
	b.begin(kind, flags, body...)
}

// setMAC encodes both of a MAC's entries: the kernel hands one message to the
// bridge and to the VXLAN device (net/core/rtnetlink.c, rtnl_fdb_add). The
// latter takes no state but "reachable" and "permanent".
func (b *batch) setMAC(op dataplane.SetMAC, vxlan uint32) {
	b.beginEntry(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, entry{
		family: unix.AF_BRIDGE, index: vxlan, state: unix.NUD_REACHABLE,
		flags: unix.NTF_SELF | unix.NTF_MASTER | unix.NTF_EXT_LEARNED,
	})
	b.attribute(unix.NDA_LLADDR, op.MAC[:])
	b.address(unix.NDA_DST, op.VTEP)
}

// deleteMAC encodes the removal of one of a MAC's entries, of NTF_SELF or
// NTF_MASTER: for both at once the kernel gives up where one is absent, and
// leaves the other.
func (b *batch) deleteMAC(op dataplane.DeleteMAC, vxlan uint32, whose uint8) {
	b.beginEntry(unix.RTM_DELNEIGH, 0, entry{
		family: unix.AF_BRIDGE, index: vxlan, state: unix.NUD_REACHABLE, flags: whose,
	})
	b.attribute(unix.NDA_LLADDR, op.MAC[:])
}

// addFlood encodes one more VTEP that broadcasts go to.
func (b *batch) addFlood(op dataplane.AddFlood, vxlan uint32) {
	b.flood(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_APPEND, vxlan, op.VTEP)
}

func (b *batch) deleteFlood(op dataplane.DeleteFlood, vxlan uint32) {
	b.flood(unix.RTM_DELNEIGH, 0, vxlan, op.VTEP)
}

func (b *batch) flood(kind, flags uint16, vxlan uint32, vtep netip.Addr) {
	b.beginEntry(kind, flags, entry{
		family: unix.AF_BRIDGE, index: vxlan, state: unix.NUD_PERMANENT,
		flags: unix.NTF_SELF | unix.NTF_EXT_LEARNED,
	})
	b.attribute(unix.NDA_LLADDR, flooding[:])
	b.address(unix.NDA_DST, vtep)
}

// setNeighbor encodes what the bridge answers ARP and neighbour solicitations
// with (net/bridge/br_arp_nd_proxy.c). It ages not, and counts not towards
// the size of the table.
func (b *batch) setNeighbor(op dataplane.SetNeighbor, bridge uint32) {
	b.beginEntry(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, entry{
		family: family(op.IP), index: bridge, state: unix.NUD_NOARP, flags: unix.NTF_EXT_LEARNED,
	})
	b.address(unix.NDA_DST, op.IP)
	b.attribute(unix.NDA_LLADDR, op.MAC[:])
	b.attribute(ndaProtocol, []byte{Protocol})
}

func (b *batch) deleteNeighbor(op dataplane.DeleteNeighbor, bridge uint32) {
	b.beginEntry(unix.RTM_DELNEIGH, 0, entry{family: family(op.IP), index: bridge})
	b.address(unix.NDA_DST, op.IP)
}

// parseEntry reads a message of a dump or a notification.
func parseEntry(m message) (entry, bool) {
	if len(m.body) < unix.SizeofNdMsg || m.kind != unix.RTM_NEWNEIGH && m.kind != unix.RTM_DELNEIGH {
		return entry{}, false
	}
	e := entry{
		family: m.body[0],
		index:  binary.NativeEndian.Uint32(m.body[4:]),
		state:  binary.NativeEndian.Uint16(m.body[8:]),
		flags:  m.body[10],
	}
	for kind, value := range attributes(m.body[unix.SizeofNdMsg:]) {
		switch kind {
		case unix.NDA_LLADDR:
			if len(value) != len(e.mac) {
				return entry{}, false
			}
			copy(e.mac[:], value)
		case unix.NDA_DST:
			e.dst = address(value)
		case unix.NDA_MASTER:
			e.master = number(value)
		}
	}
	return e, true
}

// isValid tells that the entry says whose an address is: by the neighbour's own
// word, or by that of an earlier run.
func (e entry) isValid() bool {
	const valid = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE | unix.NUD_NOARP
	return e.state&valid != 0 && !e.mac.IsZero()
}

// isOurs tells that the entry was made by a control plane.
func (e entry) isOurs() bool { return e.flags&unix.NTF_EXT_LEARNED != 0 }
