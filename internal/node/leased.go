package node

import (
	"context"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"frond/internal/dataplane"
	"frond/internal/gateway"
	"frond/internal/kernel"
)

// leaser is what is used of kernel.Kernel for addresses with a lifetime.
type leaser interface {
	SetLeased(ctx context.Context, known []dataplane.BridgeAddress, wanted []kernel.LeasedAddress, clock func() time.Duration) error
	Announce([]dataplane.BridgeAddress) error
}

// leasedGateways puts the elected gateways that this node holds into the
// kernel, and tells the loop which those are. It is gateway.Addresses. The
// kernel is not waited for by anybody but the gateways themselves.
type leasedGateways struct {
	kernel  leaser
	log     *slog.Logger
	changed chan struct{} // Held is another than before

	mu          sync.Mutex
	segments    map[string]dataplane.Segment // those with an elected gateway, by name
	former      map[dataplane.BridgeAddress]struct{}
	held        map[string]uint32 // terms; replaced, never changed
	unannounced map[string]bool
}

func newLeasedGateways(k leaser, log *slog.Logger) *leasedGateways {
	return &leasedGateways{
		kernel: k, log: log, changed: make(chan struct{}, 1),
		segments: make(map[string]dataplane.Segment), former: make(map[dataplane.BridgeAddress]struct{}),
		held: make(map[string]uint32), unannounced: make(map[string]bool),
	}
}

// SetSegments sets the segments that this node takes part in.
func (g *leasedGateways) SetSegments(segments []dataplane.Segment) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.segments {
		for _, a := range addressesOf(s) {
			g.former[a] = struct{}{}
		}
	}
	clear(g.segments)
	for _, s := range segments {
		if s.Gateway.Elected {
			g.segments[s.Name] = s
		}
	}
}

func addressesOf(s dataplane.Segment) []dataplane.BridgeAddress {
	var all []dataplane.BridgeAddress
	for _, p := range s.Gateway.Addresses() {
		all = append(all, dataplane.BridgeAddress{Bridge: s.Bridge, Prefix: p})
	}
	return all
}

// Set implements gateway.Addresses.
func (g *leasedGateways) Set(ctx context.Context, holdings []gateway.Holding) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	held := make(map[string]uint32, len(holdings))
	var wanted []kernel.LeasedAddress
	for _, h := range holdings {
		segment, here := g.segments[h.Segment]
		if !here {
			continue
		}
		held[h.Segment] = sequence(h.Term)
		for _, a := range addressesOf(segment) {
			wanted = append(wanted, kernel.LeasedAddress{BridgeAddress: a, Lifetime: h.Lifetime, Before: h.Before})
		}
	}
	err := g.kernel.SetLeased(ctx, g.known(), wanted, gateway.Boottime)
	for name := range held {
		if _, before := g.held[name]; !before {
			g.unannounced[name] = true
		}
	}
	if !maps.Equal(held, g.held) {
		g.logChange(held)
		g.held = held
		select {
		case g.changed <- struct{}{}:
		default:
		}
	}
	if err == nil {
		clear(g.former)
		g.announce(held)
	}
	return err
}

// logChange says which gateways have come and which have gone.
func (g *leasedGateways) logChange(held map[string]uint32) {
	for _, segment := range slices.Sorted(maps.Keys(held)) {
		if _, before := g.held[segment]; !before {
			g.log.Info("elected gateway has come here", "segment", segment, "term", held[segment])
		}
	}
	for _, segment := range slices.Sorted(maps.Keys(g.held)) {
		if _, still := held[segment]; !still {
			g.log.Info("elected gateway has gone from here", "segment", segment, "term", g.held[segment])
		}
	}
}

// known are all addresses that may be there by an earlier call or run.
func (g *leasedGateways) known() []dataplane.BridgeAddress {
	all := slices.Collect(maps.Keys(g.former))
	for _, s := range g.segments {
		all = append(all, addressesOf(s)...)
	}
	return all
}

// announce tells the segments of gateways that have just come.
func (g *leasedGateways) announce(held map[string]uint32) {
	var addresses []dataplane.BridgeAddress
	for name := range g.unannounced {
		if _, here := held[name]; here {
			addresses = append(addresses, addressesOf(g.segments[name])...)
		}
	}
	clear(g.unannounced)
	if len(addresses) == 0 {
		return
	}
	if err := g.kernel.Announce(addresses); err != nil {
		g.log.Warn("a gateway that has come is not announced to its guests, they find it by their next question", "error", err)
	}
}

// sequence is the sequence number of EVPN that stands for a term.
func sequence(term uint64) uint32 { return uint32(min(max(term, 1), math.MaxUint32)) }

// Held are the terms of the gateways that this node holds, by segment. They
// are not to be changed.
func (g *leasedGateways) Held() map[string]uint32 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.held
}

// Changed delivers after Held has become another.
func (g *leasedGateways) Changed() <-chan struct{} { return g.changed }
