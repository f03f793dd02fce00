package dataplane

import (
	"maps"
	"net/netip"
)

// overlayChanges lead from what the kernel holds to what is wanted.
type overlayChanges struct {
	adds    []OverlayOp
	deletes []OverlayOp // only after adds, or frames would be lost
}

// diff computes what has to happen to the entries of a segment whose devices
// are there. Keys whose entries are right are marked no more.
func (e *desiredEntries) diff(segment Segment, have *OverlayEntries) overlayChanges {
	var c overlayChanges
	e.diffFlood(&c, segment, have)
	e.diffMACs(&c, segment, have)
	e.diffNeighbors(&c, segment, have)
	return c
}

func (e *desiredEntries) diffFlood(c *overlayChanges, segment Segment, have *OverlayEntries) {
	for vtep := range e.flood.dirty {
		_, wanted := e.flood.want[vtep]
		_, installed := have.Flood[vtep]
		switch {
		case wanted && !installed:
			c.adds = append(c.adds, AddFlood{segment.VNI, segment.VXLAN, vtep})
		case !wanted && installed:
			c.deletes = append(c.deletes, DeleteFlood{segment.VNI, segment.VXLAN, vtep})
		default:
			delete(e.flood.dirty, vtep)
		}
	}
}

func (e *desiredEntries) diffMACs(c *overlayChanges, segment Segment, have *OverlayEntries) {
	for mac, asked := range e.macs.dirty {
		key := MACKey{segment.VNI, mac}
		vtep, wanted := e.macs.want[mac]
		now, installed := have.MACs[mac]
		// A guest that has appeared here meanwhile is not torn away: whoever
		// knows where it is decides, and says so by an update.
		right := now.VTEP == vtep && (now.Bridged || now.Taken && !bool(asked))
		switch {
		case wanted && !right:
			c.adds = append(c.adds, SetMAC{key, segment.VXLAN, vtep})
		case !wanted && installed:
			c.deletes = append(c.deletes, DeleteMAC{key, segment.VXLAN})
		default:
			delete(e.macs.dirty, mac)
		}
	}
}

func (e *desiredEntries) diffNeighbors(c *overlayChanges, segment Segment, have *OverlayEntries) {
	for ip := range e.neighbors.dirty {
		key := NeighborKey{segment.VNI, ip}
		mac, wanted := e.neighbors.want[ip]
		now, installed := have.Neighbors[ip]
		switch {
		case wanted && now != mac:
			_, moved := e.moved[ip]
			c.adds = append(c.adds, SetNeighbor{key, segment.Bridge, mac, moved})
		case !wanted && installed:
			c.deletes = append(c.deletes, DeleteNeighbor{key, segment.Bridge})
		default:
			delete(e.neighbors.dirty, ip)
			delete(e.moved, ip)
		}
	}
}

// of returns the entries of a VNI.
func (s *OverlayState) of(vni uint32) *OverlayEntries {
	entries, ok := s.Entries[vni]
	if !ok {
		entries = newOverlayEntries()
		s.Entries[vni] = entries
	}
	return entries
}

// whole makes every map of a dump writable.
func (s *OverlayState) whole() {
	if s.Devices == nil {
		s.Devices = make(map[string]InstalledDevice)
	}
	if s.Entries == nil {
		s.Entries = make(map[uint32]*OverlayEntries)
	}
	if s.Addresses == nil {
		s.Addresses = make(map[BridgeAddress]bool)
	}
}

// record notes an operation that the kernel has carried out. It returns true
// if that may have taken entries with it.
func (s *OverlayState) record(op OverlayOp) (entriesGone bool) {
	switch op := op.(type) {
	case SetDevice:
		before, existed := s.Devices[op.Device.Name]
		s.Devices[op.Device.Name] = InstalledDevice{Device: op.Device, Owned: true}
		// A bridge that is new, a VXLAN device that is or was elsewhere.
		return !existed || !before.Up || before.Bridge != op.Device.Bridge
	case DeleteDevice:
		s.removeDevice(op.Name)
		return true
	case AddBridgeAddress:
		s.Addresses[op.BridgeAddress] = true
	case DeleteBridgeAddress:
		delete(s.Addresses, op.BridgeAddress)
	case SetMAC:
		s.of(op.VNI).MACs[op.MACKey.MAC] = InstalledMAC{VTEP: op.VTEP, Bridged: true}
	case DeleteMAC:
		delete(s.of(op.VNI).MACs, op.MACKey.MAC)
	case SetNeighbor:
		s.of(op.VNI).Neighbors[op.IP] = op.MAC
	case DeleteNeighbor:
		delete(s.of(op.VNI).Neighbors, op.IP)
	case AddFlood:
		s.of(op.VNI).Flood[op.VTEP] = struct{}{}
	case DeleteFlood:
		delete(s.of(op.VNI).Flood, op.VTEP)
	}
	return false
}

// removeDevice does what the kernel does when a device goes: its entries go,
// and a bridge lets go of its ports.
func (s *OverlayState) removeDevice(name string) {
	gone := s.Devices[name]
	delete(s.Devices, name)
	for other, device := range s.Devices {
		if device.Kind == KindVXLAN && device.Bridge == name {
			device.Bridge, device.NeighSuppress = "", false
			s.Devices[other] = device
			s.of(device.VNI).unbridge()
		}
	}
	if gone.Kind != KindVXLAN {
		maps.DeleteFunc(s.Addresses, func(a BridgeAddress, _ bool) bool { return a.Bridge == name })
		return
	}
	entries := s.of(gone.VNI)
	entries.MACs = make(map[MAC]InstalledMAC)
	entries.Flood = make(map[netip.Addr]struct{})
}

// unbridge leaves what the VXLAN device alone knows.
func (e *OverlayEntries) unbridge() {
	e.Neighbors = make(map[netip.Addr]MAC)
	for mac, installed := range e.MACs {
		e.MACs[mac] = InstalledMAC{VTEP: installed.VTEP}
	}
}

// take notes that the bridge has learned a MAC on another port.
func (s *OverlayState) take(key MACKey) {
	entries, ok := s.Entries[key.VNI]
	if !ok {
		return
	}
	if installed, ok := entries.MACs[key.MAC]; ok {
		installed.Bridged, installed.Taken = false, true
		entries.MACs[key.MAC] = installed
	}
}
