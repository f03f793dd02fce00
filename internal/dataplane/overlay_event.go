package dataplane

import "net/netip"

// OverlayEvent tells what happened on the segments of this node.
type OverlayEvent interface{ overlayEvent() }

// LocalMACs tells of guests' MACs on ports of this node. What nobody has
// taken yet is merged: the last word about each MAC.
type LocalMACs []LocalMAC

// LocalMAC is a guest's MAC. One that moves to another port of the node is
// told again, with that port.
type LocalMAC struct {
	VNI  uint32
	MAC  MAC
	Port string
	// Sticky tells that the operator has put the MAC there for good: the
	// bridge does not learn it elsewhere (bridge(8), "static" and "sticky").
	Sticky bool
	// Aged tells that the kernel has forgotten the MAC while its port is
	// still there: the guest was silent, or its port without carrier.
	Aged bool
}

// LocalPlaces tells of guests' MACs by the word of who has put them there, as a
// hypervisor has: nothing need have been heard of them.
type LocalPlaces []LocalPlace

// LocalPlace is the port that a MAC was put behind.
type LocalPlace struct {
	VNI  uint32
	MAC  MAC
	Port string
	Held bool // what other ports of the node hear of it does not move it
}

// LocalPortsGone tells of ports that left their bridge or vanished, and all
// guests behind them.
type LocalPortsGone []LocalPort

// LocalPort is a port of a segment's bridge that guests are behind.
type LocalPort struct {
	VNI  uint32
	Port string
}

// GuestFrame is an Ethernet frame that came in by a guests' port.
type GuestFrame struct {
	Port LocalPort
	Data []byte
}

// LocalAddresses tells of IP addresses that guests on ports of this node
// were heard to speak from, in ARP (RFC 826) and neighbour discovery
// (RFC 4861).
type LocalAddresses []LocalAddress

// LocalAddress is what a guest said of itself.
type LocalAddress struct {
	VNI  uint32
	MAC  MAC
	IP   netip.Addr
	Port string
}

// LocalOverflows tells of ports behind which there is more than is told of.
type LocalOverflows []LocalOverflow

// LocalOverflow is a port that went over its limit, or is under it again.
type LocalOverflow struct {
	VNI   uint32
	Port  string
	Limit int  // MACs that are told of
	Over  bool // false: over no more
}

// LocalLoops tells of ports that lead to each other, and where that is over.
type LocalLoops []LocalLoop

// LocalLoop is a port that was taken out of its bridge's forwarding because
// what leaves by the other comes in by it. It may be the same port, where the
// loop is behind it.
type LocalLoop struct {
	VNI    uint32
	Port   string
	Other  string
	Looped bool // false: it forwards again
}

// LocalRead tells that what the kernel knew of guests when the segments were
// set has been told.
type LocalRead struct{}

// OverlayDrifted tells that a device or an entry of frond's was changed by
// somebody else, or that notifications were lost: look again.
type OverlayDrifted struct{}

func (LocalMACs) overlayEvent()      {}
func (LocalPlaces) overlayEvent()    {}
func (LocalPortsGone) overlayEvent() {}
func (LocalAddresses) overlayEvent() {}
func (LocalOverflows) overlayEvent() {}
func (LocalLoops) overlayEvent()     {}
func (LocalRead) overlayEvent()      {}
func (OverlayDrifted) overlayEvent() {}
