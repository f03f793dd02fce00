package node

import (
	"path/filepath"

	"frond/internal/fabric"
	"frond/internal/guest"
	"frond/internal/plan"
	"frond/internal/quorum"
)

// placeOf is where this node's member of the hypervisors' cluster is, as far as
// the hypervisor has ever said.
func placeOf(s guest.State) quorum.Place {
	if !s.Server.Cluster || s.Server.Address == "" || s.Socket == "" {
		return quorum.Place{}
	}
	dir := filepath.Dir(s.Socket)
	if dir == "/run/incus" {
		dir = "/var/lib/incus" // of which that is the socket alone
	}
	return quorum.Place{Dir: dir, Address: s.Server.Address}
}

// namesOf are the nodes by their loopbacks, which their members may have.
func namesOf(nodes []fabric.Node) map[string]string {
	names := make(map[string]string)
	for _, n := range nodes {
		names[n.Loopback.String()] = n.Name
		if n.Loopback6.IsValid() {
			names[n.Loopback6.String()] = n.Name
		}
	}
	return names
}

// byLXD are the names of the segments whose gateway the hypervisors' cluster
// decides about.
func byLXD(p *plan.Plan) map[string]bool {
	names := make(map[string]bool)
	for _, g := range p.Elected(fabric.ByLXD) {
		names[g.Segment] = true
	}
	return names
}
