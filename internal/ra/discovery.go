// Package ra discovers who is at the other end of a cable, by router
// advertisements (RFC 4861 §6.2) as FRR's unnumbered sessions do: a port that
// comes up sends and hears them, so both ends learn each other's link-local
// address without any being configured. The router lifetime is 0, so no
// host takes us for its default router.
//
// What this package keeps is bounded whatever is heard. The kernel, though,
// makes a neighbour entry for every source of an advertisement, even with
// accept_ra=0 (ndisc_router_discovery in net/ipv6/ndisc.c), in one table for
// all namespaces. While forged sources fill it up to
// net.ipv6.neigh.default.gc_thresh3, sending fails with EINVAL on any port.
// Entries younger than 5 s are not collected, so that limit must exceed five
// seconds' worth of a flood.
package ra

import (
	"context"
	"log/slog"
	"slices"
	"sync"
)

// Neighbors is the whole of what is heard on a port.
type Neighbors struct {
	Port string
	// Neighbors are the routers on the cable, at most 4, the earliest found
	// first. One that was there before is not pushed out by others; it leaves
	// when it is silent: after Lifetime, or within seconds once somebody new
	// has appeared beside it and it does not answer when asked.
	Neighbors []Neighbor
	// Looped: our own advertisements come back, so the cable ends at this
	// very port, or something on it reflects. We are never our own neighbour.
	Looped bool
}

func (n Neighbors) empty() bool { return len(n.Neighbors) == 0 && !n.Looped }

// Discovery sends and hears advertisements on a set of ports.
type Discovery struct {
	log    *slog.Logger
	open   func(Port) (*socket, error)
	events chan Neighbors

	mu    sync.Mutex
	ports []Port              // as last set
	out   map[string]struct{} // taken out of ports since Run looked at them
	wake  chan struct{}       // there is something new in ports

	reports chan Neighbors // from speakers
}

// New makes a Discovery that does nothing until Run.
func New(log *slog.Logger) *Discovery {
	return &Discovery{
		log:     log,
		open:    openSocket,
		events:  make(chan Neighbors),
		out:     make(map[string]struct{}),
		wake:    make(chan struct{}, 1),
		reports: make(chan Neighbors),
	}
}

// SetPorts hands over the whole set of ports. One that is unchanged goes on
// as it was, or starts again if it had vanished; one that changed starts with
// no neighbours. A port whose link-local address is not known yet is left
// alone. It never blocks, and may be called at any time.
//
// Taking out a port that has no carrier and setting it again when it has one
// makes discovery after a cable was plugged as fast as can be.
func (d *Discovery) SetPorts(ports []Port) {
	d.mu.Lock()
	for _, p := range d.ports {
		if !slices.ContainsFunc(ports, func(o Port) bool { return o.Name == p.Name }) {
			d.out[p.Name] = struct{}{}
		}
	}
	d.ports = slices.Clone(ports)
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Events tells what is heard on a port each time it changes; of several
// changes that were not taken, the last. A port that is taken out or vanishes
// has no neighbours. The channel is never closed.
func (d *Discovery) Events() <-chan Neighbors { return d.events }

// Run discovers until ctx ends, and may be called once.
func (d *Discovery) Run(ctx context.Context) error {
	ports := make(map[string]*running)
	out := newOutbox()
	defer func() {
		for _, r := range ports {
			r.stop()
		}
	}()
	for {
		event, ok := out.first()
		events := d.events
		if !ok {
			events = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
			d.apply(ctx, ports, out)
		case n := <-d.reports:
			out.put(n)
		case events <- event:
			out.took()
		}
	}
}

// apply stops what is not wanted any more and starts what is not running.
func (d *Discovery) apply(ctx context.Context, ports map[string]*running, out *outbox) {
	wanted, wentOut := d.wanted()
	for name, r := range ports {
		w, ok := wanted[name]
		if _, out := wentOut[name]; ok && !out && w.Equal(r.port) && !r.ended() {
			continue
		}
		r.stop()
		delete(ports, name)
		out.put(Neighbors{Port: name})
	}
	for name, w := range wanted {
		if _, ok := ports[name]; ok {
			continue
		}
		s, err := newSpeaker(w, d.log, d.open, d.report)
		if err != nil {
			d.log.Error("cannot discover neighbours", "port", name, "error", err)
			continue
		}
		ports[name] = start(ctx, s)
	}
}

// wanted is the set of ports that discovery is possible on, and those that were
// taken out since it was last asked for, be it for a moment only.
func (d *Discovery) wanted() (wanted map[string]Port, wentOut map[string]struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	wentOut, d.out = d.out, make(map[string]struct{})
	wanted = make(map[string]Port, len(d.ports))
	for _, p := range d.ports {
		if p.Addr.IsLinkLocalUnicast() && p.Addr.Is6() && p.Index > 0 {
			p.Addr = p.Addr.WithZone("")
			wanted[p.Name] = p
		}
	}
	return wanted, wentOut
}

// report hands a speaker's news to Run, unless the speaker is to stop.
func (d *Discovery) report(ctx context.Context, n Neighbors) {
	select {
	case d.reports <- n:
	case <-ctx.Done():
	}
}

// running is a speaker's goroutine.
type running struct {
	port   Port
	cancel context.CancelFunc
	done   chan struct{}
}

func start(ctx context.Context, s *speaker) *running {
	ctx, cancel := context.WithCancel(ctx)
	r := &running{port: s.Port, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		s.run(ctx)
	}()
	return r
}

// stop ends the goroutine and waits until it has.
func (r *running) stop() {
	r.cancel()
	<-r.done
}

func (r *running) ended() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}
