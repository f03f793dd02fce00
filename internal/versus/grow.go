package versus

import (
	"context"
	"fmt"
	"time"
)

// growEvents are about what one spine needs the more leafs there are, each of
// them with daemons of its own and part of the segment. All have BFD, as frond has
// by default: most of what an idle spine does is that.
func growEvents() (events []Event) {
	for _, n := range []int{8, 32, 128} {
		events = append(events, Event{
			Name: fmt.Sprintf("grow-%d", n), Spec: Spec{Spines: 1, Leafs: n, BFD: defaultBFD}, Fresh: true, measure: grow,
			Rows: []Row{
				{fmt.Sprintf("a spine with %d leafs: cold start → all routes in all kernels", n), "s", Goal{Ratio: 1}},
				{fmt.Sprintf("a spine with %d leafs: its processor time until then", n), "s", Goal{Ratio: 1}},
				{fmt.Sprintf("a spine with %d leafs: its processor time when idle", n), "% of a core", Goal{Ratio: 1}},
				{fmt.Sprintf("a spine with %d leafs: memory of its daemons", n), "MiB", Goal{Ratio: 1.5}},
			},
		})
	}
	return events
}

// growTime is how long a large fabric may take to be whole.
const growTime = 3 * time.Minute

// spine is the one that is looked at.
const spine = "spine1"

// grow brings a fabric up and looks at its spine: until it is whole, and then
// for a while when it has calmed down.
func grow(ctx context.Context, f *Fabric) ([]Sample, error) {
	return f.growing(ctx, func() (bool, error) {
		if err := f.start(ctx); err != nil {
			return false, err
		}
		return f.whole(ctx, growTime)
	})
}

// growing measures the spine of a fabric that becomes whole.
func (f *Fabric) growing(ctx context.Context, become func() (whole bool, err error)) ([]Sample, error) {
	const calm, span = 5 * time.Second, 10 * time.Second
	started := time.Now()
	whole, err := become()
	if err != nil {
		return nil, err
	}
	took := Sample{Value: time.Since(started).Seconds(), Exceeded: !whole}
	spent, err := f.processorTimeOn(spine)
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, calm); err != nil {
		return nil, err
	}
	before, err := f.processorTimeOn(spine)
	if err != nil {
		return nil, err
	}
	if err := wait(ctx, span); err != nil {
		return nil, err
	}
	after, err := f.processorTimeOn(spine)
	if err != nil {
		return nil, err
	}
	memory, err := f.memory(spine)
	return []Sample{took, {Value: spent}, {Value: 100 * (after - before) / span.Seconds()}, {Value: memory}}, err
}
