package dataplane

import (
	"fmt"
	"hash/fnv"
	"maps"
	"net/netip"
	"slices"
)

// The kinds of devices that a segment consists of, as rtnetlink names them
// (IFLA_INFO_KIND).
const (
	KindBridge = "bridge"
	KindVXLAN  = "vxlan"
)

// AliasPrefix begins the alias (IFLA_IFALIAS) of every device of a segment;
// the segment's name follows. By it a device is recognised as frond's.
const AliasPrefix = "frond:segment "

const (
	vxlanPort = 4789 // RFC 7348 §5
	// vxlanTOS is what outer packets bear: "low delay" of old. Any fixed
	// value but 0 keeps the device from caching one route per VTEP
	// (drivers/net/vxlan/vxlan_core.c, vxlan_xmit_one): only then do the
	// flows between two nodes spread over all uplinks.
	vxlanTOS = 0x10
)

// Device is a bridge or a VXLAN device: all that frond sets of it.
type Device struct {
	Name  string
	Kind  string
	Alias string
	MTU   int
	Up    bool
	// Deaf: no autoconfiguration, no link-local address of its own, and no
	// answer to ARP for addresses of other interfaces.
	Deaf bool

	// Of a bridge.
	MAC               MAC // fixed, or it would be that of the port with the lowest
	STP               bool
	VLANFiltering     bool
	MulticastSnooping bool
	MaxLearned        uint32 // MACs that it learns at most, 0: any number (Linux 6.7)

	// Of a VXLAN device.
	VNI           uint32
	Local         netip.Addr
	Port          uint16
	TOS           uint8
	Learning      bool   // from what comes in: what EVPN is there for
	Bridge        string // that it is a port of
	PortLearning  bool   // by the bridge
	NeighSuppress bool   // what the bridge answers does not leave by this port
}

// InstalledDevice is a device as the kernel shows it.
type InstalledDevice struct {
	Device
	Owned bool // the alias is frond's
	// Unlimited: this kernel cannot limit what a bridge learns.
	Unlimited bool
}

// is tells that nothing has to be changed.
func (d InstalledDevice) is(want Device) bool {
	if d.Unlimited {
		want.MaxLearned = d.MaxLearned
	}
	return d.Device == want
}

// bridge is the device that guests are ports of, as a segment wants it.
func (s Segment) bridge() Device {
	return Device{
		Name: s.Bridge, Kind: KindBridge, Alias: AliasPrefix + s.Name,
		MTU: s.MTU, Up: true, Deaf: true,
		MAC: s.BridgeMAC(), MaxLearned: uint32(s.MACLimit * MACsPerBridge),
	}
}

// vxlan is the VXLAN device, as a segment wants it.
func (s Segment) vxlan() Device {
	return Device{
		Name: s.VXLAN, Kind: KindVXLAN, Alias: AliasPrefix + s.Name,
		MTU: s.MTU, Up: true, Deaf: true,
		VNI: s.VNI, Local: s.Local, Port: vxlanPort, TOS: vxlanTOS,
		Bridge: s.Bridge, NeighSuppress: true,
	}
}

// BridgeMAC is the gateway's, if that is on every node, or the node's own.
func (s Segment) BridgeMAC() MAC {
	if !s.Gateway.MAC.IsZero() {
		return s.Gateway.MAC
	}
	return ownMAC(s.Local)
}

// ownMAC derives a bridge's own MAC from the VTEP: the same after every
// restart, and another one on every node of the segment.
func ownMAC(vtep netip.Addr) MAC {
	const locallyAdministered, mark = 0x02, 0x66
	if vtep.Is4() {
		a := vtep.As4()
		return MAC{locallyAdministered, mark, a[0], a[1], a[2], a[3]}
	}
	hash := fnv.New32a()
	_, _ = hash.Write(vtep.AsSlice())
	sum := hash.Sum(nil)
	return MAC{locallyAdministered, mark + 1, sum[0], sum[1], sum[2], sum[3]}
}

// remade tells that a device cannot be changed into the one wanted.
func remade(have, want Device) bool {
	return have.Kind != want.Kind || have.VNI != want.VNI || have.Port != want.Port
}

// deviceChanges lead to the devices wanted.
type deviceChanges struct {
	set []OverlayOp
	// deletes are of what is not wanted any more, each a run to be removed
	// together.
	deletes [][]OverlayOp
	// foreign are operations that would take over what is somebody else's.
	foreign map[OverlayOp]error
}

// diffDevices compares devices. It is pure.
func diffDevices(now map[string]InstalledDevice, segments []Segment) deviceChanges {
	c := deviceChanges{foreign: make(map[OverlayOp]error)}
	wanted := make(map[string]bool, 2*len(segments))
	vnis := make(map[uint32]bool, len(segments))
	var bridges, vxlans []Device
	for _, segment := range segments {
		bridges = append(bridges, segment.bridge())
		vxlans = append(vxlans, segment.vxlan())
		wanted[segment.Bridge], wanted[segment.VXLAN] = true, true
		vnis[segment.VNI] = true
	}
	// What is in the way goes first: a VNI that one device still holds is
	// refused to another.
	inTheWay := func(have InstalledDevice) bool {
		return have.Owned && !wanted[have.Name] && have.Kind == KindVXLAN && vnis[have.VNI]
	}
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if inTheWay(now[name]) {
			c.set = append(c.set, DeleteDevice{name})
		}
	}
	for _, want := range slices.Concat(bridges, vxlans) {
		have, exists := now[want.Name]
		switch {
		case exists && !have.Owned:
			c.foreign[SetDevice{want}] = foreignError(have)
		case exists && remade(have.Device, want):
			c.set = append(c.set, DeleteDevice{want.Name})
		}
	}
	for _, want := range slices.Concat(bridges, vxlans) {
		have, exists := now[want.Name]
		if exists && !have.Owned || exists && have.is(want) {
			continue
		}
		if bridge, ok := now[want.Bridge]; want.Kind == KindVXLAN && ok && !bridge.Owned {
			continue // the bridge is the problem
		}
		c.set = append(c.set, SetDevice{want})
	}
	isOver := func(have InstalledDevice) bool { return have.Owned && !wanted[have.Name] }
	c.deletes = append(deviceRuns(now, KindVXLAN, vxlansAtOnce, isOver), deviceRuns(now, KindBridge, bridgesAtOnce, isOver)...)
	return c
}

// How many devices are removed together. The kernel waits for all processors
// once for all of them, and once more for each bridge (net/bridge/
// br_multicast.c, br_multicast_dev_del). Until it is through, some 20 ms for
// each time, it changes no other device and no entry: guests that move wait.
const (
	vxlansAtOnce  = 64
	bridgesAtOnce = 4
)

// deviceRuns are the runs in which devices of a kind are removed.
func deviceRuns(now map[string]InstalledDevice, kind string, atOnce int, isOver func(InstalledDevice) bool) [][]OverlayOp {
	var ops []OverlayOp
	for _, name := range slices.Sorted(maps.Keys(now)) {
		if have := now[name]; have.Kind == kind && isOver(have) {
			ops = append(ops, DeleteDevice{name})
		}
	}
	return slices.Collect(slices.Chunk(ops, atOnce))
}

func foreignError(have InstalledDevice) error {
	kind := have.Kind
	if kind == "" {
		kind = "physical"
	}
	return fmt.Errorf("a %s device of this name exists that is not frond's: rename it, or name another one in the segment", kind)
}
