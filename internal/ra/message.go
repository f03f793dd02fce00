package ra

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/ndp"
)

// Groups of RFC 4291 §2.7.1.
var (
	allNodes   = netip.MustParseAddr("ff02::1")
	allRouters = netip.MustParseAddr("ff02::2")
)

// ICMPv6 types and the least lengths of RFC 4861 §6.1.
const (
	solicitation  = 133
	advertisement = 134

	solicitationLength  = 8
	advertisementLength = 16
)

// encode marshals a message; the kernel fills its checksum in.
func encode(m ndp.Message) ([]byte, error) {
	b, err := ndp.MarshalMessage(m)
	if err != nil {
		return nil, fmt.Errorf("encode ICMPv6 type %d: %w", m.Type(), err)
	}
	return b, nil
}

// advertise makes the advertisement of a port. Its router lifetime of 0 says
// that we are no default router, and all else is left unspecified, so that a
// host on the cable changes nothing for it.
func advertise(mac net.HardwareAddr) ([]byte, error) {
	return encode(&ndp.RouterAdvertisement{Options: sourceOption(mac)})
}

// solicit makes the solicitation of a port.
func solicit(mac net.HardwareAddr) ([]byte, error) {
	return encode(&ndp.RouterSolicitation{Options: sourceOption(mac)})
}

// sourceOption carries the port's Ethernet address, so that whoever hears it
// need not ask for it. A port without one sends none.
func sourceOption(mac net.HardwareAddr) []ndp.Option {
	if len(mac) != 6 {
		return nil
	}
	return []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: mac}}
}

// kind tells the ICMPv6 type of a message that is whole by RFC 4861 §6.1.1
// and §6.1.2: long enough, and no option of length zero. What the options say
// does not matter here, so a strange one hides no neighbour.
func kind(b []byte) (icmpType byte, ok bool) {
	if len(b) == 0 {
		return 0, false
	}
	var fixed int
	switch b[0] {
	case solicitation:
		fixed = solicitationLength
	case advertisement:
		fixed = advertisementLength
	default:
		return 0, false
	}
	if len(b) < fixed || b[1] != 0 {
		return 0, false
	}
	return b[0], wholeOptions(b[fixed:])
}

func wholeOptions(b []byte) bool {
	for len(b) > 0 {
		if len(b) < 2 || b[1] == 0 {
			return false
		}
		length := int(b[1]) * 8
		if length > len(b) {
			return false
		}
		b = b[length:]
	}
	return true
}
