package probe

import (
	"encoding/binary"
	"errors"
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
	source := local.As4()
	socket, err := openPacket(ns, unix.SOCK_RAW, unix.ETH_P_ALL, matching(sizeARPInVXLAN,
		match{offsetEtherType, 2, unix.ETH_P_IP},
		match{offsetIP, 1, 0x45},
		match{offsetIPProtocol, 1, unix.IPPROTO_UDP},
		match{offsetIPSource, 4, binary.BigEndian.Uint32(source[:])},
		match{offsetUDPTo, 2, portVXLAN},
		match{offsetVNI, 4, vni << 8},
		match{offsetInner, 4, 0xffffffff},
		match{offsetInner + 4, 2, 0xffff},
		match{offsetInnerType, 2, unix.ETH_P_ARP},
		match{offsetOperation, 2, arpRequest},
	))
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
	raw, err := w.socket.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("read ARP requests: %w", err)
	}
	var requests []ARPRequest
	var readErr error
	err = raw.Control(func(fd uintptr) { requests, readErr = drain(int(fd)) })
	if err = errors.Join(err, readErr); err != nil {
		return nil, fmt.Errorf("read ARP requests: %w", err)
	}
	return requests, nil
}

// drain reads what has come in.
func drain(fd int) (requests []ARPRequest, err error) {
	var frame [sizeARPInVXLAN]byte
	for {
		n, _, err := unix.Recvfrom(fd, frame[:], 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return requests, nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENETDOWN): // of one interface
			continue
		case err != nil:
			return nil, err
		}
		r := ARPRequest{From: ipv4At(frame, offsetSender), For: ipv4At(frame, offsetTarget)}
		if n == len(frame) && r.From != r.For {
			requests = append(requests, r)
		}
	}
}

func ipv4At(frame [sizeARPInVXLAN]byte, offset int) netip.Addr {
	return netip.AddrFrom4([4]byte(frame[offset:]))
}
