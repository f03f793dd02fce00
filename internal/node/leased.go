package node

import (
	"context"
	"errors"
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
	SetLeased(ctx context.Context, known, others []dataplane.BridgeAddress, wanted []kernel.LeasedAddress, clock func() time.Duration) error
	Announce([]dataplane.Segment) error
}

// leasedGateways puts the elected gateways that this node holds into the
// kernel, and tells the loop which those are. It is gateway.Addresses. Nobody
// but the gateways themselves waits for the kernel.
type leasedGateways struct {
	kernel  leaser
	log     *slog.Logger
	changed chan struct{}                    // capacity 1: Held is another than before
	others  func() []dataplane.BridgeAddress // that are not for this election to decide about

	mu       sync.Mutex
	segments map[string]dataplane.Segment // those with an elected gateway, by name
	former   map[dataplane.BridgeAddress]struct{}
	held     map[string]uint32 // terms; replaced, never changed
}

func newLeasedGateways(k leaser, changed chan struct{}, log *slog.Logger) *leasedGateways {
	return &leasedGateways{
		kernel: k, log: log, changed: changed, others: func() []dataplane.BridgeAddress { return nil },
		segments: make(map[string]dataplane.Segment), former: make(map[dataplane.BridgeAddress]struct{}),
		held: make(map[string]uint32),
	}
}

// SetSegments sets the segments that this node takes part in.
func (g *leasedGateways) SetSegments(segments []dataplane.Segment) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, a := range addressesOfAll(g.segments) {
		g.former[a] = struct{}{}
	}
	here := make(map[string]dataplane.Segment)
	for _, s := range segments {
		if s.Gateway.Elected {
			here[s.Name] = s
		}
	}
	g.segments = here
}

func addressesOf(s dataplane.Segment) []dataplane.BridgeAddress {
	var all []dataplane.BridgeAddress
	for _, p := range s.Gateway.Addresses() {
		all = append(all, dataplane.BridgeAddress{Bridge: s.Bridge, Prefix: p})
	}
	return all
}

func addressesOfAll(segments map[string]dataplane.Segment) []dataplane.BridgeAddress {
	var all []dataplane.BridgeAddress
	for _, s := range segments {
		all = append(all, addressesOf(s)...)
	}
	return all
}

// Set implements gateway.Addresses.
func (g *leasedGateways) Set(ctx context.Context, holdings []gateway.Holding) error {
	segments, known := g.known()
	var wanted []kernel.LeasedAddress
	for _, h := range holdings {
		for _, a := range addressesOf(segments[h.Segment]) {
			wanted = append(wanted, kernel.LeasedAddress{BridgeAddress: a, Lifetime: h.Lifetime, Before: h.Before})
		}
	}
	err := g.kernel.SetLeased(ctx, known, g.others(), wanted, gateway.Boottime)
	var refused kernel.LeasesRefused
	if errors.As(err, &refused) {
		err = &gateway.NotAdded{Err: refused}
	} else if err != nil {
		return err
	}
	held := make(map[string]uint32, len(holdings))
	for _, h := range holdings {
		isRefused := func(a dataplane.BridgeAddress) bool { return refused[a] != nil }
		if segment, here := segments[h.Segment]; here && !slices.ContainsFunc(addressesOf(segment), isRefused) {
			held[h.Segment] = sequence(h.Term)
		}
	}
	var came []dataplane.Segment
	for _, name := range g.publish(held) {
		came = append(came, segments[name])
	}
	if len(came) > 0 {
		if err := g.kernel.Announce(came); err != nil {
			g.log.Warn("a gateway that has come is not announced to its guests, they find it by their next question", "error", err)
		}
	}
	return err
}

// known are the segments, which are not changed any more, and all addresses
// that may be there by an earlier call or run.
func (g *leasedGateways) known() (map[string]dataplane.Segment, []dataplane.BridgeAddress) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.segments, slices.AppendSeq(addressesOfAll(g.segments), maps.Keys(g.former))
}

// own are the addresses of the segments.
func (g *leasedGateways) own() []dataplane.BridgeAddress {
	g.mu.Lock()
	defer g.mu.Unlock()
	return addressesOfAll(g.segments)
}

// publish tells the loop what is held now, and returns what has come.
func (g *leasedGateways) publish(held map[string]uint32) (came []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.former)
	for _, segment := range slices.Sorted(maps.Keys(held)) {
		if _, before := g.held[segment]; !before {
			came = append(came, segment)
			g.log.Info("elected gateway has come here", "segment", segment, "term", held[segment])
		}
	}
	for _, segment := range slices.Sorted(maps.Keys(g.held)) {
		if _, still := held[segment]; !still {
			g.log.Info("elected gateway has gone from here", "segment", segment, "term", g.held[segment])
		}
	}
	if !maps.Equal(held, g.held) {
		g.held = held
		select {
		case g.changed <- struct{}{}:
		default:
		}
	}
	return came
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

// heldByEither are the gateways that the one election decides about and those
// that the other does. Each leaves the other's as they are.
type heldByEither struct {
	byStore, byLXD *leasedGateways
	changed        chan struct{}
}

func newHeldByEither(k leaser, log *slog.Logger) heldByEither {
	changed := make(chan struct{}, 1)
	h := heldByEither{newLeasedGateways(k, changed, log), newLeasedGateways(k, changed, log), changed}
	h.byStore.others, h.byLXD.others = h.byLXD.own, h.byStore.own
	return h
}

// SetSegments sets the segments that this node takes part in, and which of them
// are not for the store to decide about.
func (h heldByEither) SetSegments(here []dataplane.Segment, byLXD map[string]bool) {
	var other, rest []dataplane.Segment
	for _, s := range here {
		if byLXD[s.Name] {
			other = append(other, s)
		} else {
			rest = append(rest, s)
		}
	}
	h.byStore.SetSegments(rest)
	h.byLXD.SetSegments(other)
}

// Held are the terms of the gateways that this node holds, by segment.
func (h heldByEither) Held() map[string]uint32 {
	all := maps.Clone(h.byStore.Held())
	maps.Copy(all, h.byLXD.Held())
	return all
}

// Changed delivers after Held has become another.
func (h heldByEither) Changed() <-chan struct{} { return h.changed }
