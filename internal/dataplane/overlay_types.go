package dataplane

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// MAC is an Ethernet address (EUI-48).
type MAC [6]byte

// String returns the address in the form 02:00:00:00:00:01.
func (m MAC) String() string {
	const digits = "0123456789abcdef"
	text := make([]byte, 0, 17)
	for i, octet := range m {
		if i > 0 {
			text = append(text, ':')
		}
		text = append(text, digits[octet>>4], digits[octet&15])
	}
	return string(text)
}

// IsGroup tells that the address stands for many (IEEE 802 §8.2): broadcast
// and multicast, which no guest may call its own.
func (m MAC) IsGroup() bool { return m[0]&1 != 0 }

// IsZero tells that there is no address.
func (m MAC) IsZero() bool { return m == MAC{} }

// LinkLocal is the address that is derived from the MAC (RFC 4291 appendix A).
func (m MAC) LinkLocal() netip.Prefix {
	id := [16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]}
	return netip.PrefixFrom(netip.AddrFrom16(id), 64)
}

// MarshalText makes MACs readable in JSON.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText reads what ParseMAC reads.
func (m *MAC) UnmarshalText(text []byte) error {
	parsed, err := ParseMAC(string(text))
	if err == nil {
		*m = parsed
	}
	return err
}

// ParseMAC reads six pairs of hexadecimal digits, separated by colons.
func ParseMAC(text string) (MAC, error) {
	wrong := fmt.Errorf("MAC address %q: want six pairs of hexadecimal digits like 02:00:00:00:00:01", text)
	var m MAC
	pairs := strings.Split(text, ":")
	if len(pairs) != len(m) {
		return MAC{}, wrong
	}
	for i, pair := range pairs {
		octet, err := strconv.ParseUint(pair, 16, 8)
		if len(pair) != 2 || err != nil {
			return MAC{}, wrong
		}
		m[i] = byte(octet)
	}
	return m, nil
}

// Segment is a layer-2 network that this node takes part in.
type Segment struct {
	Name   string
	Bridge string // device that guests are ports of
	VXLAN  string // device that leads to the other nodes
	VNI    uint32
	Local  netip.Addr // own VTEP
	MTU    int        // of bridge and VXLAN device, octets
	// MACLimit is how many MACs are told of per guest port, 0 for no limit.
	// The bridge as a whole learns MACsPerBridge times as many.
	MACLimit int
	Gateway  Gateway
	// Advertise has guests be told their router when they ask for one.
	Advertise bool
	// DHCP and DHCP6 tell that each node answers its own guests by them, so that
	// no request is to cross the fabric.
	DHCP, DHCP6 bool
}

// Asks tells whether guests ask the node for addresses, routers or the like.
func (s Segment) Asks() bool { return s.DHCP || s.DHCP6 || s.Advertise }

// Gateway is the segment's default router. The zero Gateway is none.
//
// Usually every node of the segment holds it at once: the same addresses under
// the same MAC (RFC 9135 §4.1). It is answered for on the guest's own node and
// told to nobody. An elected one is on one node at a time, under that node's
// own MAC: who has given it away still forwards what is sent to that MAC.
type Gateway struct {
	MAC MAC // zero if it is elected
	// Address and Address6 are its own with the lengths of the segment's
	// prefixes; zero where the segment has none.
	Address, Address6 netip.Prefix
	// LinkLocal is what it speaks from on the segment itself; zero if it has
	// no IPv6 address.
	LinkLocal netip.Prefix
	// HostRoutes has the node announce the addresses of its guests.
	HostRoutes bool
	// Elected tells that its addresses come and go by a lease: the overlay
	// leaves them alone.
	Elected bool
}

// Holds tells whether an address is the gateway's: no guest may have it.
func (g Gateway) Holds(ip netip.Addr) bool {
	return ip.IsValid() && (ip == g.Address.Addr() || ip == g.Address6.Addr() || ip == g.LinkLocal.Addr())
}

// Serves tells whether an address is one of the gateway's guests'.
func (g Gateway) Serves(ip netip.Addr) bool {
	return !g.Holds(ip) && (g.Address.Contains(ip) || g.Address6.Contains(ip))
}

// Addresses are all that the bridge of who has the gateway holds.
func (g Gateway) Addresses() []netip.Prefix {
	var all []netip.Prefix
	for _, p := range []netip.Prefix{g.Address, g.Address6, g.LinkLocal} {
		if p.IsValid() {
			all = append(all, p)
		}
	}
	return all
}

// MACsPerBridge is how many ports of a bridge may be filled to their limit
// before the bridge stops learning.
const MACsPerBridge = 64

// MACKey is a MAC in a segment.
type MACKey struct {
	VNI uint32
	MAC MAC
}

// NeighborKey is an IP address in a segment.
type NeighborKey struct {
	VNI uint32
	IP  netip.Addr
}

// OverlayUpdate is what is now desired, as deltas.
type OverlayUpdate struct {
	// MACs are the VTEPs that guests are behind; the zero Addr: not remote
	// any more. Naming one again that is desired already puts it back where
	// the kernel has learned the MAC on a port of this node meanwhile.
	MACs map[MACKey]netip.Addr
	// Neighbors are the MACs that IP addresses are answered with in place of
	// remote guests; the zero MAC: none.
	Neighbors map[NeighborKey]MAC
	// Moved are those of Neighbors that guests here may know at another MAC:
	// they are told of this one.
	Moved map[NeighborKey]struct{}
	// Flood is the whole list of VTEPs that take part in a segment.
	Flood map[uint32][]netip.Addr
}

// OverlayTarget is the kernel as the overlay sees it.
type OverlayTarget interface {
	// DumpOverlay returns every device that is frond's, every other one that
	// bears the name of a segment's, and the entries of these segments.
	DumpOverlay(ctx context.Context, segments []Segment) (OverlayState, error)
	// ApplyOverlay carries out the operations in their order, in as few
	// system calls as it can, and returns one error per operation that
	// failed. Deleting what is absent is no error.
	ApplyOverlay(ctx context.Context, ops []OverlayOp) []OpError
}

// OverlayState is what the kernel holds.
type OverlayState struct {
	Devices map[string]InstalledDevice
	Entries map[uint32]*OverlayEntries // by VNI
	// Addresses are those of the segments' bridges, each with whether it is
	// frond's. Those with a lifetime are somebody else's matter.
	Addresses map[BridgeAddress]bool
}

// BridgeAddress is an address of a bridge.
type BridgeAddress struct {
	Bridge string
	Prefix netip.Prefix
}

// OverlayEntries are frond's entries of one segment.
type OverlayEntries struct {
	MACs      map[MAC]InstalledMAC
	Neighbors map[netip.Addr]MAC
	Flood     map[netip.Addr]struct{}
}

// InstalledMAC is where the kernel sends frames to a MAC.
type InstalledMAC struct {
	VTEP    netip.Addr // by the VXLAN device; zero: it does not know
	Bridged bool       // the bridge hands them to the VXLAN device
	Taken   bool       // the bridge has learned the MAC on another port
}

func newOverlayEntries() *OverlayEntries {
	return &OverlayEntries{
		MACs:      make(map[MAC]InstalledMAC),
		Neighbors: make(map[netip.Addr]MAC),
		Flood:     make(map[netip.Addr]struct{}),
	}
}
