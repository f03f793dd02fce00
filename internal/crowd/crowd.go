// Package crowd is many leafs in one process: what a spine is measured with that
// has more of them than a machine has room for (an emulation of routers, as
// RFC 7747 §4 has it). Each has a cable to the spine, and over it discovery, BFD
// and a BGP speaker of its own that tells and hears routes. Behind them is
// nothing: none of them forwards a packet.
package crowd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"frond/internal/bfd"
	"frond/internal/bgp"
	"frond/internal/bgp/native"
	"frond/internal/dataplane"
	"frond/internal/fabric"
	"frond/internal/kernel"
	"frond/internal/ra"
)

// bgpPort is where each leaf listens, on the address of its own port.
const bgpPort = 179

// Config is who is in the crowd.
type Config struct {
	Document *fabric.Fabric
	// Size is how many leafs there are: leafN is at port ethN, as a spine of
	// lab.SpineLeaf has them.
	Size       int
	Executable string // this program, to start the BFD process
	BFDSocket  string // where that answers
	// Tell is told once each: Ready, and Whole.
	Tell func(string)
}

// What Tell is told.
const (
	Ready = "ready" // all leafs can be spoken to
	Whole = "whole" // each has the routes of all others, and of the spines
)

// crowd is owned by the goroutine of Run.
type crowd struct {
	Config
	log       *slog.Logger
	leafs     map[string]*leaf // by port
	speaking  bool
	discovery *ra.Discovery
	liveness  *bfd.Client
	changed   chan bool // one more leaf has all routes, or one less
	whole     int       // how many have
	told      bool      // that all have
}

// Run is the crowd until ctx ends. Its ports must be up.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	leafs, err := newLeafs(cfg.Document, cfg.Size)
	if err != nil {
		return err
	}
	c := &crowd{
		Config: cfg, log: log, leafs: leafs,
		discovery: ra.New(log),
		liveness:  bfd.NewClient(cfg.BFDSocket, bfd.Start(cfg.Executable, cfg.BFDSocket, nil), log),
		changed:   make(chan bool),
	}
	k, err := kernel.New(log)
	if err != nil {
		return fmt.Errorf("open the kernel: %w", err)
	}
	defer func() { _ = k.Close() }()
	group, ctx := errgroup.WithContext(ctx)
	links, err := k.Watch(ctx)
	if err != nil {
		return err
	}
	group.Go(func() error { return c.discovery.Run(ctx) })
	group.Go(func() error { return c.liveness.Run(ctx) })
	group.Go(func() error { return c.run(ctx, group, links) })
	return group.Wait()
}

func (c *crowd) run(ctx context.Context, group *errgroup.Group, links <-chan dataplane.Event) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, ok := <-links:
			if !ok {
				return deaf(ctx)
			}
			if changed, ok := event.(dataplane.LinksChanged); ok && !c.speaking {
				c.begin(ctx, group, changed.Links)
			}
		case n := <-c.discovery.Events():
			c.meet(n)
		case <-c.liveness.Events():
		case whole := <-c.changed:
			c.count(whole)
		}
	}
}

// deaf is the error of no longer hearing the kernel, unless all is over anyway.
func deaf(ctx context.Context) error {
	if ctx.Err() != nil {
		return nil
	}
	return errors.New("the kernel no longer tells of its links")
}

// begin has all leafs speak, once all ports can.
func (c *crowd) begin(ctx context.Context, group *errgroup.Group, links map[string]dataplane.Link) {
	var ports []ra.Port
	for name, l := range c.leafs {
		link := links[name]
		if !link.Carrier || !link.LinkLocal.IsValid() {
			return
		}
		mac, _ := net.ParseMAC(link.MAC) // a port without one sends none
		ports = append(ports, ra.Port{Name: name, Index: link.Index, Addr: link.LinkLocal, MAC: mac})
		l.speaker = native.New(netip.AddrPortFrom(link.LinkLocal.WithZone(name), bgpPort), c.log)
	}
	for _, l := range c.leafs {
		group.Go(func() error { return l.speaker.Run(ctx) })
		group.Go(func() error { return l.listen(ctx, c.changed) })
		c.speak(l)
	}
	c.speaking = true
	c.discovery.SetPorts(ports)
	c.Tell(Ready)
}

// meet gives a leaf the spine that is at the other end of its cable, or takes it away.
func (c *crowd) meet(n ra.Neighbors) {
	l, ok := c.leafs[n.Port]
	if !ok {
		return
	}
	l.spine = nil
	if len(n.Neighbors) > 0 {
		l.spine = []dataplane.NextHop{{Port: n.Port, Via: n.Neighbors[0].Addr}}
	}
	c.speak(l)
	watched := []bfd.Session{}
	for _, l := range c.leafs {
		for _, leg := range l.spine {
			watched = append(watched, bfd.Session{Port: leg.Port, Peer: leg.Via, Interval: l.plan.BFD.Interval, Multiplier: l.plan.BFD.Multiplier})
		}
	}
	c.liveness.Set(watched)
}

func (c *crowd) speak(l *leaf) {
	d := l.plan.BGP(l.plan.Peers(l.spine), bgp.GracefulRestart{})
	d.Routes = append(d.Routes, l.floods...)
	if err := l.speaker.Set(d); err != nil {
		c.log.Error("a leaf does not speak", "leaf", l.plan.Node.Name, "error", err)
	}
}

// count notes that one more leaf has all routes, or one less.
func (c *crowd) count(whole bool) {
	if !whole {
		c.whole--
		return
	}
	c.whole++
	if c.whole == len(c.leafs) && !c.told {
		c.told = true
		c.Tell(Whole)
	}
}
