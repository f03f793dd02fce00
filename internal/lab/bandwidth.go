package lab

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"frond/internal/fabric"
	"frond/internal/netns"
	"frond/internal/probe"
)

// Bandwidth compares TCP between two leafs with TCP over one veth pair that
// connects two namespaces directly, measured in turns.
type Bandwidth struct {
	From    string  `json:"from"`
	To      string  `json:"to"`
	Streams int     `json:"streams"`
	Fabric  float64 `json:"fabricBitsPerSecond"`
	Direct  float64 `json:"directBitsPerSecond"`
	Legs    []Leg   `json:"legs"` // which way the fabric's packets took
}

// Leg is a port and its part of what was sent, 0 to 1.
type Leg struct {
	Port  string  `json:"port"`
	Far   string  `json:"node"` // behind it
	Share float64 `json:"share"`
}

const (
	// streamsPerLeg makes it all but impossible that hashing leaves a leg out.
	streamsPerLeg = 16
	mostStreams   = 128
	// rounds of measuring one and then the other even out what else the
	// machine does.
	rounds = 2
)

// bandwidth measures between the first leaf and the last one that it reaches;
// a fabric without two such leafs is not measured.
func (c *checker) bandwidth(ctx context.Context, progress Progress) error {
	from, to, ok := c.farApart()
	if !ok {
		return nil
	}
	ports := c.want[from.Name][to.Name]
	b := &Bandwidth{From: from.Name, To: to.Name, Streams: streamsOver(ports)}
	d, err := newDirect(c.lab.Name)
	if err != nil {
		return err
	}
	defer d.close()
	before, err := sentBytes(from.ns, ports)
	if err != nil {
		return err
	}
	rates, err := c.inTurns(ctx, progress, b.Streams, d.hosts, loopbacksOf(from, to))
	if err != nil {
		c.fail("no TCP: %v", err)
		return nil
	}
	b.Direct, b.Fabric = rates[0], rates[1]
	after, err := sentBytes(from.ns, ports)
	if err != nil {
		return err
	}
	c.shares(b, ports, before, after)
	c.proof.Bandwidth = b
	return nil
}

func streamsOver(ports []string) int { return min(len(ports)*streamsPerLeg, mostStreams) }

func loopbacksOf(from, to checked) [2]probe.Host {
	return [2]probe.Host{{Name: from.Name, NS: from.ns, Addr: from.Loopback}, {Name: to.Name, NS: to.ns, Addr: to.Loopback}}
}

// inTurns measures ways from one host to another, one after the other and
// again, and returns the bit/s of each.
func (c *checker) inTurns(ctx context.Context, progress Progress, streams int, ways ...[2]probe.Host) ([]float64, error) {
	carried := make([]probe.Throughput, len(ways))
	for round := range rounds {
		progress("measuring bandwidth", round, rounds)
		for i, way := range ways {
			t, err := probe.Bandwidth(ctx, way[0], way[1], streams, c.cfg.Duration)
			if err != nil {
				return nil, fmt.Errorf("from %s to %s: %w", way[0].Name, way[1].Name, err)
			}
			carried[i].Bytes += t.Bytes
			carried[i].Elapsed += t.Elapsed
		}
	}
	rates := make([]float64, len(ways))
	for i, t := range carried {
		rates[i] = t.BitsPerSecond()
	}
	return rates, nil
}

// idle is the part of the traffic below which a leg carries none: ACKs and
// keepalives, but no stream.
const idle = 0.001

func (c *checker) shares(b *Bandwidth, ports []string, before, after map[string]uint64) {
	var total float64
	for _, p := range ports {
		total += float64(after[p] - before[p])
	}
	for _, p := range ports {
		leg := Leg{Port: p, Share: float64(after[p]-before[p]) / max(total, 1)}
		if cable, ok := c.lab.Topology.cableAt(End{b.From, p}); ok {
			_, far, _ := cable.At(b.From)
			leg.Far = far.Node
		}
		if leg.Share < idle {
			c.fail("%s carries nothing of %d streams from %s to %s", c.describe(End{b.From, p}), b.Streams, b.From, b.To)
		}
		b.Legs = append(b.Legs, leg)
	}
}

func (c *checker) farApart() (from, to checked, ok bool) {
	for _, from := range c.nodes {
		for i := range c.nodes {
			to := c.nodes[len(c.nodes)-1-i]
			bothLeafs := from.Role == fabric.Leaf && to.Role == fabric.Leaf
			if _, reachable := c.want[from.Name][to.Name]; bothLeafs && reachable && !sameAS(from.Node, to.Node) {
				return from, to, true
			}
		}
	}
	return checked{}, checked{}, false
}

func sentBytes(ns *netns.NS, ports []string) (map[string]uint64, error) {
	nl, err := handleIn(ns)
	if err != nil {
		return nil, err
	}
	defer nl.Close()
	sent := map[string]uint64{}
	for _, p := range ports {
		link, err := nl.LinkByName(p)
		if err != nil {
			return nil, fmt.Errorf("read the counters of %s in %s: %w", p, ns.Name(), err)
		}
		if s := link.Attrs().Statistics; s != nil {
			sent[p] = s.TxBytes
		}
	}
	return sent, nil
}

// direct is two namespaces and a veth pair between them, to compare with.
type direct struct{ hosts [2]probe.Host }

func newDirect(lab string) (_ *direct, err error) {
	d := &direct{}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	for i := range d.hosts {
		name := fmt.Sprintf("%s.direct%d", lab, i+1)
		// One that a check left when it was killed.
		if err := netns.Delete(name); err != nil {
			return nil, err
		}
		if err := netns.Create(name); err != nil {
			return nil, err
		}
		ns, err := netns.Open(name)
		if err != nil {
			return nil, err
		}
		d.hosts[i] = probe.Host{Name: name, NS: ns, Addr: netip.AddrFrom4([4]byte{169, 254, 0, byte(i + 1)})}
	}
	return d, d.connect()
}

func (d *direct) connect() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "direct", mtu
	attrs.Namespace = netlink.NsFd(d.hosts[0].NS.Fd())
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerMTU = "direct", mtu
	pair.PeerNamespace = netlink.NsFd(d.hosts[1].NS.Fd())
	if err := netlink.LinkAdd(pair); err != nil {
		return fmt.Errorf("lay a direct cable: %w", err)
	}
	for _, h := range d.hosts {
		if err := configure(h, "direct"); err != nil {
			return fmt.Errorf("lay a direct cable: %w", err)
		}
	}
	return nil
}

func configure(h probe.Host, port string) error {
	nl, err := handleIn(h.NS)
	if err != nil {
		return err
	}
	defer nl.Close()
	link, err := nl.LinkByName(port)
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: netlink.NewIPNet(h.Addr.AsSlice())}
	addr.IPNet.Mask = []byte{255, 255, 255, 0}
	if err := nl.AddrAdd(link, addr); err != nil {
		return err
	}
	return nl.LinkSetUp(link)
}

func (d *direct) close() {
	for _, h := range d.hosts {
		if h.NS != nil {
			_ = h.NS.Close()
			_ = netns.Delete(h.Name)
		}
	}
}
