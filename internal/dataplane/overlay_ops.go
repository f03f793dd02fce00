package dataplane

import (
	"fmt"
	"net/netip"
)

// OverlayOp is one change of the kernel. Operations are comparable.
type OverlayOp = Op

// SetDevice makes a device, or gives the one of that name, if it is frond's,
// the shape wanted.
type SetDevice struct{ Device Device }

// DeleteDevice removes a device, with all entries that belong to it.
type DeleteDevice struct{ Name string }

// SetMAC has frames to a MAC sent to a VTEP: the bridge hands them to the
// VXLAN device, which knows the VTEP.
type SetMAC struct {
	MACKey
	VXLAN string
	VTEP  netip.Addr
}

// DeleteMAC undoes SetMAC. A MAC that the bridge has on another port stays there.
type DeleteMAC struct {
	MACKey
	VXLAN string
}

// SetNeighbor has the bridge answer for a remote guest.
type SetNeighbor struct {
	NeighborKey
	Bridge string
	MAC    MAC
	Moved  bool // guests here may know it at another MAC, and are told of this one
}

// DeleteNeighbor undoes SetNeighbor.
type DeleteNeighbor struct {
	NeighborKey
	Bridge string
}

// AddFlood has broadcasts, multicasts and frames to unknown MACs sent to a
// VTEP too (RFC 8365 §9.1, ingress replication).
type AddFlood struct {
	VNI   uint32
	VXLAN string
	VTEP  netip.Addr
}

// DeleteFlood undoes AddFlood.
type DeleteFlood struct {
	VNI   uint32
	VXLAN string
	VTEP  netip.Addr
}

func (SetDevice) op()      {}
func (DeleteDevice) op()   {}
func (SetMAC) op()         {}
func (DeleteMAC) op()      {}
func (SetNeighbor) op()    {}
func (DeleteNeighbor) op() {}
func (AddFlood) op()       {}
func (DeleteFlood) op()    {}

func (o SetDevice) String() string    { return fmt.Sprintf("set %s %s", o.Device.Kind, o.Device.Name) }
func (o DeleteDevice) String() string { return "delete device " + o.Name }
func (o SetMAC) String() string {
	return fmt.Sprintf("send %s on %s to VTEP %s", o.MAC, o.VXLAN, o.VTEP)
}
func (o DeleteMAC) String() string { return fmt.Sprintf("delete %s from %s", o.MAC, o.VXLAN) }
func (o SetNeighbor) String() string {
	return fmt.Sprintf("answer for %s on %s with %s", o.IP, o.Bridge, o.MAC)
}
func (o DeleteNeighbor) String() string {
	return fmt.Sprintf("delete neighbour %s from %s", o.IP, o.Bridge)
}
func (o AddFlood) String() string { return fmt.Sprintf("flood from %s to VTEP %s", o.VXLAN, o.VTEP) }
func (o DeleteFlood) String() string {
	return fmt.Sprintf("stop flooding from %s to VTEP %s", o.VXLAN, o.VTEP)
}

// overlayKind names operations that are many and fail alike; empty for those
// that are each a problem of their own.
func overlayKind(op OverlayOp) string {
	switch op := op.(type) {
	case SetMAC:
		return "send MACs on " + op.VXLAN
	case DeleteMAC:
		return "delete MACs from " + op.VXLAN
	case SetNeighbor:
		return "answer for neighbours on " + op.Bridge
	case DeleteNeighbor:
		return "delete neighbours from " + op.Bridge
	case AddFlood, DeleteFlood:
		return op.String()
	}
	return ""
}
