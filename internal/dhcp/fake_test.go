package dhcp

import (
	"net/netip"
	"testing"
	"time"

	"frond/internal/dataplane"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

func ip(text string) netip.Addr { return netip.MustParseAddr(text) }

// blue is a segment with room for some.
func blue(first, last string) Segment {
	return Segment{
		Name: "blue", VNI: 100, Prefix: netip.MustParsePrefix("172.16.0.0/16"),
		Server: ip("172.16.0.1"), Router: ip("172.16.0.1"), MAC: dataplane.MAC{2, 0x68, 0, 0, 0, 100},
		Ranges: []Range{{ip(first), ip(last)}}, Lease: 10 * time.Minute, Grace: time.Hour, MTU: 1450,
		DNS: []netip.Addr{ip("1.1.1.1")},
	}
}

func guestMAC(n int) dataplane.MAC { return dataplane.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)} }

// message is a client's, as it is on the wire.
func message(t testing.TB, kind dhcpv4.MessageType, mac dataplane.MAC, options ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{
		dhcpv4.WithHwAddr(mac[:]), dhcpv4.WithMessageType(kind),
	}, options...)...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// clientFrame is a frame from a client; other servers' builder has the ports
// the other way round.
func clientFrame(mac dataplane.MAC, payload []byte) []byte {
	frame := buildFrame(mac, dataplane.MAC{255, 255, 255, 255, 255, 255}, ip("0.0.0.0"), ip("255.255.255.255"), payload)
	udp := frame[sizeEthernet+sizeIP:]
	udp[1], udp[3] = portClient, portServer
	return frame
}

// replyIn reads an answer.
func replyIn(t testing.TB, s Sending) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.FromBytes(s.Frame[sizeEthernet+sizeHeaders:])
	if err != nil {
		t.Fatal(err)
	}
	return m
}
