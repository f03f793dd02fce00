package versus

import (
	"context"
	"fmt"
	"time"

	"frond/internal/lab"
	"frond/internal/probe"
)

// lastLeaf is where cables are cut.
func (f *Fabric) lastLeaf() string { return fmt.Sprintf("leaf%d", f.spec.Leafs) }

// cutAndMend takes the carrier from one of two uplinks and gives it back.
func cutAndMend(ctx context.Context, f *Fabric) ([]Sample, error) {
	spine, leaf := lab.End{Node: "spine1"}, lab.End{Node: f.lastLeaf()}
	pairs, err := f.between("leaf1", f.lastLeaf())
	if err != nil {
		return nil, err
	}
	cut, err := f.outage(ctx, pairs, func() error { return f.Cut(spine, leaf) })
	if err != nil {
		return nil, err
	}
	const patience = 10 * time.Second
	var again Sample
	mend, err := f.traffic(ctx, pairs, func() error { return f.Mend(spine, leaf) }, func() error {
		began := time.Now()
		whole, err := f.whole(ctx, patience)
		again = seconds(time.Since(began))
		if !whole {
			again = Sample{Value: patience.Seconds(), Exceeded: true}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return []Sample{cut, {Value: float64(mend.Lost())}, again}, nil
}

// unobserved is how long nobody looks into the kernels after something has
// happened: to list their tables takes processor time from those who repair.
const unobserved = 500 * time.Millisecond

// settling is how long what is left of a fabric may take to do without what it
// has lost: longer than any hold time.
const settling = 20 * time.Second

// outage is how long the worst flow is without an answer when something happens.
func (f *Fabric) outage(ctx context.Context, pairs [][2]probe.Host, happens func() error) (Sample, error) {
	whole := false
	result, err := f.traffic(ctx, pairs, happens, func() (err error) {
		if err := wait(ctx, unobserved); err != nil {
			return err
		}
		whole, err = f.whole(ctx, settling)
		return err
	})
	outage := milliseconds(result.Worst().Outage)
	outage.Exceeded = !whole && result.Worst().Outage > lead // it goes on
	return outage, err
}

// cutBefore takes the carrier from an uplink of the leaf that prefixes are
// behind, and watches the first and the last of them. Nobody looks into the
// kernels meanwhile: with many routes that would hold them up.
func cutBefore(ctx context.Context, f *Fabric) ([]Sample, error) {
	if err := f.announceAll(true); err != nil {
		return nil, err
	}
	if err := f.prefixesEverywhere(ctx); err != nil {
		return nil, err
	}
	spine, leaf := lab.End{Node: "spine1"}, lab.End{Node: f.lastLeaf()}
	from, err := f.host("leaf1")
	if err != nil {
		return nil, err
	}
	var pairs [][2]probe.Host
	for _, address := range f.probed() {
		to, err := f.host(far)
		if err != nil {
			return nil, err
		}
		to.Addr = address
		pairs = append(pairs, [2]probe.Host{from, to})
	}
	const span = 4 * time.Second
	cut, err := f.traffic(ctx, pairs, func() error { return f.Cut(spine, leaf) }, func() error { return wait(ctx, span) })
	if err != nil {
		return nil, err
	}
	outage := milliseconds(cut.Worst().Outage)
	outage.Exceeded = cut.Worst().Outage >= span
	return []Sample{outage}, f.Mend(spine, leaf)
}

// mute lets packets vanish on an uplink, both ways; the carrier stays.
func mute(ctx context.Context, f *Fabric) ([]Sample, error) {
	spine, leaf := lab.End{Node: "spine1"}, lab.End{Node: f.lastLeaf()}
	pairs, err := f.between("leaf1", f.lastLeaf())
	if err != nil {
		return nil, err
	}
	muted, err := f.outage(ctx, pairs, func() error { return f.Mute(spine, leaf, false) })
	if err != nil {
		return nil, err
	}
	if err := f.Mend(spine, leaf); err != nil {
		return nil, err
	}
	_, err = f.whole(ctx, 15*time.Second) // if it is not, it is brought up anew
	return []Sample{muted}, err
}

// powerOff takes the carrier from all cables of a spine and gives it back.
func powerOff(ctx context.Context, f *Fabric) ([]Sample, error) {
	spine := lab.End{Node: "spine1"}
	pairs, err := f.between("leaf1", f.lastLeaf())
	if err != nil {
		return nil, err
	}
	const span = 2 * time.Second
	off, err := f.traffic(ctx, pairs, func() error { return f.Cut(spine, lab.End{}) }, func() error { return wait(ctx, span) })
	if err != nil {
		return nil, err
	}
	on, err := f.traffic(ctx, pairs, func() error { return f.Mend(spine, lab.End{}) }, func() error {
		_, err := f.whole(ctx, afterwards)
		return err
	})
	return []Sample{milliseconds(off.Worst().Outage), {Value: float64(on.Lost())}}, err
}

// killOf kills a node's daemons and starts them again half a second later.
// Traffic is that of guests, where there are some, and else of loopbacks.
func killOf(node string) func(context.Context, *Fabric) ([]Sample, error) {
	return func(ctx context.Context, f *Fabric) ([]Sample, error) {
		pairs, err := f.between("leaf1", f.lastLeaf())
		if f.spec.Guests > 0 {
			pairs, err = f.between("g1", fmt.Sprintf("g%d", f.spec.Leafs)) // on the same nodes
		}
		if err != nil {
			return nil, err
		}
		const span = 12 * time.Second // FRR comes back later than frond
		result, err := f.traffic(ctx, pairs, func() error {
			if err := f.runs.kill(ctx, node); err != nil {
				return err
			}
			if err := wait(ctx, 500*time.Millisecond); err != nil {
				return err
			}
			return f.startNode(ctx, node)
		}, func() error { return wait(ctx, span) })
		if err != nil {
			return nil, err
		}
		if f.spec.Guests > 0 {
			return []Sample{milliseconds(result.Worst().Outage)}, nil
		}
		return []Sample{{Value: float64(result.Lost())}}, nil
	}
}

// moveOf moves a guest between the first and the last leaf; it is seen from
// another. One of five moves at a time, so that none moves so often that it
// is taken for a duplicate (RFC 7432 §15.1).
func moveOf(announced bool) func(context.Context, *Fabric) ([]Sample, error) {
	return func(ctx context.Context, f *Fabric) ([]Sample, error) {
		name := fmt.Sprintf("g%d", 1+f.turn%5*f.spec.Leafs) // on leaf1 at first
		f.turn++
		g, err := f.Guest(name)
		if err != nil {
			return nil, err
		}
		to := f.lastLeaf()
		if g.Node == to {
			to = "leaf1"
		}
		pairs, err := f.between("g2", name)
		if err != nil {
			return nil, err
		}
		moved, err := f.traffic(ctx, pairs, func() error { return f.MoveGuest(ctx, name, to, announced) }, func() error { return wait(ctx, time.Second) })
		if err != nil {
			return nil, err
		}
		outage := milliseconds(moved.Worst().Outage)
		outage.Exceeded = moved.Worst().Outage >= time.Second
		return []Sample{outage}, nil
	}
}
