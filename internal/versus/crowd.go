package versus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"frond/internal/fabric"
	"frond/internal/lab"
)

// crowdNode is where all leafs of a crowd are, see internal/crowd.
const crowdNode = "leafs"

// crowdEvents are about what one spine needs the more leafs there are, and its
// daemons alone: the leafs are one process, the same for all. All have BFD, as
// frond has by default: most of what an idle spine does is that.
func crowdEvents() (events []Event) {
	for _, n := range []int{8, 32, 128, 512} {
		title := fmt.Sprintf("a spine that joins %d leafs", n)
		events = append(events, Event{
			Name: fmt.Sprintf("crowd-%d", n), Spec: Spec{Spines: 1, Leafs: n, BFD: defaultBFD, Crowd: true}, Fresh: true, measure: join,
			Rows: []Row{
				{title + ": its start → all routes in its kernel and at all leafs", "s", Goal{Ratio: 1}},
				{title + ": its processor time until then", "s", Goal{Ratio: 1}},
				{title + ": its processor time when idle", "% of a core", Goal{Ratio: 1}},
				{title + ": memory of its daemons", "MiB", Goal{Ratio: 1.5}},
			},
		})
	}
	return events
}

// crowded has the leafs of one spine be on one node, leafN at port ethN, by a
// document that names them all.
func crowded(name string, t lab.Topology) (lab.Topology, string) {
	all := lab.Node{Name: crowdNode, Role: fabric.Leaf}
	together := lab.Topology{Nodes: []lab.Node{t.Nodes[0], all}}
	for i, c := range t.Cables {
		port := fmt.Sprintf("eth%d", i+1)
		together.Cables = append(together.Cables, lab.Cable{ID: c.ID, A: lab.End{Node: crowdNode, Port: port}, B: lab.End{Node: t.Nodes[0].Name, Port: port}})
	}
	t.Nodes = append(t.Nodes, all)
	// A segment cannot name so many one by one.
	segment := lab.Topology{Nodes: []lab.Node{{Name: `"leaf*"`, Role: fabric.Leaf}}}
	return together, string(lab.WithSegment(lab.Document(name, t), segment, false))
}

// crowd is the process that all leafs are.
type crowd struct {
	cmd    *exec.Cmd
	said   chan string // closed when it has ended
	errors strings.Builder
}

// gather starts the crowd and waits until all leafs can be spoken to.
func (f *Fabric) gather(ctx context.Context) error {
	var up strings.Builder
	for i := range f.spec.Leafs {
		fmt.Fprintf(&up, "link set eth%d up\n", i+1)
	}
	if err := f.feed(crowdNode, up.String(), "ip", "-batch", "-"); err != nil {
		return err
	}
	ns, err := f.space(crowdNode)
	if err != nil {
		return err
	}
	cmd := exec.Command(f.Binary, "lab", "crowd", "--config", f.Document(), "--size", fmt.Sprint(f.spec.Leafs), "--bfd-socket", f.Socket(crowdNode)+".bfd")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	c := &crowd{cmd: cmd, said: make(chan string, 2)}
	cmd.Stderr = &c.errors
	if err := ns.Start(cmd); err != nil {
		return fmt.Errorf("start the leafs: %w", err)
	}
	f.crowd = c
	go c.hear(out)
	said, err := c.says(ctx, atFirst)
	if err == nil && !said {
		err = fmt.Errorf("%d leafs cannot be spoken to after %s", f.spec.Leafs, atFirst)
	}
	return err
}

func (c *crowd) hear(out io.Reader) {
	defer close(c.said)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		select {
		case c.said <- lines.Text():
		default: // it says no more than two things
		}
	}
}

// says waits for what the crowd says next, and tells whether that came in time.
func (c *crowd) says(ctx context.Context, timeout time.Duration) (bool, error) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case _, ok := <-c.said:
		if !ok {
			_ = c.cmd.Wait()
			return false, fmt.Errorf("the leafs have ended: %s: %s", c.cmd.ProcessState, c.errors.String())
		}
		return true, nil
	case <-timer.C:
		return false, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// close ends the crowd; there may be none.
func (c *crowd) close() {
	if c == nil {
		return
	}
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

// join starts a spine beside its leafs and looks at it: until all have all
// routes, and then for a while when it has calmed down.
func join(ctx context.Context, f *Fabric) ([]Sample, error) {
	if err := f.gather(ctx); err != nil {
		return nil, err
	}
	return f.growing(ctx, func() (bool, error) {
		if err := f.startNode(ctx, spine); err != nil {
			return false, err
		}
		whole, err := f.crowd.says(ctx, growTime)
		if err != nil || !whole {
			return false, err
		}
		return f.knowsLeafs(ctx)
	})
}

// knowsLeafs waits until the spine's kernel has the routes to all leafs.
func (f *Fabric) knowsLeafs(ctx context.Context) (bool, error) {
	ns, err := f.space(spine)
	if err != nil {
		return false, err
	}
	missing := func() (missing bool, err error) {
		err = ns.Do(func() error {
			for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
				routes, err := netlink.RouteList(nil, family)
				if errors.Is(err, netlink.ErrDumpInterrupted) {
					missing = true // they change still
					return nil
				}
				if err != nil {
					return fmt.Errorf("read the routes of %s: %w", spine, err)
				}
				hosts := 0
				for _, r := range routes {
					if ones, bits := r.Dst.Mask.Size(); ones == bits {
						hosts++
					}
				}
				missing = missing || hosts < f.spec.Leafs
			}
			return nil
		})
		return missing, err
	}
	for deadline := time.Now().Add(atFirst); time.Now().Before(deadline); {
		if missing, err := missing(); err != nil || !missing {
			return !missing, err
		}
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return false, err
		}
	}
	return false, nil
}
