package lab

import (
	"context"
	"slices"

	"frond/internal/fabric"
	"frond/internal/netns"
	"frond/internal/probe"
)

// InternetProof is what a check found of guests' way out: each guest of a
// segment with a gateway asks an address in the internet for an echo.
type InternetProof struct {
	Guests         int     `json:"guests"`
	Rounds         int     `json:"rounds"`   // guests, IPv4 and IPv6
	Answered       int     `json:"answered"` // of these
	SlowestSeconds float64 `json:"slowestSeconds"`
}

// internet has guests ask, where there is an exit that may lead out.
func (c *checker) internet(ctx context.Context) error {
	f, err := c.lab.Fabric()
	if err != nil {
		return err
	}
	for _, cable := range c.lab.Topology.Uplinks {
		if s := c.states[cable.ID]; s != (State{}) && !c.cfg.Surviving {
			c.fail("uplink %s is %s", cable, s)
		}
	}
	families := c.waysOut(f)
	if families == [2]bool{} {
		return nil
	}
	var hosts []probe.Host
	guests := 0
	for _, g := range c.lab.Topology.Guests {
		mine, err := c.outward(f, g, families)
		if err != nil {
			return err
		}
		if len(mine) == 0 {
			continue
		}
		defer func(ns *netns.NS) { _ = ns.Close() }(mine[0].NS)
		hosts = append(hosts, mine...)
		guests++
	}
	if guests == 0 {
		return nil
	}
	ns, err := c.lab.Namespace(Internet)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	asking := len(hosts)
	for _, a := range FarAway() {
		hosts = append(hosts, probe.Host{Name: Internet, NS: ns, Addr: a})
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	found := InternetProof{Guests: guests}
	for _, round := range probe.ReachSome(ctx, hosts, func(from, to int) bool { return from < asking && to >= asking }) {
		found.Rounds++
		switch {
		case round.Answered:
			found.Answered++
			found.SlowestSeconds = max(found.SlowestSeconds, round.Time.Seconds())
		case round.Err != nil:
			c.fail("guest %s cannot ask: %v", round.From.Name, round.Err)
		default:
			c.fail("%s (%s) gets no answer from the internet (%s)", round.From.Name, round.From.Addr, round.To.Addr)
		}
	}
	c.proof.Internet = &found
	return nil
}

// waysOut tells for which families an exit is to lead out, IPv4 first.
func (c *checker) waysOut(f *fabric.Fabric) (families [2]bool) {
	for _, cable := range c.lab.Topology.Uplinks {
		if c.cfg.Surviving && c.states[cable.ID] != (State{}) {
			continue
		}
		n, ok := f.Node(cable.A.Node)
		if !ok || n.Uplink == nil {
			continue
		}
		families[0] = true
		families[1] = families[1] || n.Uplink.NextHop6.IsValid()
	}
	return families
}

// outward are the addresses from which a guest is to reach the internet; none
// where its segment has no gateway. They share a namespace.
func (c *checker) outward(f *fabric.Fabric, g Guest, families [2]bool) ([]probe.Host, error) {
	i := slices.IndexFunc(f.Segments, func(s fabric.Segment) bool { return s.Name == g.Segment })
	if i < 0 || f.Segments[i].Gateway == nil {
		return nil, nil
	}
	ns, err := c.lab.Host(g.Name)
	if err != nil {
		return nil, err
	}
	var hosts []probe.Host
	if families[0] {
		hosts = append(hosts, probe.Host{Name: g.Name, NS: ns, Addr: g.Address.Addr()})
	}
	if own := address6(f.Segments[i], g); families[1] && own.IsValid() && f.Segments[i].Gateway.Address6.IsValid() {
		hosts = append(hosts, probe.Host{Name: g.Name, NS: ns, Addr: own.Addr()})
	}
	if len(hosts) == 0 {
		_ = ns.Close()
	}
	return hosts, nil
}
