package dataplane

import (
	"net/netip"
	"slices"
)

// Guard is what guests, and packets from other nodes, are kept from. Its zero
// value keeps nobody from anything. All lists are sorted, each item once.
type Guard struct {
	// Bridges are those of segments: what the node has from one comes from a guest.
	Bridges []GuardedDevice
	// GuestPorts are the bridges' ports but for those that lead to other nodes.
	GuestPorts []GuardedDevice
	// Fabric are the prefixes of nodes' loopbacks, which no guest speaks from,
	// and whose services none speaks to.
	Fabric []netip.Prefix
	// Local is the node's own VTEP; VTEPs are those that may send to it.
	Local netip.Addr
	VTEPs []netip.Addr
	// Ports are those of the fabric.
	Ports []string
	// Gateways are addresses of gateways, which no guest has.
	Gateways []netip.Addr
	// Holders are the guests that IP addresses belong to: nobody else has one.
	Holders []GuestAddress
	// Places are the ports that MACs are behind now: they are behind no other.
	Places []GuestPlace
	// Strict lets guests behind BoundPorts speak only from addresses in Holders.
	Strict     bool
	BoundPorts []string
	// Broadcast is how many broadcast and multicast packets each guest port may
	// send in a second; 0: as many as it likes.
	Broadcast int
}

// GuardedDevice is a device that is there: one that takes its name later has
// another index.
type GuardedDevice struct {
	Name  string
	Index int
}

// GuestAddress is an IP address that is the guest's of this MAC.
type GuestAddress struct {
	MAC MAC
	IP  netip.Addr
}

// GuestPlace is the port that a MAC is behind.
type GuestPlace struct {
	Port string
	MAC  MAC
}

// Equal tells whether both are the same.
func (g Guard) Equal(o Guard) bool {
	return slices.Equal(g.Bridges, o.Bridges) && slices.Equal(g.GuestPorts, o.GuestPorts) && slices.Equal(g.Fabric, o.Fabric) &&
		g.Local == o.Local && slices.Equal(g.VTEPs, o.VTEPs) && slices.Equal(g.Ports, o.Ports) &&
		slices.Equal(g.Gateways, o.Gateways) && slices.Equal(g.Holders, o.Holders) && slices.Equal(g.Places, o.Places) &&
		g.Strict == o.Strict && slices.Equal(g.BoundPorts, o.BoundPorts) && g.Broadcast == o.Broadcast
}

// IsZero tells that nobody is kept from anything.
func (g Guard) IsZero() bool { return g.Equal(Guard{}) }

// GuardDrop counts packets that one rule has dropped.
type GuardDrop struct {
	Rule    string // see GuardRules
	Port    string // that they came in by: a guest's port, a segment's bridge, or one of the fabric
	Packets uint64
}

// The rules by which packets are dropped.
const (
	DropBPDU      = "bpdu"          // from guests: spanning tree and its like (IEEE 802.1Q §8.6.3)
	DropMAC       = "mac-elsewhere" // from a MAC that is behind another port now
	DropGateway   = "gateway"       // from the address of a gateway, or claiming it
	DropAddress   = "address"       // from an address of another guest, or claiming it
	DropLoopback  = "loopback"      // from the loopback of a node
	DropSource    = "source"        // from an address that the guest was not given, or claiming it
	DropBroadcast = "broadcast"     // broadcast and multicast beyond what a guest's port may send
	DropDHCP      = "dhcp-server"   // answers of a DHCP server from a guest
	DropRA        = "router-advert" // router advertisements and redirects from a guest
	DropService   = "service"       // from guests to BGP, BFD, the store, VXLAN of a node
	DropFragments = "fragment"      // parts of packets to nodes that nobody can judge
	DropVXLAN     = "vxlan"         // VXLAN from nobody's VTEP
	DropBGP       = "bgp"           // BGP from beyond the cable
)

// GuardRules are all of them.
func GuardRules() []string {
	return []string{DropBPDU, DropMAC, DropGateway, DropAddress, DropLoopback, DropSource, DropBroadcast, DropDHCP, DropRA, DropService, DropFragments, DropVXLAN, DropBGP}
}
