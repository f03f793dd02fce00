// Package ra discovers who is at the other end of a cable, by router
// advertisements (RFC 4861 §6.2) as FRR's unnumbered sessions do: a port that
// comes up sends and hears them, so both ends learn each other's link-local
// address without any being configured. The router lifetime is 0, so no
// host takes us for its default router.
package ra

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Times of discovery.
const (
	// Interval is the time between unsolicited advertisements, less up to a
	// quarter, as RFC 4861 §6.2.1 asks for jitter.
	Interval = 10 * time.Second
	// Lifetime is how long a neighbour is remembered that says nothing.
	Lifetime = 3 * Interval
	// eagerInterval separates the first few advertisements of a port.
	eagerInterval = 500 * time.Millisecond
	eagerCount    = 3
	// answerInterval bounds answers to solicitations and new neighbours
	// (MIN_DELAY_BETWEEN_RAS of RFC 4861 §10 is longer: there it spares hosts,
	// here a cable has two ends).
	answerInterval = 50 * time.Millisecond
)

// Port is an interface to discover on.
type Port struct {
	Name  string
	Index int
	Addr  netip.Addr // own link-local address, without zone
	MAC   net.HardwareAddr
}

func (p Port) equal(o Port) bool {
	return p.Name == o.Name && p.Index == o.Index && p.Addr == o.Addr && slices.Equal(p.MAC, o.MAC)
}

// Neighbors is everybody who was heard on a port, in the order in which they came.
type Neighbors struct {
	Port      string
	Neighbors []Neighbor
}

// Discovery sends and hears advertisements on a set of ports.
type Discovery struct {
	log    *slog.Logger
	set    chan []Port
	events chan Neighbors

	// What follows is owned by Run's goroutine.
	ports   map[string]*port
	heard   chan heard
	changed map[string]struct{} // ports whose neighbours are to be told
	readers sync.WaitGroup
}

// New makes a Discovery that does nothing until Run.
func New(log *slog.Logger) *Discovery {
	return &Discovery{
		log:     log,
		set:     make(chan []Port, 1),
		events:  make(chan Neighbors),
		ports:   make(map[string]*port),
		heard:   make(chan heard, 64),
		changed: make(map[string]struct{}),
	}
}

// SetPorts hands over the whole set of ports. A port that was there already
// and is unchanged goes on as it was.
func (d *Discovery) SetPorts(ports []Port) {
	for {
		select {
		case d.set <- ports:
			return
		case <-d.set: // one that was never looked at
		}
	}
}

// Events tells a port's neighbours each time they change; of several changes
// that were not taken, the last is told.
func (d *Discovery) Events() <-chan Neighbors { return d.events }

// Run discovers until ctx ends.
func (d *Discovery) Run(ctx context.Context) error {
	defer d.readers.Wait()
	defer d.closeAll()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		event, out := d.next()
		timer.Reset(d.untilWork(time.Now()))
		select {
		case <-ctx.Done():
			return nil
		case ports := <-d.set:
			d.apply(ctx, ports)
		case h := <-d.heard:
			d.take(h)
		case now := <-timer.C:
			d.work(ctx, now)
		case out <- event:
			delete(d.changed, event.Port)
		}
	}
}

// next returns an event to offer; its channel is nil while there is none.
func (d *Discovery) next() (Neighbors, chan<- Neighbors) {
	for name := range d.changed {
		n := Neighbors{Port: name}
		if p, ok := d.ports[name]; ok {
			n.Neighbors = slices.Clone(p.table)
		}
		return n, d.events
	}
	return Neighbors{}, nil
}

func (d *Discovery) apply(ctx context.Context, ports []Port) {
	wanted := make(map[string]Port, len(ports))
	for _, p := range ports {
		wanted[p.Name] = p
	}
	for name, p := range d.ports {
		if w, ok := wanted[name]; !ok || !w.equal(p.Port) {
			p.close()
			delete(d.ports, name)
			d.changed[name] = struct{}{}
		}
	}
	for name, w := range wanted {
		if _, ok := d.ports[name]; !ok {
			p := &port{Port: w}
			d.ports[name] = p
			d.advance(ctx, p, time.Now())
		}
	}
}

// untilWork tells how long nothing is due.
func (d *Discovery) untilWork(now time.Time) time.Duration {
	next := now.Add(Interval)
	for _, p := range d.ports {
		if p.due.Before(next) {
			next = p.due
		}
		if end := p.table.next(); !end.IsZero() && end.Before(next) {
			next = end
		}
	}
	return max(next.Sub(now), 0)
}

// work does what is due at a moment: opens, advertises, forgets.
func (d *Discovery) work(ctx context.Context, now time.Time) {
	for _, p := range d.ports {
		if !now.Before(p.due) {
			d.advance(ctx, p, now)
		}
		if p.table.expire(now) {
			d.changed[p.Name] = struct{}{}
		}
	}
}

// advance opens the port if that is still to be done, and advertises.
func (d *Discovery) advance(ctx context.Context, p *port, now time.Time) {
	if p.conn == nil && !d.open(ctx, p, now) {
		return
	}
	p.sent++
	p.due = now.Add(Interval - rand.N(Interval/4))
	if p.sent < eagerCount {
		p.due = now.Add(eagerInterval)
		p.solicit()
	}
	p.advertise(now)
}

// open begins to listen. While the address is tentative or the port is on
// its way out that fails, and is tried again soon.
func (d *Discovery) open(ctx context.Context, p *port, now time.Time) bool {
	if err := p.listen(); err != nil {
		if !p.complained {
			d.log.Warn("cannot discover neighbours yet", "port", p.Name, "error", err)
			p.complained = true
		}
		p.due = now.Add(eagerInterval / 10)
		return false
	}
	p.complained = false
	d.readers.Go(func() { read(ctx, p, p.conn, d.heard) })
	return true
}

// take notes what a reader heard.
func (d *Discovery) take(h heard) {
	if p := d.ports[h.port.Name]; p != h.port {
		return // that port is gone
	}
	now := time.Now()
	if h.err != nil {
		d.reopen(h, now)
		return
	}
	if h.solicitation {
		h.port.answer(now)
		return
	}
	if h.port.table.hear(h.from, now) {
		d.changed[h.port.Name] = struct{}{}
		h.port.answer(now)
	}
}

// reopen closes a port whose socket failed, to be opened again soon.
func (d *Discovery) reopen(h heard, now time.Time) {
	h.port.close()
	h.port.conn = nil
	h.port.due = now.Add(eagerInterval)
}

func (d *Discovery) closeAll() {
	for _, p := range d.ports {
		p.close()
	}
}
