package plan

import (
	"slices"
	"time"

	"frond/internal/bgp"
	"frond/internal/dataplane"
)

// restartTime is how long peers keep this node's routes while its agent is
// away (RFC 4724 §3): enough to install a new version. BFD ends it sooner
// when the node itself is gone.
const restartTime = 2 * time.Minute

// BGP is everything that the speaker should do with these neighbours. Of
// restart only what tells this run from others is taken.
func (p *Plan) BGP(peers []bgp.Peer, restart bgp.GracefulRestart) bgp.Desired {
	restart.Time, restart.Watched = restartTime, p.BFD.Enabled
	d := bgp.Desired{
		ASN:      p.Node.ASN,
		RouterID: p.Node.Loopback,
		Hostname: p.Node.Name,
		Keys:     bgp.Keys{Current: p.Password, Previous: p.PreviousPassword},
		Peers:    peers,
		Restart:  restart,
	}
	for _, prefix := range p.Originate {
		d.Routes = append(d.Routes, bgp.Route{Prefix: prefix})
	}
	return d
}

// Peers are one session per neighbour, in the order of their addresses.
func (p *Plan) Peers(neighbours []dataplane.NextHop) []bgp.Peer {
	peers := make([]bgp.Peer, 0, len(neighbours))
	for _, leg := range neighbours {
		peers = append(peers, bgp.Peer{
			Addr:          Address(leg),
			Hold:          p.Hold,
			Keepalive:     p.Keepalive,
			AllowInternal: p.Node.InternalPeers,
		})
	}
	slices.SortFunc(peers, func(a, b bgp.Peer) int { return a.Addr.Compare(b.Addr) })
	return peers
}
