package advertise

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"golang.org/x/sys/unix"
)

// Ports of DHCPv6 (RFC 8415 §7.2), and the header's size in octets.
const (
	clientPort = 546
	serverPort = 547
	udp        = 17
	sizeUDP    = 8
)

// allServers is whom clients ask (RFC 8415 §7.1).
var allServers = netip.MustParseAddr("ff02::1:2")

// errUnwanted is a question that this server has no answer to.
var errUnwanted = errors.New("no question of DHCPv6 for information")

// information answers a guest that asks by DHCPv6 for all but addresses
// (RFC 8415 §18.3.6): the same name servers and domains that advertisements
// tell, for guests that listen to this alone. No guest is remembered.
//
// The checksum of the question is not looked at: a guest of the same machine
// leaves it to a card that there is not.
func information(r Router, question []byte) ([]byte, error) {
	from, message, err := asked(question)
	if err != nil {
		return nil, err
	}
	own := &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr(r.MAC[:])}
	options := message.Options
	switch server := options.ServerID(); {
	case message.MessageType != dhcpv6.MessageTypeInformationRequest:
		return nil, errUnwanted
	case server != nil && !server.Equal(own):
		return nil, errUnwanted
	case len(options.IANA())+len(options.IATA())+len(options.IAPD()) > 0: // §16.12
		return nil, errUnwanted
	}
	reply := &dhcpv6.Message{MessageType: dhcpv6.MessageTypeReply, TransactionID: message.TransactionID}
	if client := options.ClientID(); client != nil {
		reply.AddOption(dhcpv6.OptClientID(client))
	}
	reply.AddOption(dhcpv6.OptServerID(own))
	requested := options.RequestedOptions()
	if len(r.DNS) > 0 && requested.Contains(dhcpv6.OptionDNSRecursiveNameServer) {
		var servers []net.IP
		for _, a := range r.DNS {
			servers = append(servers, a.AsSlice())
		}
		reply.AddOption(dhcpv6.OptDNS(servers...))
	}
	if len(r.Search) > 0 && requested.Contains(dhcpv6.OptionDomainSearchList) {
		dhcpv6.WithDomainSearchList(r.Search...)(reply)
	}
	if requested.Contains(dhcpv6.OptionInformationRefreshTime) {
		reply.AddOption(dhcpv6.OptInformationRefreshTime(dnsLifetime))
	}
	return datagram(r, from, reply.ToBytes()), nil
}

// asked reads who asks what.
func asked(b []byte) (target, *dhcpv6.Message, error) {
	if len(b) < sizeHeaders+sizeUDP || binary.BigEndian.Uint16(b[offsetEtherType:]) != unix.ETH_P_IPV6 ||
		b[sizeEthernet]>>4 != 6 || b[offsetNextHeader] != udp ||
		netip.AddrFrom16([16]byte(b[offsetDestination:])) != allServers {
		return target{}, nil, errUnwanted
	}
	from := target{mac: [6]byte(b[offsetEtherSource:]), ip: netip.AddrFrom16([16]byte(b[offsetSource:]))}
	if !from.ip.IsLinkLocalUnicast() || from.mac[0]&1 != 0 {
		return target{}, nil, errUnwanted
	}
	header := b[sizeHeaders:]
	length := int(binary.BigEndian.Uint16(header[4:]))
	if length < sizeUDP || length > len(header) || binary.BigEndian.Uint16(header[2:]) != serverPort {
		return target{}, nil, errUnwanted
	}
	m, err := dhcpv6.MessageFromBytes(header[sizeUDP:length])
	return from, m, err
}

// datagram is what a router says to a client, in UDP, IPv6 and Ethernet.
func datagram(r Router, to target, payload []byte) []byte {
	body := make([]byte, 0, sizeUDP+len(payload))
	for _, field := range []int{serverPort, clientPort, sizeUDP + len(payload), 0} {
		body = binary.BigEndian.AppendUint16(body, uint16(field))
	}
	body = append(body, payload...)
	b := packet(r, to, udp, body)
	sum := checksum(udp, b[offsetSource:sizeHeaders], body)
	if sum == 0 { // which would say that there is none (RFC 8200 §8.1)
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[sizeHeaders+6:], sum)
	return b
}
