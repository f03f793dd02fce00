package crowd

import (
	"context"
	"fmt"
	"net/netip"

	"frond/internal/bgp"
	"frond/internal/bgp/native"
	"frond/internal/dataplane"
	"frond/internal/evpn"
	"frond/internal/fabric"
	"frond/internal/plan"
)

// leaf is one of the crowd.
type leaf struct {
	plan    *plan.Plan
	floods  []bgp.Route // that it takes part in its segments (RFC 7432 §7.3)
	speaker *native.Speaker
	spine   []dataplane.NextHop // at the other end of its cable; none or one
	heard   heard
}

// heard are what others have told a leaf of.
type heard struct {
	prefixes map[netip.Prefix]struct{}
	evpn     map[string]struct{}
	// How many there are when all have.
	allPrefixes, allEVPN int
}

// newLeafs makes so many, by their ports: leafN at ethN.
func newLeafs(f *fabric.Fabric, size int) (map[string]*leaf, error) {
	leafs := make(map[string]*leaf, size)
	prefixes := 0
	for _, n := range f.Nodes {
		if n.Role == fabric.Spine {
			p, err := plan.For(f, n.Name)
			if err != nil {
				return nil, err
			}
			prefixes += len(p.Originate)
		}
	}
	for i := range size {
		p, err := plan.For(f, fmt.Sprintf("leaf%d", i+1))
		if err != nil {
			return nil, err
		}
		leafs[fmt.Sprintf("eth%d", i+1)] = &leaf{plan: p, floods: floods(f, p.Node)}
		prefixes += len(p.Originate)
	}
	for _, l := range leafs {
		l.heard = heard{
			prefixes: make(map[netip.Prefix]struct{}), evpn: make(map[string]struct{}),
			allPrefixes: prefixes - len(l.plan.Originate), allEVPN: (size - 1) * len(f.Segments),
		}
	}
	return leafs, nil
}

// floods are the EVPN routes by which a node takes part in all segments.
func floods(f *fabric.Fabric, n fabric.Node) (routes []bgp.Route) {
	for _, s := range f.Segments {
		route := evpn.Multicast{
			Attributes: evpn.Attributes{
				RD: evpn.NewRD(n.Loopback, uint16(s.VNI)), VNI: s.VNI, ASN: uint32(uint16(n.ASN)), VTEP: n.Loopback, //nolint:gosec // the low 16 bits, see Attributes
			},
			Originator: n.Loopback,
		}.Encode()
		routes = append(routes, bgp.Route{EVPN: &route})
	}
	return routes
}

// listen takes what the leaf is told until ctx ends, and tells when it has come to
// know all, and when it does not any more.
func (l *leaf) listen(ctx context.Context, changed chan<- bool) error {
	whole := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case event := <-l.speaker.Events():
			paths, ok := event.(bgp.PathsChanged)
			if !ok {
				continue
			}
			l.heard.take(paths)
			if len(paths.Unicast) > 0 {
				l.speaker.Applied()
			}
		}
		if whole == l.heard.all() {
			continue
		}
		whole = !whole
		select {
		case changed <- whole:
		case <-ctx.Done():
			return nil
		}
	}
}

func (h *heard) take(paths bgp.PathsChanged) {
	for _, p := range paths.Unicast {
		switch {
		case p.Local:
		case len(p.Paths) == 0:
			delete(h.prefixes, p.Prefix)
		default:
			h.prefixes[p.Prefix] = struct{}{}
		}
	}
	for _, p := range paths.EVPN {
		if p.Gone {
			delete(h.evpn, p.Key)
		} else {
			h.evpn[p.Key] = struct{}{}
		}
	}
}

func (h *heard) all() bool { return len(h.prefixes) >= h.allPrefixes && len(h.evpn) >= h.allEVPN }
