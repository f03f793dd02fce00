package dhcp

import (
	"encoding/binary"
	"net/netip"

	"frond/internal/dataplane"
)

// Offsets and numbers of Ethernet, IPv4 (RFC 791), UDP (RFC 768) and ARP
// (RFC 826).
const (
	sizeEthernet = 14
	sizeIP       = 20
	sizeUDP      = 8
	sizeHeaders  = sizeIP + sizeUDP
	sizeARP      = 28

	etherIPv4 = 0x0800
	etherARP  = 0x0806

	protocolUDP = 17
	portServer  = 67
	portClient  = 68

	arpRequest = 1
	arpReply   = 2
)

// parseFrame returns what a datagram to a DHCP server carries.
func parseFrame(frame []byte) ([]byte, bool) {
	if len(frame) < sizeEthernet+sizeIP || binary.BigEndian.Uint16(frame[12:]) != etherIPv4 {
		return nil, false
	}
	packet := frame[sizeEthernet:]
	header, total := int(packet[0]&15)*4, int(binary.BigEndian.Uint16(packet[2:]))
	const fragment = 0x3fff // more of it to come, or not its first
	if packet[0]>>4 != 4 || header < sizeIP || total > len(packet) || total < header+sizeUDP ||
		packet[9] != protocolUDP || binary.BigEndian.Uint16(packet[6:])&fragment != 0 {
		return nil, false
	}
	datagram := packet[header:total]
	size := int(binary.BigEndian.Uint16(datagram[4:]))
	if binary.BigEndian.Uint16(datagram[2:]) != portServer || size < sizeUDP || size > len(datagram) {
		return nil, false
	}
	return datagram[sizeUDP:size], true
}

// buildFrame is a datagram from the server to a client.
func buildFrame(from, to dataplane.MAC, source, destination netip.Addr, payload []byte) []byte {
	frame := make([]byte, sizeEthernet+sizeHeaders, sizeEthernet+sizeHeaders+len(payload))
	copy(frame, to[:])
	copy(frame[6:], from[:])
	binary.BigEndian.PutUint16(frame[12:], etherIPv4)
	ip := frame[sizeEthernet:]
	src, dst := source.As4(), destination.As4()
	ip[0], ip[1] = 0x45, 0x10 // low delay, as other servers have it
	binary.BigEndian.PutUint16(ip[2:], uint16(sizeHeaders+len(payload)))
	ip[8], ip[9] = 64, protocolUDP
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	binary.BigEndian.PutUint16(ip[10:], ^fold(sum(ip[:sizeIP])))
	udp := ip[sizeIP:]
	binary.BigEndian.PutUint16(udp, portServer)
	binary.BigEndian.PutUint16(udp[2:], portClient)
	binary.BigEndian.PutUint16(udp[4:], uint16(sizeUDP+len(payload)))
	pseudo := sum(src[:]) + sum(dst[:]) + protocolUDP + uint32(sizeUDP+len(payload))
	check := ^fold(pseudo + sum(udp[:sizeUDP]) + sum(payload))
	if check == 0 {
		check = 0xffff // zero means that there is none
	}
	binary.BigEndian.PutUint16(udp[6:], check)
	return append(frame, payload...)
}

// sum adds up 16-bit words (RFC 1071), of at most some thousand octets.
func sum(data []byte) (total uint32) {
	for ; len(data) >= 2; data = data[2:] {
		total += uint32(binary.BigEndian.Uint16(data))
	}
	if len(data) == 1 {
		total += uint32(data[0]) << 8
	}
	return total
}

func fold(total uint32) uint16 {
	for total>>16 != 0 {
		total = total&0xffff + total>>16
	}
	return uint16(total)
}

// arpProbe asks who has an address, for nobody (RFC 5227 §2.1.1).
func arpProbe(from dataplane.MAC, address netip.Addr) []byte {
	const smallest = 60 // what Ethernet carries at least
	frame := make([]byte, 0, smallest)
	frame = append(frame, 255, 255, 255, 255, 255, 255)
	frame = append(frame, from[:]...)
	frame = append(frame, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, arpRequest)
	frame = append(frame, from[:]...)
	frame = append(frame, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	frame = append(frame, address.AsSlice()...)
	return frame[:smallest]
}

// parseARPReply returns who answers a probe: one for nobody.
func parseARPReply(frame []byte) (dataplane.MAC, netip.Addr, bool) {
	if len(frame) < sizeEthernet+sizeARP || binary.BigEndian.Uint16(frame[12:]) != etherARP {
		return dataplane.MAC{}, netip.Addr{}, false
	}
	packet := frame[sizeEthernet:]
	if [8]byte(packet) != [8]byte{0, 1, 8, 0, 6, 4, 0, arpReply} || [4]byte(packet[24:]) != [4]byte{} {
		return dataplane.MAC{}, netip.Addr{}, false
	}
	return dataplane.MAC(packet[8:14]), netip.AddrFrom4([4]byte(packet[14:18])), true
}
