package lab

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"frond/internal/fabric"
	"frond/internal/netns"
	"frond/internal/probe"
)

// Proof is what a check found, in figures. Failures name each thing that is
// not as it should be; without any the fabric is proven.
type Proof struct {
	// ConvergedSeconds is how long the check waited until all routes were as
	// the cabling says; it is negative if they never were.
	ConvergedSeconds float64 `json:"convergedSeconds"`
	Routes           int     `json:"routes"`   // compared: to each other node, IPv4 and IPv6
	NextHops         int     `json:"nextHops"` // legs that these have

	Rounds         int     `json:"rounds"`         // pairs of loopbacks, each way, IPv4 and IPv6
	Answered       int     `json:"answered"`       // of these
	SlowestSeconds float64 `json:"slowestSeconds"` // round trip

	Segments []SegmentProof `json:"segments"` // with two guests or more

	// Internet is nil where no guest has a gateway, or no exit leads out.
	Internet *InternetProof `json:"internet,omitempty"`

	// Bandwidth is nil where there are no two leafs, or an echo is missing.
	Bandwidth *Bandwidth `json:"bandwidth,omitempty"`

	Failures []string `json:"failures"`
}

// CheckConfig says how a check is made.
type CheckConfig struct {
	Timeout time.Duration // how long routes, and then echoes, may take
	// Surviving makes the cables that are neither cut nor muted the measure,
	// instead of all.
	Surviving bool
	// Duration is how long each bandwidth is measured; 0 leaves it out.
	Duration time.Duration
}

// checker holds what the parts of a check share.
type checker struct {
	lab    *Lab
	cfg    CheckConfig
	nodes  []checked
	want   map[string]map[string][]string // NextHops
	all    Topology
	states States
	proof  Proof
}

// checked is a node, its addresses and its open namespace.
type checked struct {
	fabric.Node
	ns *netns.NS
}

func (n checked) loopbacks() []netip.Addr { return []netip.Addr{n.Loopback, n.Loopback6} }

// Check proves the fabric: that the kernel of every node has all the next
// hops to every other node that the cabling gives, that every loopback
// answers every other, that segments are to guests what one cable would be,
// that guests reach the internet, and what bandwidth there is between two leafs, and between guests on them.
// The error is only about what kept it from looking.
func (l *Lab) Check(ctx context.Context, cfg CheckConfig, progress Progress) (Proof, error) {
	c := &checker{lab: l, cfg: cfg, proof: Proof{Segments: []SegmentProof{}, Failures: []string{}}}
	defer c.close()
	if err := c.open(); err != nil {
		return Proof{}, err
	}
	if err := c.routes(ctx, progress); err != nil {
		return Proof{}, err
	}
	progress("asking for echoes", 0, 1)
	c.echoes(ctx)
	if err := c.segments(ctx, progress); err != nil {
		return Proof{}, err
	}
	progress("asking the internet", 0, 1)
	if err := c.internet(ctx); err != nil {
		return Proof{}, err
	}
	// Between nodes that do not reach each other there is nothing to measure.
	if cfg.Duration > 0 && c.proof.Answered == c.proof.Rounds {
		if err := c.bandwidth(ctx, progress); err != nil {
			return Proof{}, err
		}
	}
	return c.proof, ctx.Err()
}

// AwaitRoutes waits until the kernel of every node has all the next hops to
// every other node that the cables give which are neither cut nor muted, and
// names what is wrong with them when the timeout has passed.
func (l *Lab) AwaitRoutes(ctx context.Context, timeout time.Duration) (wrong []string, err error) {
	c := &checker{lab: l, cfg: CheckConfig{Timeout: timeout, Surviving: true}}
	defer c.close()
	if err := c.open(); err != nil {
		return nil, err
	}
	err = c.routes(ctx, func(string, int, int) {})
	return c.proof.Failures, err
}

func (c *checker) open() error {
	f, err := c.lab.Fabric()
	if err != nil {
		return err
	}
	for _, n := range c.lab.Topology.Nodes {
		node, err := f.Find(n.Name)
		if err != nil {
			return err
		}
		ns, err := c.lab.Namespace(n.Name)
		if err != nil {
			return err
		}
		c.nodes = append(c.nodes, checked{Node: node, ns: ns})
	}
	if c.states, err = c.lab.States(); err != nil {
		return err
	}
	c.all = c.lab.Topology
	if c.cfg.Surviving {
		c.all = c.all.Whole(c.states)
	}
	c.want = NextHops(c.all)
	return nil
}

func (c *checker) close() {
	for _, n := range c.nodes {
		_ = n.ns.Close()
	}
}

func (c *checker) fail(format string, args ...any) {
	c.proof.Failures = append(c.proof.Failures, fmt.Sprintf(format, args...))
}

// routes waits until all tables are right, or time is up.
func (c *checker) routes(ctx context.Context, progress Progress) error {
	start := time.Now()
	deadline, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	tick := time.NewTicker(askInterval)
	defer tick.Stop()
	ask, routes := c.nodes, 0
	for {
		wrong, late, err := c.compareRoutes(ask)
		if err != nil {
			return err
		}
		routes = max(routes, c.proof.Routes)
		progress("comparing routes", routes-len(wrong), routes)
		if len(wrong) == 0 && len(ask) < len(c.nodes) {
			ask = c.nodes // what was right may not be any more
			continue
		}
		ask = late // to look into all kernels takes what these need to come about
		if len(wrong) == 0 {
			c.proof.ConvergedSeconds = time.Since(start).Seconds()
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline.Done():
			c.proof.ConvergedSeconds = -1
			c.proof.Failures = append(c.proof.Failures, wrong...)
			return ctx.Err()
		}
	}
}

// compareRoutes looks into nodes' kernels and names the routes that are wrong, and
// the nodes that have such.
func (c *checker) compareRoutes(nodes []checked) (wrong []string, late []checked, err error) {
	c.proof.Routes, c.proof.NextHops = 0, 0
	for _, from := range nodes {
		table, err := readFIB(from.ns)
		if err != nil {
			return nil, nil, err
		}
		before := len(wrong)
		for _, to := range c.nodes {
			want, reachable := c.want[from.Name][to.Name]
			if !reachable || sameAS(from.Node, to.Node) {
				continue
			}
			wrong = append(wrong, c.compareRoute(table, from, to, want)...)
		}
		if len(wrong) > before {
			late = append(late, from)
		}
	}
	return wrong, late, nil
}

// compareRoute looks at the routes to one node's loopbacks. What is wrong with
// both in the same way is told once.
func (c *checker) compareRoute(table fib, from, to checked, want []string) (wrong []string) {
	var before []string
	for _, loopback := range to.loopbacks() {
		got := table[netip.PrefixFrom(loopback, loopback.BitLen())]
		c.proof.Routes++
		c.proof.NextHops += len(got)
		if slices.Equal(got, want) {
			continue
		}
		if len(wrong) == 1 && slices.Equal(got, before) {
			wrong[0] = c.wrongRoute(from, to, "IPv4 and IPv6", got, want)
			continue
		}
		wrong = append(wrong, c.wrongRoute(from, to, loopback.String(), got, want))
		before = got
	}
	return wrong
}

// sameAS tells that two nodes refuse each other's routes, as BGP must
// (RFC 4271 §9.1.2): a design with shared numbers lives without them.
func sameAS(a, b fabric.Node) bool { return a.ASN == b.ASN }

func (c *checker) wrongRoute(from, to checked, which string, got, want []string) string {
	text := fmt.Sprintf("%s → %s (%s): %s, want %d", from.Name, to.Name, which, count(len(got), "next hop"), len(want))
	var differences []string
	for _, port := range want {
		if !slices.Contains(got, port) {
			differences = append(differences, "missing "+c.describe(End{from.Name, port}))
		}
	}
	for _, port := range got {
		if !slices.Contains(want, port) {
			differences = append(differences, "too many: "+c.describe(End{from.Name, port}))
		}
	}
	return text + "; " + strings.Join(differences, ", ")
}

// describe names a port, where it leads, and what was done to it.
func (c *checker) describe(e End) string {
	cable, ok := c.lab.Topology.cableAt(e)
	if !ok {
		return e.Port
	}
	_, far, _ := cable.At(e.Node)
	text := e.Port + " to " + far.Node
	if s := c.states[cable.ID]; s != (State{}) {
		text += ", which is " + s.String()
	}
	return text
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// echoes lets every loopback ask every other that a way leads to.
func (c *checker) echoes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	absent := map[string]bool{}
	for _, island := range c.islands() {
		for _, round := range probe.Reach(ctx, island) {
			c.proof.Rounds++
			switch {
			case round.Answered:
				c.proof.Answered++
				c.proof.SlowestSeconds = max(c.proof.SlowestSeconds, round.Time.Seconds())
			case round.Err != nil:
				if text := round.Err.Error(); !absent[text] {
					absent[text] = true
					c.fail("a loopback cannot be used: %s", text)
				}
			default:
				c.fail("%s (%s) gets no answer from %s (%s)", round.From.Name, round.From.Addr, round.To.Name, round.To.Addr)
			}
		}
	}
	if c.proof.Rounds == 0 {
		c.fail("no two nodes are cabled to each other: nothing to prove")
	}
}

// islands are the loopbacks of nodes that a way leads between, each node in
// one of them.
func (c *checker) islands() [][]probe.Host {
	var islands [][]probe.Host
	places := map[string]int{}
	for _, n := range c.nodes {
		island := c.island(n.Name)
		place, ok := places[island]
		if !ok {
			place = len(islands)
			places[island] = place
			islands = append(islands, nil)
		}
		for _, loopback := range n.loopbacks() {
			islands[place] = append(islands[place], probe.Host{Name: n.Name, NS: n.ns, Addr: loopback})
		}
	}
	return islands
}

// island is the first of the nodes that a way leads to from this one.
func (c *checker) island(node string) string {
	first := slices.IndexFunc(c.nodes, func(n checked) bool {
		_, reachable := c.want[node][n.Name]
		return reachable || n.Name == node
	})
	return c.nodes[first].Name
}
