// Package fabric is the document: what fabric.yaml says, strictly loaded,
// validated as a whole, with every default filled in and every error located.
//
// The types here are not the file's form: they hold netip and time values
// that can be trusted. Nobody else reads YAML.
package fabric

import (
	"net/netip"
	"time"

	"frond/internal/secret"
)

// Fabric is one valid document.
type Fabric struct {
	Name     string
	Underlay Underlay
	Nodes    []Node    // in the document's order
	Segments []Segment // in the document's order
	Store    *Store    // nil where nothing keeps leases
	Guard    Guard
	Guests   Guests
}

// Guard is what nodes and guests are kept from doing.
type Guard struct {
	// Routes has nodes take from each other only routes that the document
	// allows: off where routers that it does not name take part.
	Routes bool
	// Guests has guests kept from harming each other and the fabric.
	Guests bool
	// Strict lets guests speak only from addresses that they were given, or that
	// are reserved for them; otherwise from any that nobody else has.
	Strict bool
	// Broadcast is how many broadcast and multicast packets each guest port may
	// send in a second; 0: as many as it likes.
	Broadcast int
}

// Underlay is what all nodes of the fabric share.
type Underlay struct {
	// Loopbacks are the prefixes that node addresses come from. There is
	// always an IPv6 one: where the document names none, it is the unique
	// local /48 (RFC 4193) derived from the fabric's name.
	Loopbacks []netip.Prefix
	// Ports are globs (path.Match) of the interfaces that may carry a cable.
	Ports []string
	// Password is the TCP-MD5 key (RFC 2385) read from password_file; empty
	// means that sessions carry no signature.
	Password secret.Text
	// PreviousPassword is the key before Password, read from
	// previous_password_file: still good for nodes that have no other yet.
	PreviousPassword secret.Text
	BFD              BFD
	// Hold and Keepalive are BGP's timers (RFC 4271 §10): 9 s and 3 s unless set.
	Hold, Keepalive time.Duration
}

// BFD holds the timers of bidirectional forwarding detection (RFC 5880).
type BFD struct {
	Enabled    bool
	Interval   time.Duration // both desired transmit and required receive interval
	Multiplier int
}

// Role is a node's default behaviour; it never restricts how it may be cabled.
type Role string

// The roles of a node.
const (
	Leaf  Role = "leaf"
	Spine Role = "spine"
	Exit  Role = "exit"
)

// Node is a machine that runs the agent.
type Node struct {
	Name string
	Role Role
	// Loopback and Loopback6 are the node's identity. Loopback6 is derived
	// from the fabric's IPv6 loopback prefix and Loopback unless set.
	Loopback, Loopback6 netip.Addr
	// ASN is 4200000000 plus the low 24 bits of Loopback unless set.
	ASN uint32
	// InternalPeers tells that the document gives this node's ASN to others
	// too, so that a peer of the same AS is no mistake (RFC 7938 §5.2.1).
	InternalPeers bool
	// Ports are the globs that hold for this node: its own or the underlay's.
	Ports         []string
	ReservedPorts []string       // globs of ports that are never the fabric's; an uplink's port is one of them
	Advertise     []netip.Prefix // originated besides the loopbacks
	Anycast       []netip.Prefix // host prefixes, put on lo and originated, allowed on several nodes
	Uplink        *Uplink        // only exits have one
}

// Uplink leads out of the fabric.
type Uplink struct {
	Port string
	// Address and Address6 are the port's own with the length of their network;
	// zero where DHCP gives it or the operator has configured the port himself.
	Address, Address6 netip.Prefix
	DHCP              bool // of IPv4
	// NextHop and NextHop6 are the routers that the default routes point to;
	// zero where DHCP gives it or the kernel may have one by the operator's
	// hand. NextHop6 may be a link-local address.
	NextHop, NextHop6 netip.Addr
	// Masquerade hides what leaves behind the port's address (source NAT).
	Masquerade bool
	// Preference orders exits as LOCAL_PREF does (RFC 4271 §5.1.5): the
	// highest that works is used, equal ones share. 100 unless set.
	Preference int
}

// GatewayMode is how a segment's gateway is kept alive.
type GatewayMode string

// The gateway modes.
const (
	Anycast GatewayMode = "anycast"
	Elected GatewayMode = "elected"
)

// Election is who decides which node has an elected gateway.
type Election string

// The elections: by leases in the store, which is how it is unless the store is
// LXD, or by the database of the hypervisors' own cluster.
const (
	ByStore Election = "store"
	ByLXD   Election = "lxd"
)

// Segment is a layer-2 network over the fabric.
type Segment struct {
	Name   string
	VNI    uint32
	Nodes  []string // names of the nodes that take part, globs resolved, in the document's order
	Bridge string   // "br-" + Name unless set
	MTU    int      // 0: derived from the ports
	// MACLimit is how many MACs behind one guest port the fabric is told of.
	MACLimit int
	// Prefix and Prefix6 are zero where the document does not set them.
	Prefix, Prefix6 netip.Prefix
	Gateway         *Gateway
	DHCP            *DHCP
	DHCP6           *DHCP6
	// DNS are the name servers outside that guests' questions go to: the
	// segment's or those of its DHCP.
	DNS []netip.Addr
	// DNSNames has the gateway answer for guests' names and ask DNS the rest.
	DNSNames bool
	// NTP are the time servers that guests are told of: the segment's or those of
	// its DHCP.
	NTP []netip.Addr
	// RA has guests told of an IPv6 prefix by router advertisements.
	RA bool
}

// Resolvers are the name servers that guests are told to ask: the gateway's
// addresses where it answers, otherwise the segment's DNS.
func (s Segment) Resolvers() []netip.Addr {
	if s.Gateway == nil || !s.DNSNames {
		return s.DNS
	}
	var own []netip.Addr
	for _, a := range []netip.Addr{s.Gateway.Address, s.Gateway.Address6} {
		if a.IsValid() {
			own = append(own, a)
		}
	}
	return own
}

// Gateway is a segment's default router.
type Gateway struct {
	Address  netip.Addr
	Address6 netip.Addr // zero if the segment has no IPv6 prefix
	Mode     GatewayMode
	Election Election // empty unless Mode is elected
	// HostRoutes has each node announce its own guests' addresses besides the
	// segment's prefix, so that packets to them come the shortest way.
	HostRoutes bool
	// Locality draws an elected gateway to the node with most of the segment's
	// guests.
	Locality bool
}

// Node returns the node of that name.
func (f *Fabric) Node(name string) (Node, bool) {
	for _, n := range f.Nodes {
		if n.Name == name {
			return n, true
		}
	}
	return Node{}, false
}
