package status

// Destination is where a packet is to go: to a MAC in a segment, to an IP
// address, or, with address and segment, to the address from a guest of the
// segment. It is comparable.
type Destination struct {
	Address string `json:"address,omitempty"`
	Segment string `json:"segment,omitempty"`
	MAC     string `json:"mac,omitempty"`
}

// Action is what a kernel does with a packet.
type Action string

// The actions.
const (
	Deliver     Action = "deliver"     // it is for the node itself, or for who is behind Port
	Forward     Action = "forward"     // it leaves by one of Legs
	Encapsulate Action = "encapsulate" // it goes to VTEP in VXLAN, as a packet of its own
	Flood       Action = "flood"       // nobody knows the MAC: to all ports and VTEPs of the segment
	Drop        Action = "drop"        // and Reason says why
)

// Forwarding is what the kernel of a node does with a packet to a
// destination. It is the body of GET /v1/forwarding.
type Forwarding struct {
	Action Action `json:"action"`
	Match  string `json:"match,omitempty"` // the prefix of the route that decides
	Port   string `json:"port,omitempty"`  // of deliver: the bridge's port, or the interface that has the address
	VTEP   string `json:"vtep,omitempty"`
	VNI    uint32 `json:"vni,omitempty"`
	Legs   []Leg  `json:"legs"`
	Reason string `json:"reason,omitempty"`
}

// Leg is one way that a route's packets take.
type Leg struct {
	Port string `json:"port"`
	Via  string `json:"via,omitempty"`  // the next hop's address; empty: the destination is on the link
	Node string `json:"node,omitempty"` // who is behind the port, as sessions and discovery know it
	// Segment is set where the port is a segment's bridge, and MAC is then
	// what the kernel's neighbour table has for the next hop.
	Segment string `json:"segment,omitempty"`
	MAC     string `json:"mac,omitempty"`
	// Outside tells that the port is none of the fabric's.
	Outside bool `json:"outside,omitempty"`
	// Problem says why nothing gets through; empty: the kernel knows of none.
	Problem string `json:"problem,omitempty"`
}

// Host is a node of the fabric, as the document has it. It is an element of
// GET /v1/nodes.
type Host struct {
	Name      string `json:"name"`
	Role      string `json:"role"`
	Loopback  string `json:"loopback"`
	Loopback6 string `json:"loopback6"`
}
