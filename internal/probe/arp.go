package probe

import (
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"frond/internal/netns"
)

// ARPRequest is one of who asked everybody for an address (RFC 826).
type ARPRequest struct{ From, For netip.Addr }

// ARPWatch notes the ARP requests for everybody that a VTEP sends out.
type ARPWatch struct{ socket *os.File }

// Offsets in a frame of VXLAN (RFC 7348 §5) over IPv4 without options.
const (
	offsetEtherType  = 12
	offsetIP         = 14
	offsetIPProtocol = offsetIP + 9
	offsetIPSource   = offsetIP + 12
	offsetUDPTo      = offsetIP + 20 + 2
	offsetVNI        = offsetIP + 20 + 8 + 4
	offsetInner      = offsetVNI + 4 // Ethernet
	offsetInnerType  = offsetInner + 12
	offsetARP        = offsetInner + 14
	offsetOperation  = offsetARP + 6
	offsetSender     = offsetARP + 14
	offsetTarget     = offsetARP + 24
	sizeARPInVXLAN   = offsetTarget + 4

	portVXLAN  = 4789
	arpRequest = 1
)

// WatchARP begins to watch all interfaces of a namespace for ARP requests for
// everybody that leave it in VXLAN of that VNI, from local, an IPv4 address.
// Stop must be called in any case.
func WatchARP(ns *netns.NS, local netip.Addr, vni uint32) (*ARPWatch, error) {
	socket, err := openPacket(ns, unix.SOCK_RAW, unix.ETH_P_ALL, matching(sizeARPInVXLAN, append(leaving(local, vni),
		match{offsetInner, 4, 0xffffffff},
		match{offsetInner + 4, 2, 0xffff},
		match{offsetInnerType, 2, unix.ETH_P_ARP},
		match{offsetOperation, 2, arpRequest},
	)...))
	if err != nil {
		return nil, err
	}
	return &ARPWatch{socket}, nil
}

// Stop ends the watch and tells what left: one of each copy, of which an
// ingress-replicated request has one for each VTEP. Announcements of one's own
// address (RFC 5227 §3), which everybody should hear, are left out.
func (w *ARPWatch) Stop() ([]ARPRequest, error) {
	defer func() { _ = w.socket.Close() }()
	var requests []ARPRequest
	var frame [sizeARPInVXLAN]byte
	err := drain(w.socket, frame[:], func(n int) {
		r := ARPRequest{From: ipv4At(frame, offsetSender), For: ipv4At(frame, offsetTarget)}
		if n == len(frame) && r.From != r.For {
			requests = append(requests, r)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read ARP requests: %w", err)
	}
	return requests, nil
}

func ipv4At(frame [sizeARPInVXLAN]byte, offset int) netip.Addr {
	return netip.AddrFrom4([4]byte(frame[offset:]))
}
