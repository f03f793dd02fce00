package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"frond/internal/bgp"
	"frond/internal/dataplane"
	"frond/internal/kernel"
	"frond/internal/plan"
	"frond/internal/status"
)

// lookups is what is used of kernel.Kernel to say what it does with a packet.
type lookups interface {
	LookupRoute(to netip.Addr) (kernel.RouteLookup, error)
	LookupMAC(bridge, vxlan string, mac dataplane.MAC) (kernel.MACLookup, error)
	LookupNeighbor(link string, ip netip.Addr) (dataplane.MAC, error)
	Addresses(link string) ([]netip.Prefix, error)
}

// Nodes returns the nodes of the fabric as the document in force has them.
func (n *Node) Nodes() []status.Host {
	var all []status.Host
	n.ask(context.Background(), func(l *loop) {
		for _, node := range l.plan.Nodes {
			all = append(all, status.Host{
				Name: node.Name, Role: string(node.Role),
				Loopback: node.Loopback.String(), Loopback6: node.Loopback6.String(),
			})
		}
	})
	return all
}

// Forwarding says what the kernel does with a packet to a destination.
func (n *Node) Forwarding(ctx context.Context, to status.Destination) (status.Forwarding, error) {
	f := forwarding{kernel: n.kernel, to: to}
	if !n.ask(ctx, f.prepare) {
		return status.Forwarding{}, errStopping(ctx)
	}
	switch {
	case to.Segment == "":
		return f.route(to.Address)
	case f.segment.Name == "":
		return drop("it takes no part in segment " + to.Segment), nil
	case to.MAC != "":
		mac, err := dataplane.ParseMAC(to.MAC)
		if err != nil {
			return status.Forwarding{}, err
		}
		return f.frame(mac)
	}
	return f.fromGuest()
}

// forwarding is one answer in the making: what the loop knows, and the kernel.
type forwarding struct {
	kernel   lookups
	to       status.Destination
	segment  dataplane.Segment            // of to, if the node takes part in it
	segments map[string]dataplane.Segment // by bridge
	nodes    map[dataplane.NextHop]string // who is behind a leg
	plan     *plan.Plan
}

// prepare takes from the loop what is needed, so that nobody waits for the
// kernel there.
func (f *forwarding) prepare(l *loop) {
	f.plan, f.nodes = l.plan, l.nodesBehind()
	f.segments = make(map[string]dataplane.Segment)
	for _, s := range l.segments.here {
		f.segments[s.Bridge] = s
		if s.Name == f.to.Segment {
			f.segment = s
		}
	}
}

// nodesBehind are the names of nodes by the legs that lead to them: those who
// have a session, and those who last had one.
func (l *loop) nodesBehind() map[dataplane.NextHop]string {
	names := make(map[dataplane.NextHop]string)
	note := func(peer bgp.PeerStatus) {
		if peer.Hostname != "" {
			names[plan.Leg(peer.Addr)] = peer.Hostname
		}
	}
	for _, p := range l.ports {
		note(p.met)
	}
	for _, peer := range l.peers {
		note(peer)
	}
	return names
}

func drop(reason string) status.Forwarding {
	return status.Forwarding{Action: status.Drop, Reason: reason}
}

// frame is a frame to a MAC in the segment.
func (f *forwarding) frame(mac dataplane.MAC) (status.Forwarding, error) {
	found, err := f.kernel.LookupMAC(f.segment.Bridge, f.segment.VXLAN, mac)
	switch {
	case err != nil:
		return status.Forwarding{}, err
	case !found.Known:
		return status.Forwarding{Action: status.Flood, VNI: f.segment.VNI}, nil
	case found.VTEP.IsValid():
		return status.Forwarding{Action: status.Encapsulate, VTEP: found.VTEP.String(), VNI: f.segment.VNI}, nil
	}
	return status.Forwarding{Action: status.Deliver, Port: found.Port, VNI: f.segment.VNI}, nil
}

// fromGuest is a packet of a guest's to an address: to whom the bridge answers
// for if that is on the segment, otherwise to the gateway that it holds.
func (f *forwarding) fromGuest() (status.Forwarding, error) {
	to, err := netip.ParseAddr(f.to.Address)
	if err != nil {
		return status.Forwarding{}, err
	}
	mac, err := f.kernel.LookupNeighbor(f.segment.Bridge, to)
	if err != nil {
		return status.Forwarding{}, err
	}
	if !mac.IsZero() {
		return f.frame(mac)
	}
	addresses, err := f.kernel.Addresses(f.segment.Bridge)
	if err != nil {
		return status.Forwarding{}, err
	}
	gateway := slices.IndexFunc(addresses, func(p netip.Prefix) bool { return p.Addr().Is4() == to.Is4() && !p.Addr().IsLinkLocalUnicast() })
	switch {
	case gateway < 0:
		return drop(fmt.Sprintf("nobody on segment %s is known to have %s, and the segment has no gateway here", f.segment.Name, to)), nil
	case addresses[gateway].Addr() != to && addresses[gateway].Contains(to):
		return drop(fmt.Sprintf("nobody on segment %s is known to have %s", f.segment.Name, to)), nil
	}
	return f.route(f.to.Address)
}

// route is a packet that is routed by its address.
func (f *forwarding) route(address string) (status.Forwarding, error) {
	to, err := netip.ParseAddr(address)
	if err != nil {
		return status.Forwarding{}, err
	}
	found, err := f.kernel.LookupRoute(to)
	if err != nil {
		return status.Forwarding{}, err
	}
	answer := status.Forwarding{Action: status.Forward, Match: found.Prefix.String()}
	switch {
	case found.Refused != "":
		answer = drop(found.Refused + " to " + address)
		if found.Prefix.IsValid() {
			answer.Match = found.Prefix.String()
		}
	case found.Port != "":
		answer.Action, answer.Port = status.Deliver, found.Port
	}
	for _, leg := range found.Legs {
		answer.Legs = append(answer.Legs, f.leg(leg))
	}
	return answer, nil
}

// leg says who is behind a leg of a route.
func (f *forwarding) leg(found kernel.LegLookup) status.Leg {
	leg := status.Leg{Port: found.Port, Problem: found.Problem}
	if found.Via.IsValid() {
		leg.Via = found.Via.String()
	}
	segment, isSegment := f.segments[found.Port]
	switch {
	case isSegment:
		leg.Segment = segment.Name
		if !found.Neighbor.IsZero() {
			leg.MAC = found.Neighbor.String()
		}
	case f.plan.IsPort(found.Port):
		leg.Node = f.nodes[dataplane.NextHop{Port: found.Port, Via: found.Via}]
	default:
		leg.Outside = true
	}
	return leg
}
