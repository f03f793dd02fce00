package dhcp

import (
	"encoding/hex"
	"net/netip"
	"reflect"
	"time"

	"frond/internal/dataplane"
)

// Segment is what the guests of a segment are told of one family of addresses.
type Segment struct {
	Name   string
	VNI    uint32
	Prefix netip.Prefix
	// Server is where answers come from. Of IPv4 it is the server identifier
	// (RFC 2132 §9.7): the gateway's address, so that it is the same wherever a
	// guest goes, or the node's loopback. Of IPv6 it is the gateway's link-local
	// address, and the server identifier is made of MAC.
	Server netip.Addr
	MAC    dataplane.MAC // that answers come from

	// Without ranges and reservations guests are told of the rest alone.
	Ranges       []Range
	Reservations []Reservation
	Lease        time.Duration
	// Grace is how long after its end a lease is still its client's; see the
	// package's documentation.
	Grace time.Duration
	// PortLimit is how many addresses clients behind one port have at a time,
	// reserved ones aside; 0: as many as there are.
	PortLimit int

	Router     netip.Addr // zero: none
	DNS        []netip.Addr
	Search     []string
	NTP        []netip.Addr
	MTU        int
	Routes     []Route
	BootFile   string
	NextServer netip.Addr // zero: none
}

// Range is an inclusive range of addresses.
type Range struct{ First, Last netip.Addr }

// Reservation is an address that is only one client's. It need not be inside
// a range.
type Reservation struct {
	Client   Client
	Address  netip.Addr
	Hostname string // told to the client; empty: none
}

// Route is a static route (RFC 3442).
type Route struct {
	Prefix netip.Prefix
	Via    netip.Addr
}

// Client is who has a lease. Of IPv6: the octets of its DUID and IAID (RFC 8415
// §4.2), or what an address is reserved for. Of IPv4: the octets of the client identifier (RFC 2132
// §9.14, RFC 4361), or of hardware type and address where it sends none
// (RFC 2131 §4.2). Most clients make the former from the latter, so that both
// are the same: a boot ROM and what it loads get one address.
type Client string

// String gives the octets in hexadecimal digits.
func (c Client) String() string { return hex.EncodeToString([]byte(c)) }

// MarshalText writes what String does.
func (c Client) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads hexadecimal digits.
func (c *Client) UnmarshalText(text []byte) error {
	octets, err := hex.AppendDecode(nil, text)
	if err == nil {
		*c = Client(octets)
	}
	return err
}

// hardwareEthernet is Ethernet's number (RFC 1700, "Number Hardware Type").
const hardwareEthernet = 1

// ClientOf is the client that has only its MAC.
func ClientOf(mac dataplane.MAC) Client {
	return Client(append([]byte{hardwareEthernet}, mac[:]...))
}

// mac is the MAC that a client says it is.
func (c Client) mac() (mac dataplane.MAC, ok bool) {
	if len(c) != 1+len(mac) || c[0] != hardwareEthernet {
		return mac, false
	}
	copy(mac[:], c[1:])
	return mac, true
}

// six tells that it is of IPv6.
func (s Segment) six() bool { return s.Prefix.Addr().Is6() }

// leases tells that guests are given addresses.
func (s Segment) leases() bool { return len(s.Ranges)+len(s.Reservations) > 0 }

// label is how people call it.
func (s Segment) label() string {
	if s.six() {
		return s.Name + " (IPv6)"
	}
	return s.Name
}

// equal is only asked when the document or a port has changed.
func (s Segment) equal(o Segment) bool {
	return reflect.DeepEqual(s, o)
}

// hold is how long the store keeps an address for its client.
func (s Segment) hold() time.Duration { return s.Lease + s.Grace }
