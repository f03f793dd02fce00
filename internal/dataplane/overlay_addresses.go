package dataplane

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// AddBridgeAddress puts an address on a bridge, for good and without looking
// for duplicates: other nodes have the same one.
type AddBridgeAddress struct{ BridgeAddress }

// DeleteBridgeAddress undoes AddBridgeAddress.
type DeleteBridgeAddress struct{ BridgeAddress }

func (AddBridgeAddress) op()    {}
func (DeleteBridgeAddress) op() {}

func (o AddBridgeAddress) String() string {
	return fmt.Sprintf("add address %s to %s", o.Prefix, o.Bridge)
}

func (o DeleteBridgeAddress) String() string {
	return fmt.Sprintf("delete address %s from %s", o.Prefix, o.Bridge)
}

// diffAddresses compares the addresses of the segments' bridges, as far as
// these are there: new ones come before old ones go.
func (s *OverlayState) diffAddresses(segments []Segment) []OverlayOp {
	var adds, deletes []OverlayOp
	wanted := make(map[BridgeAddress]bool)
	for _, segment := range segments {
		if !s.Devices[segment.Bridge].Owned || segment.Gateway.Elected {
			continue
		}
		for _, prefix := range segment.Gateway.Addresses() {
			a := BridgeAddress{segment.Bridge, prefix}
			wanted[a] = true
			if _, there := s.Addresses[a]; !there {
				adds = append(adds, AddBridgeAddress{a})
			}
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(s.Addresses), compareBridgeAddresses) {
		if s.Addresses[a] && !wanted[a] {
			deletes = append(deletes, DeleteBridgeAddress{a})
		}
	}
	return append(adds, deletes...)
}

func compareBridgeAddresses(a, b BridgeAddress) int {
	return cmp.Or(cmp.Compare(a.Bridge, b.Bridge), a.Prefix.Compare(b.Prefix))
}
