package dataplane

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
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
		if !s.Devices[segment.Bridge].Owned {
			continue
		}
		for _, prefix := range standing(segment) {
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

// standing are the addresses that a segment's bridge always has.
func standing(s Segment) []netip.Prefix {
	switch {
	case !s.Gateway.Elected:
		return s.Gateway.Addresses()
	case s.Gateway.Address.IsValid() && s.Local.Is4():
		return []netip.Prefix{keepsIPv4(s.Local)}
	}
	return nil
}

// keepsIPv4 is an address for a bridge whose others come and go: with the last
// one, the kernel forgets all routes and neighbours that the device has
// (fib_disable_ip in net/ipv4/fib_frontend.c), and packets that are on their way
// to guests are lost. It is a link-local one (RFC 3927) after the node's loopback.
func keepsIPv4(loopback netip.Addr) netip.Prefix {
	octets := loopback.As4()
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{169, 254, octets[2], octets[3]}), 32)
}

func compareBridgeAddresses(a, b BridgeAddress) int {
	return cmp.Or(cmp.Compare(a.Bridge, b.Bridge), a.Prefix.Compare(b.Prefix))
}
