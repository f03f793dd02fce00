package dhcp

import (
	"encoding/binary"
	"net/netip"

	"frond/internal/dataplane"
)

// Offsets and numbers of IPv6 (RFC 8200) and DHCPv6 (RFC 8415 §7.2).
const (
	sizeIPv6    = 40
	etherIPv6   = 0x86dd
	portServer6 = 547
	portClient6 = 546
)

// allServers is whom clients ask (RFC 8415 §7.1).
var allServers = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 13: 1, 15: 2})

// datagram6 is what somebody says to DHCPv6 servers.
type datagram6 struct {
	mac     dataplane.MAC
	from    netip.Addr // link-local
	payload []byte
}

// parseFrame6 returns what is said to DHCPv6 servers on the link. The checksum
// is not looked at: a guest of the same machine leaves it to a card that there
// is not.
func parseFrame6(frame []byte) (datagram6, bool) {
	if len(frame) < sizeEthernet+sizeIPv6+sizeUDP || binary.BigEndian.Uint16(frame[12:]) != etherIPv6 {
		return datagram6{}, false
	}
	packet := frame[sizeEthernet:]
	d := datagram6{mac: dataplane.MAC(frame[6:12]), from: netip.AddrFrom16([16]byte(packet[8:]))}
	total := sizeIPv6 + int(binary.BigEndian.Uint16(packet[4:]))
	if packet[0]>>4 != 6 || packet[6] != protocolUDP || total > len(packet) || total < sizeIPv6+sizeUDP ||
		netip.AddrFrom16([16]byte(packet[24:])) != allServers || !d.from.IsLinkLocalUnicast() || d.mac.IsZero() || d.mac.IsGroup() {
		return datagram6{}, false
	}
	datagram := packet[sizeIPv6:total]
	size := int(binary.BigEndian.Uint16(datagram[4:]))
	if binary.BigEndian.Uint16(datagram[2:]) != portServer6 || size < sizeUDP || size > len(datagram) {
		return datagram6{}, false
	}
	d.payload = datagram[sizeUDP:size]
	return d, true
}

// buildFrame6 is a datagram from the server to a client.
func buildFrame6(from, to dataplane.MAC, source, destination netip.Addr, payload []byte) []byte {
	const hopLimit = 64
	frame := make([]byte, sizeEthernet+sizeIPv6+sizeUDP, sizeEthernet+sizeIPv6+sizeUDP+len(payload))
	copy(frame, to[:])
	copy(frame[6:], from[:])
	binary.BigEndian.PutUint16(frame[12:], etherIPv6)
	packet := frame[sizeEthernet:]
	src, dst := source.As16(), destination.As16()
	packet[0] = 0x60
	binary.BigEndian.PutUint16(packet[4:], uint16(sizeUDP+len(payload)))
	packet[6], packet[7] = protocolUDP, hopLimit
	copy(packet[8:], src[:])
	copy(packet[24:], dst[:])
	udp := packet[sizeIPv6:]
	binary.BigEndian.PutUint16(udp, portServer6)
	binary.BigEndian.PutUint16(udp[2:], portClient6)
	binary.BigEndian.PutUint16(udp[4:], uint16(sizeUDP+len(payload)))
	pseudo := sum(src[:]) + sum(dst[:]) + protocolUDP + uint32(sizeUDP+len(payload))
	check := ^fold(pseudo + sum(udp[:sizeUDP]) + sum(payload))
	if check == 0 {
		check = 0xffff // zero is not allowed (RFC 8200 §8.1)
	}
	binary.BigEndian.PutUint16(udp[6:], check)
	return append(frame, payload...)
}
