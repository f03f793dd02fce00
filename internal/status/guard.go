package status

// RefusedRoute is a route that a peer tells although the document does not let
// it. It is not used, and not passed on.
type RefusedRoute struct {
	Port   string `json:"port"`
	Peer   string `json:"peer"`            // who told it: its host name, or its address
	Route  string `json:"route"`           // a prefix, or an EVPN route as in Route of GET /v1/evpn
	Origin uint32 `json:"origin"`          // the AS that its path ends with
	Node   string `json:"node,omitempty"`  // whose AS that is
	Owner  string `json:"owner,omitempty"` // of another node's loopback: that node
	Reason string `json:"reason"`
}

// Guard is what peers and guests do that the document does not let them. It is
// the body of GET /v1/guard.
type Guard struct {
	Routes []RefusedRoute `json:"routes"` // that stand now
	Drops  []GuardDrop    `json:"drops"`  // since the rules were made
}

// GuardDrop counts packets of one port that one rule has dropped.
type GuardDrop struct {
	Rule    string   `json:"rule"`
	Port    string   `json:"port"`              // that they came in by; a segment's bridge where packets go to the node or through it
	Segment string   `json:"segment,omitempty"` // that the port belongs to
	MACs    []string `json:"macs"`              // of guests behind the port, as far as known, at most 8
	Packets uint64   `json:"packets"`
}
