// Package status is what a node says of itself: one snapshot, versioned and
// stable as JSON, and the health conditions that every part reports into it.
// It is a leaf: everybody may import it, it imports nothing of ours.
package status

import "time"

// Snapshot is a node at one moment. It is the body of GET /v1/status.
type Snapshot struct {
	Fabric     string      `json:"fabric"`
	Node       string      `json:"node"`
	Role       string      `json:"role"`
	Version    string      `json:"version"`
	Engine     string      `json:"engine"`
	PID        int         `json:"pid"`
	Started    time.Time   `json:"started"`
	Ready      bool        `json:"ready"`
	ASN        uint32      `json:"asn"`
	Loopback   string      `json:"loopback"`
	Loopback6  string      `json:"loopback6"`
	Document   Document    `json:"document"`
	Peers      []Peer      `json:"peers"`
	Routes     Totals      `json:"routes"`
	Uplink     *Uplink     `json:"uplink,omitempty"` // of an exit
	Conditions []Condition `json:"conditions"`       // what is wrong; empty is healthy
}

// Document is the fabric.yaml that is in force.
type Document struct {
	Path   string    `json:"path"`
	Loaded time.Time `json:"loaded"`
	SHA256 string    `json:"sha256"`
	// Error says why the last reload was refused; the document in force is
	// then the one before.
	Error string `json:"error,omitempty"`
}

// Totals counts routes: what BGP wants and what the kernel holds.
type Totals struct {
	Desired   int `json:"desired"`
	Installed int `json:"installed"`
}

// Uplink is an exit's way out of the fabric.
type Uplink struct {
	Port    string   `json:"port"`
	Routers []Router `json:"routers"` // one per family that has one
	// LeaseEnds is when the address that DHCP has given is no longer the
	// port's; absent without a lease, or if it never ends.
	LeaseEnds *time.Time `json:"leaseEnds,omitempty"`
}

// Router is who leads out for one family.
type Router struct {
	Family  string    `json:"family"` // ipv4, ipv6
	Address string    `json:"address"`
	Works   bool      `json:"works"` // packets leave by it, and the default route is announced
	Since   time.Time `json:"since"`
}

// Peer is one port of the fabric and who is behind it. It is an element of
// GET /v1/peers.
type Peer struct {
	Port     string `json:"port"`
	Name     string `json:"name"`    // host name that the peer told; empty if it told none
	Address  string `json:"address"` // link-local, without zone
	ASN      uint32 `json:"asn"`
	RouterID string `json:"routerId"`
	Software string `json:"software,omitempty"`
	State    string `json:"state"`  // established, open, connect, idle, or down: no session is possible
	Reason   string `json:"reason"` // why it is not established, in words
	// Key is what is wrong with the peer's TCP-MD5 key: differs, missing,
	// unexpected; absent where nothing is known to be.
	Key         string         `json:"key,omitempty"`
	Since       time.Time      `json:"since"`
	BFD         string         `json:"bfd"` // up, down, init, off, or "unanswered": the peer speaks none
	Restarting  bool           `json:"restarting"`
	Flaps       uint64         `json:"flaps"`
	HoldSeconds float64        `json:"holdSeconds"`
	Received    map[string]int `json:"received"` // prefixes by family: ipv4, ipv6, evpn
	Sent        map[string]int `json:"sent"`
	Malformed   uint64         `json:"malformed"` // updates treated as withdrawals (RFC 7606)
	// MalformedEVPN counts EVPN routes that were not as the RFC of their type
	// says, in updates that were well formed themselves.
	MalformedEVPN uint64 `json:"malformedEvpn"`
	// Refused counts announcements that the document does not allow.
	Refused uint64 `json:"refused"`
}

// Route is a prefix in the kernel's table. It is an element of GET /v1/routes.
type Route struct {
	Prefix    string    `json:"prefix"`
	Local     bool      `json:"local"`
	ASPath    []uint32  `json:"asPath"`
	NextHops  []NextHop `json:"nextHops"`
	Installed bool      `json:"installed"` // the kernel holds it with exactly these next hops
}

// NextHop is one way that a route's packets take.
type NextHop struct {
	Port    string `json:"port"`
	Address string `json:"address"`
	Name    string `json:"name"` // of the node behind it
	Stale   bool   `json:"stale"`
}

// Segment is a layer-2 network that the node takes part in. It is an element
// of GET /v1/segments.
type Segment struct {
	Name       string   `json:"name"`
	VNI        uint32   `json:"vni"`
	Bridge     string   `json:"bridge"`
	VXLAN      string   `json:"vxlan"`
	MTU        int      `json:"mtu"`
	Ready      bool     `json:"ready"`   // its devices are there
	Pending    int      `json:"pending"` // entries that the kernel does not hold as desired
	VTEPs      []string `json:"vteps"`   // other nodes that take part
	LocalMACs  int      `json:"localMacs"`
	RemoteMACs int      `json:"remoteMacs"`
	Problems   []string `json:"problems"`
}

// Gateway is a segment's default router. It is an element of GET /v1/gateways.
type Gateway struct {
	Segment   string   `json:"segment"`
	VNI       uint32   `json:"vni"`
	Mode      string   `json:"mode"` // anycast: on every node of the segment; elected: on one
	Addresses []string `json:"addresses"`
	Here      bool     `json:"here"` // this node has it

	// Of an elected one, as far as this node knows by the store, or by the database
	// of the hypervisors' cluster.
	Holder      string     `json:"holder,omitempty"` // empty: nobody
	Next        string     `json:"next,omitempty"`   // who should have it: another than the holder while it moves
	Since       *time.Time `json:"since,omitempty"`
	LeftSeconds float64    `json:"leftSeconds,omitempty"` // of the holder's lease, without another renewal
	Why         string     `json:"why,omitempty"`
	Score       float64    `json:"score,omitempty"`  // of rendezvous hashing, of who should have it
	Weight      float64    `json:"weight,omitempty"` // of the same: 1 and, with locality, its guests
	Term        uint64     `json:"term,omitempty"`   // grows with each change of holder
}

// MAC is a station of a segment. It is an element of GET /v1/macs.
type MAC struct {
	Segment  string     `json:"segment"`
	VNI      uint32     `json:"vni"`
	MAC      string     `json:"mac"`
	Name     string     `json:"name,omitempty"` // of the instance whose it is, where a hypervisor tells
	IPs      []string   `json:"ips"`
	Local    bool       `json:"local"`
	Port     string     `json:"port,omitempty"` // of a local one
	VTEP     string     `json:"vtep"`           // the node that it is at
	Sequence uint32     `json:"sequence"`       // how often it moved (RFC 7432 §7.7)
	Sticky   bool       `json:"sticky"`
	Since    time.Time  `json:"since"`
	Silent   *time.Time `json:"silent,omitempty"` // of a local one: since when nothing was heard
	Frozen   *time.Time `json:"frozen,omitempty"` // until when it may not move
}

// EVPNRoute is an element of GET /v1/evpn.
type EVPNRoute struct {
	Route    string     `json:"route"` // [2]:[0]:[48]:[mac]:[32]:[ip]
	Type     int        `json:"type"`
	RD       string     `json:"rd"`
	VNI      uint32     `json:"vni"`
	VTEP     string     `json:"vtep"`
	Sequence uint32     `json:"sequence"`
	Sticky   bool       `json:"sticky"`
	Local    bool       `json:"local"`
	Peer     string     `json:"peer,omitempty"` // whom it came from
	Used     bool       `json:"used"`
	Since    *time.Time `json:"since,omitempty"`
}

// Lease is what an address is to the guest that has it.
type Lease struct {
	Segment  string `json:"segment"`
	Address  string `json:"address"`
	Client   string `json:"client,omitempty"` // its identifier, hexadecimal; empty: declined
	MAC      string `json:"mac"`
	Name     string `json:"name,omitempty"`     // of the instance whose it is, where a hypervisor tells
	Hostname string `json:"hostname,omitempty"` // what the guest calls itself
	// State is offered, leased, released or declined; or ended: the guest has
	// not come back in time.
	State string `json:"state"`
	Node  string `json:"node"` // that gave it
	Port  string `json:"port,omitempty"`
	// Since is when the guest got it, Ends when it has to ask again at the
	// latest, as it was last written down.
	Since *time.Time `json:"since,omitempty"`
	Ends  *time.Time `json:"ends,omitempty"`
	// KeptSeconds is how long no other guest gets it.
	KeptSeconds float64 `json:"keptSeconds"`
}
