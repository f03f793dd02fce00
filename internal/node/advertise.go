package node

import (
	"context"
	"net/netip"
	"reflect"
	"slices"

	"frond/internal/advertise"
	"frond/internal/dataplane"
)

// advertiser is what is used of advertise.Advertiser.
type advertiser interface {
	Set([]advertise.Router)
	Withdraw(context.Context) error
}

// applyAdvertisements has guests told of their gateways.
func (l *loop) applyAdvertisements() {
	if routers := l.routers(); !reflect.DeepEqual(routers, l.told.routers) {
		l.advertiser.Set(routers)
		l.told.routers = routers
	}
}

// routers are the gateways that guests here are told of, with the links that
// it is said on. A gateway that is on every node is told to this node's own
// guests, port by port: what is sent on the bridge would reach all nodes. One
// that was elected is told to all guests, on the bridge, while it is here.
func (l *loop) routers() []advertise.Router {
	var routers []advertise.Router
	for _, g := range l.plan.Guests() {
		i := slices.IndexFunc(l.segments.here, func(s dataplane.Segment) bool { return s.Name == g.Segment })
		if i < 0 || !g.RA {
			continue
		}
		s := l.segments.here[i]
		r := advertise.Router{
			Segment: s.Name, MAC: s.BridgeMAC(), LinkLocal: s.Gateway.LinkLocal.Addr(),
			Prefix: s.Gateway.Address6.Masked(), MTU: s.MTU,
			DNS: only6(g.Resolvers), Search: g.Search,
			Shared: s.Gateway.Elected,
		}
		if s.Gateway.Elected {
			r.Links = l.heldLink(s)
		} else {
			r.Links = l.guestPorts(s)
		}
		routers = append(routers, r)
	}
	return routers
}

func only6(all []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(all), netip.Addr.Is4)
}

// guestPorts are the ports of a segment's bridge that guests are behind and
// that packets can leave by.
func (l *loop) guestPorts(s dataplane.Segment) []advertise.Link {
	bridge, ok := l.links[s.Bridge]
	if !ok {
		return nil
	}
	var ports []advertise.Link
	for name, link := range l.links {
		if link.Master == bridge.Index && name != s.VXLAN && link.Up && link.Carrier {
			ports = append(ports, advertise.Link{Name: name, Index: link.Index})
		}
	}
	slices.SortFunc(ports, func(a, b advertise.Link) int { return a.Index - b.Index })
	return ports
}

// heldLink is the bridge of a segment whose elected gateway is here.
func (l *loop) heldLink(s dataplane.Segment) []advertise.Link {
	bridge, ok := l.links[s.Bridge]
	if _, held := l.gateways.held[s.Name]; !held || !ok || !bridge.Up {
		return nil
	}
	return []advertise.Link{{Name: bridge.Name, Index: bridge.Index}}
}
