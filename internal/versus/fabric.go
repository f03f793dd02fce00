package versus

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"frond/internal/fabric"
	"frond/internal/lab"
	"frond/internal/netns"
	"frond/internal/probe"
)

// Spec is a fabric of spines and leafs.
type Spec struct {
	Spines, Leafs int
	Guests        int // on one segment, spread over the leafs
	// Behind is how many prefixes the node far can announce, which is cabled to
	// the last leaf; 0: there is none. Far is FRR's in every fabric.
	Behind int
	// Elected: the segment has a gateway that one node has at a time.
	Elected bool
	// MACs is how many may be behind one guest's port; 0: as is the default.
	MACs int
	// BFD is the interval of which three may be missing; 0: as is the default.
	BFD time.Duration
	// Crowd: the leafs are one process on the node leafs, see internal/crowd.
	Crowd bool
}

// far is the node beyond the last leaf.
const far = "far"

// Contender is a way to bring up a fabric.
type Contender struct {
	Name string
	lab  string // name of its lab
	// runs makes what runs on its nodes, and prepares these for it.
	runs func(ctx context.Context, f *Fabric) (daemons, error)
}

// daemons are what makes nodes routers.
type daemons interface {
	start(ctx context.Context, node string) error
	// kill ends what speaks BGP on a node and what tells the kernel of it (SIGKILL).
	kill(ctx context.Context, node string) error
	close() error
}

// Fabric is a lab that a contender's daemons run in.
type Fabric struct {
	*lab.Lab
	spec   Spec
	doc    *fabric.Fabric
	runs   daemons
	feeder *frr // of far
	crowd  *crowd
	spaces map[string]*netns.NS
	guests []lab.Guest
	turn   int // how often something was measured, where it matters
}

// make makes the machines, with cables but without daemons and guests.
func (c Contender) make(ctx context.Context, binary string, s Spec) (_ *Fabric, err error) {
	topology := lab.SpineLeaf(s.Spines, s.Leafs)
	lastLeaf := topology.Nodes[len(topology.Nodes)-1].Name
	if s.Behind > 0 {
		topology.Nodes = append(topology.Nodes, lab.Node{Name: far, Role: fabric.Spine})
		topology.Cables = append(topology.Cables, lab.Cable{
			ID: len(topology.Cables) + 1,
			A:  lab.End{Node: lastLeaf, Port: fmt.Sprintf("eth%d", s.Spines+1)}, B: lab.End{Node: far, Port: "eth1"},
		})
	}
	text := string(lab.WithSegment(lab.Document(c.lab, topology), topology, false))
	if s.Crowd {
		topology, text = crowded(c.lab, topology)
	}
	if s.Behind > 0 {
		// More prefixes than a document can name, of a router that is not frond's.
		text += "guard: {routes: false}\n"
	}
	if s.BFD > 0 {
		text = strings.Replace(text, "nodes:\n", fmt.Sprintf("  bfd: {interval: %s, multiplier: 3}\nnodes:\n", s.BFD), 1)
	}
	if s.Elected {
		text = strings.Replace(text, "{vni: 100,", fmt.Sprintf("{vni: 100, gateway: {address: %s, mode: elected},", gatewayAddress), 1)
	}
	if s.MACs > 0 {
		text = strings.Replace(text, "{vni: 100,", fmt.Sprintf("{vni: 100, mac_limit: %d,", s.MACs), 1)
	}
	l, err := lab.Up(ctx, lab.Lab{Name: c.lab, Topology: topology, Taps: true}, lab.Source{Content: []byte(text)}, func(string, int, int) {})
	if err != nil {
		return nil, err
	}
	l.Binary = binary
	f := &Fabric{Lab: l, spec: s, spaces: make(map[string]*netns.NS)}
	defer func() {
		if err != nil {
			_ = f.down(context.WithoutCancel(ctx))
		}
	}()
	if f.doc, err = l.Fabric(); err != nil {
		return nil, err
	}
	if f.guests, err = lab.Guests(f.doc, s.Guests); err != nil {
		return nil, err
	}
	if f.runs, err = c.runs(ctx, f); err != nil {
		return nil, err
	}
	if s.Behind > 0 {
		if err := f.makeFar(); err != nil {
			return nil, err
		}
	}
	// Ports have their link-local addresses (RFC 4862 §5.4) and the kernel has
	// taken down what was removed before.
	return f, wait(ctx, 2*time.Second)
}

// own are the nodes that the contender's daemons are on.
func (f *Fabric) own() []fabric.Node {
	return slices.DeleteFunc(slices.Clone(f.doc.Nodes), func(n fabric.Node) bool {
		return n.Name == far || n.Name == crowdNode || f.spec.Crowd && n.Role == fabric.Leaf
	})
}

// start starts the daemons of all nodes at once.
func (f *Fabric) start(ctx context.Context) error {
	var starting errgroup.Group
	for _, n := range f.Topology.Nodes {
		starting.Go(func() error { return f.startNode(ctx, n.Name) })
	}
	return starting.Wait()
}

// startNode starts the daemons of one.
func (f *Fabric) startNode(ctx context.Context, node string) error {
	if node == far {
		return f.feeder.start(ctx, far)
	}
	return f.runs.start(ctx, node)
}

// addGuests makes the guests.
func (f *Fabric) addGuests(ctx context.Context) error {
	for _, g := range f.guests {
		if err := f.AddGuest(ctx, g); err != nil {
			return err
		}
		// A guest asks for a MAC until it is told it, and not once per second.
		if err := f.sysctl(g.Name, map[string]string{"net/ipv4/neigh/eth0/retrans_time_ms": "20"}); err != nil {
			return err
		}
	}
	return nil
}

// watchTime is how long daemons have from being whole until BFD watches the cables.
const watchTime = 2 * time.Second

// bring brings it up and waits until it is whole and guests reach each other.
func (f *Fabric) bring(ctx context.Context) error {
	if err := f.start(ctx); err != nil {
		return err
	}
	if err := f.addGuests(ctx); err != nil {
		return err
	}
	if whole, err := f.whole(ctx, atFirst); err != nil || !whole {
		return fmt.Errorf("%s is not whole after %s: %w", f.Name, atFirst, err)
	}
	if err := f.guestsReach(ctx); err != nil {
		return err
	}
	return wait(ctx, watchTime)
}

// whole waits until all routes are as the cables give them, and tells whether
// they are in time.
func (f *Fabric) whole(ctx context.Context, timeout time.Duration) (bool, error) {
	wrong, err := f.AwaitRoutes(ctx, timeout)
	return len(wrong) == 0, err
}

// guestsReach waits until every guest has had an answer from every other.
func (f *Fabric) guestsReach(ctx context.Context) error {
	var hosts []probe.Host
	for _, g := range f.guests {
		h, err := f.host(g.Name)
		if err != nil {
			return err
		}
		hosts = append(hosts, h)
	}
	missing := 0
	for deadline := time.Now().Add(atFirst); time.Now().Before(deadline); {
		round, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		missing = 0
		for _, r := range probe.Reach(round, hosts) {
			if !r.Answered {
				missing++
			}
		}
		cancel()
		if missing == 0 {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return fmt.Errorf("%d pairs of guests of %s do not reach each other", missing, f.Name)
}

// host is where a node or a guest sends and receives: a node by its loopback.
func (f *Fabric) host(name string) (probe.Host, error) {
	ns, err := f.space(name)
	if err != nil {
		return probe.Host{}, err
	}
	if g, err := f.Guest(name); err == nil {
		return probe.Host{Name: name, NS: ns, Addr: g.Address.Addr()}, nil
	}
	n, err := f.doc.Find(name)
	return probe.Host{Name: name, NS: ns, Addr: n.Loopback}, err
}

// space is the namespace of a node or a guest, open as long as the fabric is there.
func (f *Fabric) space(name string) (*netns.NS, error) {
	if ns, ok := f.spaces[name]; ok {
		return ns, nil
	}
	ns, err := f.Host(name)
	if err == nil {
		f.spaces[name] = ns
	}
	return ns, err
}

// run runs a command on a node or a guest.
func (f *Fabric) run(host, command string, args ...string) error {
	return f.feed(host, "", command, args...)
}

// feed is run with a standard input.
func (f *Fabric) feed(host, input, command string, args ...string) error {
	ns, err := f.Host(host)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	return ns.Do(func() error {
		cmd := exec.Command(command, args...)
		cmd.Stdin = strings.NewReader(input)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s %s on %s: %w: %s", command, strings.Join(args, " "), host, err, out)
		}
		return nil
	})
}

// sysctl sets values below /proc/sys on a node or a guest; those that only the
// initial namespace has are left out.
func (f *Fabric) sysctl(host string, values map[string]string) error {
	ns, err := f.Host(host)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	return ns.Do(func() error {
		for path, value := range values {
			if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0); err != nil && !os.IsNotExist(err) {
				return fmt.Errorf("set %s on %s: %w", path, host, err)
			}
		}
		return nil
	})
}

// down removes it; there may be none.
func (f *Fabric) down(ctx context.Context) error {
	if f == nil {
		return nil
	}
	for name, ns := range f.spaces {
		_ = ns.Close()
		delete(f.spaces, name)
	}
	f.crowd.close()
	_, err := lab.Down(ctx, f.Name)
	if f.runs != nil && err == nil {
		err = f.runs.close()
	}
	if f.feeder != nil && err == nil {
		err = f.feeder.close()
	}
	return err
}

// Frond is this project's.
func Frond() Contender {
	return Contender{
		Name: "frond", lab: "versusfrond",
		runs: func(_ context.Context, f *Fabric) (daemons, error) { return agents{f.Lab}, nil },
	}
}

// agents are frond's.
type agents struct{ lab *lab.Lab }

func (a agents) start(_ context.Context, node string) error  { return a.lab.Start(node) }
func (a agents) kill(ctx context.Context, node string) error { return a.lab.Kill(ctx, node) }
func (a agents) close() error                                { return nil }
