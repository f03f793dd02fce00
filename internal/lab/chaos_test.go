package lab

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"frond/internal/api"
	"frond/internal/status"
)

var (
	chaosDuration = flag.Duration("chaos.duration", 40*time.Second, "how long faults go on")
	chaosSeed     = flag.Uint64("chaos.seed", 0, "which faults come, in which order; 0: others each time")
)

// wholeFor is how long the store's majority and the fabric have to be whole
// until a gateway must be somewhere.
const wholeFor = 5 * time.Second

// chaos breaks nodes at random, at most one at a time for good and others only
// for a moment, and holds the fabric to two promises: a gateway is never on two
// nodes, and it is on one when all has been well for wholeFor.
type chaos struct {
	*world
	random *rand.Rand
	holder *holders
	broken map[string]fault // by node
	count  map[string]int   // of faults
	log    []string
}

// TestChaos is replayed by -chaos.seed; make chaos runs it for as long as wanted.
func TestChaos(t *testing.T) {
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-chaos.seed=%d", seed)
	w := electedWorld(t, "chaos", SpineLeaf(2, 4), 4)
	c := &chaos{
		world: w, random: rand.New(rand.NewPCG(seed, seed)),
		holder: w.watchHolders(electedAddress), broken: make(map[string]fault), count: make(map[string]int),
	}
	w.steady()
	c.holder.one(t, 20*time.Second)
	for end := time.Now().Add(*chaosDuration); time.Now().Before(end) && !t.Failed(); {
		c.step()
	}
	c.mendAll()
	t.Logf("faults: %v; %d hand-overs, %d looks", c.count, c.holder.handovers(), c.holder.looks)
	if t.Failed() {
		t.Log(strings.Join(c.log, "\n"))
	}
}

// step breaks something or mends it, waits, and checks.
func (c *chaos) step() {
	names := make([]string, 0, len(c.Topology.Nodes))
	for _, n := range c.Topology.Nodes {
		names = append(names, n.Name)
	}
	node := names[c.random.IntN(len(names))]
	// Half of the faults befall who has the gateway.
	if now, _ := c.holder.state(); len(now) == 1 && c.random.IntN(2) == 0 {
		node = now[0]
	}
	if f, is := c.broken[node]; is {
		c.note("mend", f.name, node)
		delete(c.broken, node)
		f.undo(c.world, node)
	} else if len(c.broken) < 2 {
		f := c.pick()
		c.note("fault", f.name, node)
		c.count[f.name]++
		f.do(c.world, node)
		if f.undo != nil {
			c.broken[node] = f
		}
	}
	c.pause(time.Duration(c.random.IntN(2500)) * time.Millisecond)
	if c.random.IntN(4) == 0 {
		c.mendAll()
	}
}

func (c *chaos) pick() fault {
	all := slices.Concat(faults, clockFaults, []fault{{name: "loaded", do: loaded}})
	return all[c.random.IntN(len(all))]
}

// mendAll makes everything whole, and wants the gateway to be somewhere.
func (c *chaos) mendAll() {
	c.t.Helper()
	for _, n := range c.Topology.Nodes {
		if f, is := c.broken[n.Name]; is {
			c.note("mend", f.name, n.Name)
			f.undo(c.world, n.Name)
			delete(c.broken, n.Name)
		}
	}
	c.wholeForLong()
	now, since := c.holder.state()
	if len(now) != 1 {
		c.t.Errorf("all has been whole for %s, and the gateway is on %q for %s", wholeFor, now, time.Since(since).Round(time.Millisecond))
		return
	}
	c.answered(now[0])
}

// answered asks by ARP on all guests: they are told of the holder, and of
// nobody else.
func (c *chaos) answered(holder string) {
	c.t.Helper()
	_, link, _ := strings.Cut(c.inside(holder, "ip -oneline link show br-blue"), "link/ether ")
	mac, _, _ := strings.Cut(link, " ")
	for _, g := range c.Topology.Guests {
		if macs := c.arpAnswers(g.Name, electedAddress); !slices.Equal(macs, []string{mac}) {
			c.t.Errorf("%s is told that the gateway is at %v, and it is at %s on %s", g.Name, macs, mac, holder)
		}
	}
}

// wholeForLong waits until the store and the fabric have been whole for
// wholeFor without a break: on a machine that is busy with other things, the
// store may lose its leader though nothing was broken.
func (c *chaos) wholeForLong() {
	c.t.Helper()
	limit, since, last := time.Now().Add(time.Minute), time.Now(), ""
	for time.Since(since) < wholeFor {
		c.pause(wholeFor / 20)
		if missing := c.missing(); missing != "" {
			since, last = time.Now(), missing
		}
		if time.Now().After(limit) {
			c.t.Fatalf("nothing is broken, and the fabric is never whole for %s: %s", wholeFor, last)
		}
	}
}

// missing is what keeps the store or the fabric from being whole.
func (c *chaos) missing() string {
	for _, n := range c.Topology.Nodes {
		s, err := api.NewClient(c.Socket(n.Name)).Status(c.t.Context())
		switch {
		case err != nil:
			return fmt.Sprintf("%s: %v", n.Name, err)
		case !s.Ready:
			return n.Name + " is not ready"
		}
		for _, c := range s.Conditions {
			if c.Severity == status.Failure && !strings.HasPrefix(c.Name, "gateway-") {
				return n.Name + ": " + c.Text
			}
		}
	}
	return ""
}

// pause lets time pass, and ends the test as soon as a promise is broken.
func (c *chaos) pause(span time.Duration) {
	c.t.Helper()
	for end := time.Now().Add(span); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		c.holder.mu.Lock()
		twice := slices.Clone(c.holder.twice)
		c.holder.mu.Unlock()
		if len(twice) > 0 {
			c.t.Log(strings.Join(c.log, "\n"))
			c.t.Fatal("two at once: " + twice[0])
		}
	}
}

func (c *chaos) note(what ...string) {
	c.log = append(c.log, time.Now().Format("15:04:05.000 ")+strings.Join(what, " "))
}

// loaded keeps all processors busy for a while.
func loaded(w *world, _ string) {
	for range 4 {
		busy := exec.Command("timeout", "3", "sh", "-c", "while :; do :; done")
		must(w.t, busy.Start())
		w.t.Cleanup(func() { _ = busy.Wait() })
	}
}
