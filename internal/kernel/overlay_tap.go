package kernel

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"

	"frond/internal/dataplane"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

const (
	tapBuffer = 64 << 10 // octets of frames that wait, for each port
	tapFrame  = 128      // octets of a frame that matter
)

// tap listens to what guests say of themselves on a port. The frames are
// those that come in by the port, so none is from another node, and of them
// only announcements: the rest costs no copy.
func (w *OverlayWatch) tap(index uint32, port dataplane.LocalPort) (closeTap func()) {
	socket, err := w.kernel.openPacket(index, announcementFilter)
	if err != nil {
		if !errors.Is(err, unix.ENODEV) { // gone already
			w.kernel.log.Warn("cannot listen to guests' addresses", "port", port.Port, "error", err)
		}
		return func() {}
	}
	w.work.Go(func() { w.listenTo(socket, port) })
	return func() { _ = socket.Close() }
}

func (w *OverlayWatch) listenTo(socket *os.File, port dataplane.LocalPort) {
	receiveAll(socket, tapFrame, func(frame []byte) {
		mac, ip, ok := announced(frame)
		if !ok {
			return
		}
		w.mu.Lock()
		w.pending.address(port, dataplane.LocalAddress{VNI: port.VNI, MAC: mac, IP: ip, Port: port.Port})
		w.mu.Unlock()
		signal(w.news)
	})
}

// Offsets in an Ethernet frame.
const (
	offsetSource    = 6
	offsetEtherType = 12
	sizeEthernet    = 14
	sizeIPv6        = 40

	icmpv6           = 58
	hopLimit         = 255 // what no router has forwarded (RFC 4861 §7.1)
	neighborSolicit  = 135
	neighborAdvert   = 136
	sourceLinkLayer  = 1 // option, RFC 4861 §4.6.1
	targetLinkLayer  = 2
	sizeNeighborBody = 24 // up to the options
)

// announcementFilter passes ARP (RFC 826) of IPv4 over Ethernet, and
// neighbour solicitations and advertisements (RFC 4861).
var announcementFilter = []bpf.Instruction{
	bpf.LoadAbsolute{Off: offsetEtherType, Size: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.ETH_P_ARP, SkipTrue: 7},
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IPV6, SkipTrue: 5},
	bpf.LoadAbsolute{Off: sizeEthernet + 6, Size: 2}, // next header, hop limit
	bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: icmpv6<<8 | hopLimit, SkipTrue: 3},
	bpf.LoadAbsolute{Off: sizeEthernet + sizeIPv6, Size: 1},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: neighborSolicit, SkipTrue: 2},
	bpf.JumpIf{Cond: bpf.JumpEqual, Val: neighborAdvert, SkipTrue: 1},
	bpf.RetConstant{Val: verdictDrop},
	bpf.RetConstant{Val: tapFrame},
}

// announced returns the address that a guest says to have, if the frame says
// so of its own sender.
func announced(frame []byte) (dataplane.MAC, netip.Addr, bool) {
	var mac dataplane.MAC
	if len(frame) < sizeEthernet {
		return mac, netip.Addr{}, false
	}
	copy(mac[:], frame[offsetSource:])
	var ip netip.Addr
	switch packet := frame[sizeEthernet:]; binary.BigEndian.Uint16(frame[offsetEtherType:]) {
	case unix.ETH_P_ARP:
		ip = announcedByARP(packet, mac)
	case unix.ETH_P_IPV6:
		ip = announcedByND(packet, mac)
	}
	usable := ip.IsGlobalUnicast() || ip.IsLinkLocalUnicast()
	return mac, ip, usable && !mac.IsZero() && !mac.IsGroup()
}

// announcedByARP reads the sender of a request or a reply. A probe
// (RFC 5227 §2.1.1) has the sender 0.0.0.0.
func announcedByARP(packet []byte, mac dataplane.MAC) netip.Addr {
	const size = 28
	header := [6]byte{0, 1, 8, 0, 6, 4} // Ethernet, IPv4, and their sizes
	if len(packet) < size || [6]byte(packet) != header || dataplane.MAC(packet[8:14]) != mac {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(packet[14:18]))
}

// announcedByND reads the source of a solicitation or the target of an
// advertisement, if the link-layer address in it, where there is one, is the
// frame's: a proxy speaks for others.
func announcedByND(packet []byte, mac dataplane.MAC) netip.Addr {
	if len(packet) < sizeIPv6+sizeNeighborBody || packet[6] != icmpv6 || packet[7] != hopLimit {
		return netip.Addr{}
	}
	body := packet[sizeIPv6:]
	ip, option := netip.AddrFrom16([16]byte(packet[8:24])), byte(sourceLinkLayer)
	switch body[0] {
	case neighborAdvert:
		ip, option = netip.AddrFrom16([16]byte(body[8:24])), targetLinkLayer
	case neighborSolicit:
	default:
		return netip.Addr{}
	}
	for options := body[sizeNeighborBody:]; len(options) >= 8; {
		size := 8 * int(options[1])
		if size == 0 || size > len(options) {
			return netip.Addr{}
		}
		if options[0] == option && dataplane.MAC(options[2:8]) != mac {
			return netip.Addr{}
		}
		options = options[size:]
	}
	return ip
}
