package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"frond/internal/dataplane"

	"golang.org/x/sys/unix"
)

// Announce tells the guests of each segment that the gateway's addresses are at
// the MAC of this node's bridge. For IPv4 that is a gratuitous ARP, as request
// and as reply, since some hear only one of them (RFC 5944 §4.6), for IPv6 an
// unsolicited neighbour advertisement (RFC 4861 §7.2.6) that overrides what is
// known.
//
// To guests of other nodes the frames go by the VXLAN device itself: what the
// bridge floods to it, as to every port with suppression of neighbours, has no
// announcement among it (br_do_proxy_suppress_arp and br_do_suppress_nd in
// net/bridge/br_arp_nd_proxy.c).
func (k *Kernel) Announce(segments []dataplane.Segment) error {
	var failed []error
	for _, s := range segments {
		if err := k.announce(s); err != nil {
			failed = append(failed, fmt.Errorf("announce the gateway of %s: %w", s.Name, err))
		}
	}
	return errors.Join(failed...)
}

func (k *Kernel) announce(s dataplane.Segment) error {
	var bridge, vxlan overlayLink
	var missing [2]error
	k.with(func(c *conn) {
		bridge, missing[0] = c.overlayLink(s.Bridge)
		vxlan, missing[1] = c.overlayLink(s.VXLAN)
	})
	if err := errors.Join(missing[:]...); err != nil {
		return err
	}
	var failed []error
	for _, a := range s.Gateway.Addresses() {
		for _, frame := range announcements(bridge.MAC, a.Addr(), router) {
			for _, link := range []overlayLink{bridge, vxlan} {
				if err := unix.Sendto(k.frames, frame, 0, &unix.SockaddrLinklayer{Ifindex: int(link.index)}); err != nil {
					failed = append(failed, fmt.Errorf("send to %s: %w", link.Name, err))
				}
			}
		}
	}
	return errors.Join(failed...)
}

// announceMoved tells the guests of this node of addresses that have come to
// another MAC on another node. The bridge keeps that from the VXLAN device, so
// that each node tells its own.
func (a *overlayApplication) announceMoved() {
	for i, op := range a.ops {
		set, ok := op.(dataplane.SetNeighbor)
		if !ok || !set.Moved || slices.ContainsFunc(a.failed, func(f dataplane.OpError) bool { return f.Index == i }) {
			continue
		}
		for _, frame := range announcements(set.MAC, set.IP, 0) {
			// Who does not hear it finds out by asking again.
			_ = unix.Sendto(a.kernel.frames, frame, unix.MSG_DONTWAIT, &unix.SockaddrLinklayer{Ifindex: int(a.indexes[set.Bridge])})
		}
	}
}

// announcements are the frames that say that an address is at a MAC, with further
// flags of a neighbour advertisement.
func announcements(mac dataplane.MAC, ip netip.Addr, flags byte) [][]byte {
	if ip.Is4() {
		return [][]byte{gratuitousARP(mac, ip, arpRequest), gratuitousARP(mac, ip, arpReply)}
	}
	return [][]byte{unsolicitedAdvertisement(mac, ip, flags)}
}

// Operations of RFC 826.
const (
	arpRequest = 1
	arpReply   = 2
)

// gratuitousARP has the address as sender and as target.
func gratuitousARP(mac dataplane.MAC, ip netip.Addr, operation byte) []byte {
	frame := frameHeader(dataplane.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac, unix.ETH_P_ARP)
	frame = append(frame, 0, 1, 8, 0, 6, 4, 0, operation) // Ethernet, IPv4, and their sizes
	frame = append(append(frame, mac[:]...), ip.AsSlice()...)
	target := dataplane.MAC{} // "not used" in a request
	if operation == arpReply {
		target = mac
	}
	return append(append(frame, target[:]...), ip.AsSlice()...)
}

// Flags of a neighbour advertisement (RFC 4861 §4.4).
const (
	router   = 0x80 // the sender is one
	override = 0x20
)

func unsolicitedAdvertisement(mac dataplane.MAC, ip netip.Addr, flags byte) []byte {
	all := netip.IPv6LinkLocalAllNodes().As16()
	source := ip.As16()
	body := []byte{neighborAdvert, 0, 0, 0, flags | override, 0, 0, 0}
	body = append(body, source[:]...)
	body = append(append(body, targetLinkLayer, 1), mac[:]...)
	binary.BigEndian.PutUint16(body[2:], checksum(source, all, body))

	frame := frameHeader(dataplane.MAC{0x33, 0x33, 0, 0, 0, 1}, mac, unix.ETH_P_IPV6)
	frame = append(frame, 0x60, 0, 0, 0, 0, byte(len(body)), icmpv6, hopLimit)
	frame = append(append(frame, source[:]...), all[:]...)
	return append(frame, body...)
}

func frameHeader(to, from dataplane.MAC, kind uint16) []byte {
	return binary.BigEndian.AppendUint16(append(to[:], from[:]...), kind)
}

// checksum is ICMPv6's, over the pseudo-header too (RFC 4443 §2.3). The body
// has an even length.
func checksum(from, to [16]byte, body []byte) uint16 {
	sum := uint32(len(body)) + icmpv6
	for _, part := range [][]byte{from[:], to[:], body} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
