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
