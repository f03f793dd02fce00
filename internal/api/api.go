// Package api is how a running agent is asked and told: JSON over HTTP/1.1 on
// a unix socket, and over the network by TLS with certificates on both sides. The fields, documented in docs/api.md, only ever grow within
// one version of the path.
package api

import (
	"context"
	"net/netip"
	"time"

	"frond/internal/status"
)

// DefaultSocket is where an agent answers unless it is told otherwise.
const DefaultSocket = "/run/frond/frond.sock"

// Group may use the socket besides root, if a group of that name exists.
const Group = "frond"

// Backend is the agent behind the API. Its methods are called concurrently.
type Backend interface {
	Status() status.Snapshot
	// Routes returns the routes inside prefix, itself included; all of them
	// for the zero Prefix.
	Routes(prefix netip.Prefix) []status.Route
	// Segments returns the segments that the node takes part in.
	Segments() []status.Segment
	// MACs returns the stations of the segment of that name, of all segments
	// for the empty name.
	MACs(segment string) []status.MAC
	// EVPN returns the EVPN routes that the node tells and has been told.
	EVPN() []status.EVPNRoute
	// Thaw lets a frozen MAC or address move again before its time, on the
	// segment of that name, on every one for the empty name.
	Thaw(ctx context.Context, station, segment string) error
	// Gateways returns the gateways of all segments of the fabric.
	Gateways() []status.Gateway
	// Hypervisor returns what LXD or Incus says of its instances here.
	Hypervisor() status.Hypervisor
	// Drain has elected gateways leave the node of that name and not come
	// back, or with false lets them come again.
	Drain(ctx context.Context, node string, drained bool) error
	// Guard returns what peers and guests do that the document does not let them.
	Guard() status.Guard
	// Leases returns the addresses that guests of the segment of that name
	// have, of all segments for the empty name.
	Leases(ctx context.Context, segment string) []status.Lease
	// Release ends the lease of an address that this node has given.
	Release(ctx context.Context, address netip.Addr) error
	// Vitals returns all that metrics are made of.
	Vitals() status.Vitals
	// Nodes returns the nodes of the fabric as the document has them.
	Nodes() []status.Host
	// Forwarding says what the kernel does with a packet to a destination.
	Forwarding(ctx context.Context, to status.Destination) (status.Forwarding, error)
	// Reload reads the document again. An error means that the old one
	// stays in force.
	Reload(ctx context.Context) error
	// Down withdraws everything from peers and kernel, and makes the agent
	// stop. It returns when all is withdrawn, not when the agent has ended:
	// the answer has to leave before that.
	Down(ctx context.Context) error
}

// The paths of version 1.
const (
	statusPath     = "/v1/status"
	peersPath      = "/v1/peers"
	routesPath     = "/v1/routes"
	segmentsPath   = "/v1/segments"
	guardPath      = "/v1/guard"
	macsPath       = "/v1/macs"
	evpnPath       = "/v1/evpn"
	thawPath       = "/v1/macs/thaw"
	gatewaysPath   = "/v1/gateways"
	hypervisorPath = "/v1/hypervisor"
	drainPath      = "/v1/gateways/drain"
	undrainPath    = "/v1/gateways/undrain"
	leasesPath     = "/v1/leases"
	releasePath    = "/v1/leases/release"
	nodesPath      = "/v1/nodes"
	forwardingPath = "/v1/forwarding"
	reloadPath     = "/v1/reload"
	downPath       = "/v1/down"
)

// metricsPath has no version: it is where Prometheus looks.
const metricsPath = "/metrics"

// Bounds on what one side takes from the other.
const (
	maxRequest     = 4 << 10   // bytes of a request's body; nothing needs one
	maxHeader      = 16 << 10  // bytes of a request's header
	maxAnswer      = 512 << 20 // bytes that a client reads: a million routes
	maxConnections = 64        // at one time on each listener; more have to wait

	changeTimeout = 30 * time.Second // for a reload or a withdrawal to be carried out
	answerTimeout = time.Minute      // for a whole question and its answer
	headerTimeout = 5 * time.Second
	stopTimeout   = 5 * time.Second // for answers under way when the server ends
)

// Peers is the body of GET /v1/peers.
type Peers struct {
	Peers []status.Peer `json:"peers"`
}

// Routes is the body of GET /v1/routes.
type Routes struct {
	Routes []status.Route `json:"routes"`
}

// failure is the body of every answer that is not a success.
type failure struct {
	Error string `json:"error"`
}

// ParsePrefix reads a prefix as a person writes it: an address alone is its
// host prefix, and bits behind the prefix length are dropped.
func ParsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.WithZone("").Prefix(addr.BitLen())
	}
	prefix, err := netip.ParsePrefix(text)
	return prefix.Masked(), err
}

// Segments is the body of GET /v1/segments.
type Segments struct {
	Segments []status.Segment `json:"segments"`
}

// MACs is the body of GET /v1/macs.
type MACs struct {
	MACs []status.MAC `json:"macs"`
}

// EVPN is the body of GET /v1/evpn.
type EVPN struct {
	Routes []status.EVPNRoute `json:"routes"`
}

// Gateways is the body of GET /v1/gateways.
type Gateways struct {
	Gateways []status.Gateway `json:"gateways"`
}

// Leases is the body of GET /v1/leases.
type Leases struct {
	Leases []status.Lease `json:"leases"`
}

// Nodes is the body of GET /v1/nodes.
type Nodes struct {
	Nodes []status.Host `json:"nodes"`
}
