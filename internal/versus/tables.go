package versus

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"frond/internal/probe"
)

// defaultBFD is frond's interval where a document names none.
const defaultBFD = 100 * time.Millisecond

// tableEvents are about tables that grow, and what a node costs. All have BFD
// there, as frond has by default: within the seconds that a table takes, it is a
// good part of the processor time.
func tableEvents() (events []Event) {
	for _, n := range []int{1000, 10000, 100000} {
		memory := Goal{}
		if n == 10000 {
			memory.Ratio = 1.5
		}
		events = append(events, Event{
			Name: fmt.Sprintf("prefixes-%d", n), Spec: Spec{Spines: 2, Leafs: 3, Behind: n, BFD: defaultBFD}, measure: prefixes,
			Rows: []Row{
				{fmt.Sprintf("%d prefixes, leaf → leaf's kernel", n), "s", Goal{Ratio: 1}},
				{fmt.Sprintf("%d prefixes withdrawn", n), "s", Goal{Ratio: 1}},
				{fmt.Sprintf("%d prefixes there and back: processor time, 5 nodes", n), "s", Goal{Ratio: 1}},
				{fmt.Sprintf("%d prefixes: memory of a leaf's daemons", n), "MiB", memory},
			},
		})
	}
	for _, n := range []int{10000, 50000} {
		memory := Goal{}
		if n == 10000 {
			memory.Ratio = 1.5
		}
		events = append(events, Event{
			Name: fmt.Sprintf("macs-%d", n), Spec: Spec{Spines: 2, Leafs: 3, Guests: 3, MACs: 60000, BFD: defaultBFD}, measure: macs(n),
			Rows: []Row{
				{fmt.Sprintf("%d MACs on a leaf → another's forwarding table", n), "s", Goal{Ratio: 1}},
				{fmt.Sprintf("%d MACs withdrawn", n), "s", Goal{Ratio: 1}},
				{fmt.Sprintf("%d MACs there and back: processor time, 5 nodes", n), "s", Goal{Ratio: 1}},
				{fmt.Sprintf("%d MACs: memory of a leaf's daemons", n), "MiB", memory},
			},
		})
	}
	return append(events,
		Event{
			Name: "gateway", Spec: Spec{Spines: 2, Leafs: 3, Guests: 3, Elected: true}, measure: loseGateway, rivals: Keepalived,
			Rows: []Row{
				{"the node with the gateway loses all cables: outage", "ms", Goal{Ratio: 1, Beside: "keepalived 1 s"}},
				{"the same: time in 6 s that two nodes have the gateway", "s", Goal{Set: true}},
			},
		},
		Event{
			Name: "idle", Spec: Spec{Spines: 2, Leafs: 3, Guests: 3}, measure: idle,
			Rows: []Row{
				{"idle: memory of a leaf's daemons", "MiB", Goal{Ratio: 1}},
				{"idle: memory of a spine's daemons", "MiB", Goal{Ratio: 1}},
				{"idle: processor time of 5 nodes", "% of a core", Goal{Ratio: 1}},
			},
		},
		Event{
			Name: "idle-bfd", Spec: Spec{Spines: 2, Leafs: 3, Guests: 3, BFD: defaultBFD}, measure: idle,
			Rows: []Row{
				{"idle, BFD 100 ms × 3 for all: memory of a leaf's daemons", "MiB", Goal{Ratio: 1}},
				{"idle, BFD 100 ms × 3 for all: memory of a spine's daemons", "MiB", Goal{Ratio: 1}},
				{"idle, BFD 100 ms × 3 for all: processor time of 5 nodes", "% of a core", Goal{Ratio: 1}},
			},
		})
}

// shareOfUplinks sends 64 flows from one leaf's guest to another's.
func shareOfUplinks(ctx context.Context, f *Fabric) ([]Sample, error) {
	pairs, err := f.between("g1", "g3")
	if err != nil {
		return nil, err
	}
	leaf, err := f.space("leaf1")
	if err != nil {
		return nil, err
	}
	sent := func() (bytes [2]float64, err error) {
		err = leaf.Do(func() error {
			for i, port := range []string{"eth1", "eth2"} {
				link, err := netlink.LinkByName(port)
				if err != nil {
					return err
				}
				bytes[i] = float64(link.Attrs().Statistics.TxBytes)
			}
			return nil
		})
		return bytes, err
	}
	before, err := sent()
	if err != nil {
		return nil, err
	}
	p, err := probe.Start(ctx, probe.Config{
		From: pairs[0][0].NS, To: pairs[0][1].NS, FromAddr: pairs[0][0].Addr, ToAddr: pairs[0][1].Addr, Flows: 64, Rate: 200,
	})
	if err != nil {
		return nil, err
	}
	err = wait(ctx, time.Second)
	p.Stop()
	if err != nil {
		return nil, err
	}
	after, err := sent()
	if err != nil {
		return nil, err
	}
	first, second := after[0]-before[0], after[1]-before[1]
	return []Sample{{Value: 100 * min(first, second) / (first + second)}}, nil
}

// observed is the leaf whose tables are looked at.
const observed = "leaf1"

// tableTime is how long a table may take.
const tableTime = 2 * time.Minute

// prefixes has far announce what is behind the last leaf, and withdraw it. The
// time that far itself takes is part of it, the same for all.
func prefixes(ctx context.Context, f *Fabric) ([]Sample, error) {
	before, err := f.processorTime()
	if err != nil {
		return nil, err
	}
	change := func(announce bool, kind uint16) (Sample, error) {
		heard, err := f.hearRoutes(ctx, kind, f.spec.Behind)
		if err != nil {
			return Sample{}, err
		}
		began := time.Now()
		if err := f.announceAll(announce); err != nil {
			return Sample{}, err
		}
		return heard(began)
	}
	there, err := change(true, unix.RTM_NEWROUTE)
	if err != nil {
		return nil, err
	}
	memory, err := f.memory(observed)
	if err != nil {
		return nil, err
	}
	if err := f.prefixesEverywhere(ctx); err != nil {
		return nil, err
	}
	gone, err := change(false, unix.RTM_DELROUTE)
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, 2*time.Second); err != nil { // for what still goes on elsewhere
		return nil, err
	}
	after, err := f.processorTime()
	return []Sample{there, gone, {Value: after - before}, {Value: memory}}, err
}

// macs has a bridge of one leaf learn n MACs behind a guest's port, which then
// leaves the bridge.
func macs(n int) func(context.Context, *Fabric) ([]Sample, error) {
	return func(ctx context.Context, f *Fabric) ([]Sample, error) {
		source, guest := f.lastLeaf(), fmt.Sprintf("g%d", f.spec.Leafs)
		before, err := f.processorTime()
		if err != nil {
			return nil, err
		}
		var batch strings.Builder
		for i := range n {
			fmt.Fprintf(&batch, "fdb add 02:68:00:%02x:%02x:%02x dev v%s master dynamic\n", i>>16, i>>8&0xff, i&0xff, guest)
		}
		heard, err := f.hearMACs(ctx, unix.RTM_NEWNEIGH, n)
		if err != nil {
			return nil, err
		}
		began := time.Now()
		if err := f.feed(source, batch.String(), "bridge", "-batch", "-"); err != nil {
			return nil, err
		}
		there, err := heard(began)
		if err != nil {
			return nil, err
		}
		memory, err := f.memory(observed)
		if err != nil {
			return nil, err
		}
		if heard, err = f.hearMACs(ctx, unix.RTM_DELNEIGH, n); err != nil {
			return nil, err
		}
		began = time.Now()
		if err := f.run(source, "ip", "link", "set", "v"+guest, "nomaster"); err != nil {
			return nil, err
		}
		gone, err := heard(began)
		if err != nil {
			return nil, err
		}
		if err := f.run(source, "ip", "link", "set", "v"+guest, "master", f.doc.Segments[0].Bridge); err != nil {
			return nil, err
		}
		if err := f.guestsReach(ctx); err != nil {
			return nil, err
		}
		if err := wait(ctx, 2*time.Second); err != nil {
			return nil, err
		}
		after, err := f.processorTime()
		return []Sample{there, gone, {Value: after - before}, {Value: memory}}, err
	}
}

// largeBuffer keeps what a kernel tells of a large table.
const largeBuffer = 256 << 20

// hearRoutes listens to the observed leaf's kernel until it has told of so many
// prefixes of those behind, and gives the time since began then.
func (f *Fabric) hearRoutes(ctx context.Context, kind uint16, n int) (func(began time.Time) (Sample, error), error) {
	ns, err := f.space(observed)
	if err != nil {
		return nil, err
	}
	space := vns.NsHandle(ns.Fd())
	updates, done := make(chan netlink.RouteUpdate, 4096), make(chan struct{})
	err = netlink.RouteSubscribeWithOptions(updates, done, netlink.RouteSubscribeOptions{
		Namespace: &space, ReceiveBufferSize: largeBuffer, ReceiveBufferForceSize: true,
	})
	if err != nil {
		return nil, fmt.Errorf("listen to the routes of %s: %w", observed, err)
	}
	return hear(ctx, updates, done, n, func(u netlink.RouteUpdate) (string, bool) {
		if u.Type != kind || u.Dst == nil || u.Table != unix.RT_TABLE_MAIN {
			return "", false
		}
		four := u.Dst.IP.To4()
		return string(four), four != nil && four[0] >= 20 && four[0] < 24
	}), nil
}

// hearMACs is hearRoutes for MACs that are sent to another node.
func (f *Fabric) hearMACs(ctx context.Context, kind uint16, n int) (func(began time.Time) (Sample, error), error) {
	ns, err := f.space(observed)
	if err != nil {
		return nil, err
	}
	space := vns.NsHandle(ns.Fd())
	updates, done := make(chan netlink.NeighUpdate, 4096), make(chan struct{})
	err = netlink.NeighSubscribeWithOptions(updates, done, netlink.NeighSubscribeOptions{
		Namespace: &space, ReceiveBufferSize: largeBuffer, ReceiveBufferForceSize: true,
	})
	if err != nil {
		return nil, fmt.Errorf("listen to the MACs of %s: %w", observed, err)
	}
	return hear(ctx, updates, done, n, func(u netlink.NeighUpdate) (string, bool) {
		mac := string(u.HardwareAddr)
		return mac, u.Type == kind && u.Family == unix.AF_BRIDGE && u.Flags&unix.NTF_SELF != 0 && strings.HasPrefix(mac, "\x02\x68\x00")
	}), nil
}

// hear counts what is new until there are n of it.
func hear[U any](ctx context.Context, updates <-chan U, done chan struct{}, n int, key func(U) (string, bool)) func(time.Time) (Sample, error) {
	last := make(chan time.Time, 1)
	go func() {
		seen := make(map[string]struct{}, n)
		for u := range updates { // ends after done is closed
			if k, ok := key(u); ok {
				seen[k] = struct{}{}
			}
			if len(seen) == n {
				select {
				case last <- time.Now():
				default:
				}
			}
		}
	}()
	return func(began time.Time) (Sample, error) {
		defer close(done)
		timer := time.NewTimer(tableTime)
		defer timer.Stop()
		select {
		case at := <-last:
			return seconds(at.Sub(began)), nil
		case <-timer.C:
			return Sample{Value: tableTime.Seconds(), Exceeded: true}, nil
		case <-ctx.Done():
			return Sample{}, ctx.Err()
		}
	}
}

// prefixesEverywhere waits until the kernels of all nodes have the prefixes
// behind the last leaf, and for a moment more, for their other legs.
func (f *Fabric) prefixesEverywhere(ctx context.Context) error {
	deadline := time.Now().Add(atFirst)
	for _, n := range f.own() {
		ns, err := f.space(n.Name)
		if err != nil {
			return err
		}
		for have := 0; have < f.spec.Behind; {
			err := ns.Do(func() error {
				routes, err := netlink.RouteList(nil, netlink.FAMILY_V4)
				have = len(routes)
				return err
			})
			if err != nil {
				return fmt.Errorf("read the routes of %s: %w", n.Name, err)
			}
			if have < f.spec.Behind && time.Now().After(deadline) {
				return fmt.Errorf("%s of %s has %d routes, want %d and more", n.Name, f.Name, have, f.spec.Behind)
			}
			if err := wait(ctx, 200*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return wait(ctx, 2*time.Second)
}
