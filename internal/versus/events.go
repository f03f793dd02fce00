package versus

import (
	"context"
	"fmt"
	"strings"
	"time"

	"frond/internal/lab"
	"frond/internal/probe"
)

// Events are all that can be measured, in the order of the table.
func Events() []Event {
	small := Spec{Spines: 2, Leafs: 3}
	guests := Spec{Spines: 2, Leafs: 3, Guests: 3}
	events := []Event{
		{
			Name: "start", Spec: guests, Fresh: true, measure: coldStart,
			Rows: []Row{{"cold start → all guests ping, 2×3", "s", Goal{Ratio: 0.3}}, {"the same → ECMP whole in all kernels", "s", Goal{Ratio: 0.3}}},
		},
		{
			Name: "start-4x8", Spec: Spec{Spines: 4, Leafs: 8, Guests: 8}, Fresh: true, measure: coldStart,
			Rows: []Row{{"cold start → all guests ping, 4×8", "s", Goal{Ratio: 0.3}}, {"the same → ECMP whole in all kernels (4×8)", "s", Goal{Ratio: 0.3}}},
		},
		{
			Name: "cut", Spec: small, measure: cutAndMend,
			Rows: []Row{
				{"an uplink loses carrier: outage", "ms", Goal{Set: true, AtMost: 15, Ratio: 1}},
				{"it returns: packets lost", "", Goal{Set: true}},
				{"it returns → ECMP whole again", "s", Goal{Set: true, AtMost: 2, Always: true}},
			},
		},
	}
	return events
}

// Quick are the events for a look within minutes.
func Quick() []string { return []string{"start", "cut"} }

func eventNames(events []Event) string {
	names := make([]string, len(events))
	for i, e := range events {
		names[i] = e.Name
	}
	return strings.Join(names, ", ")
}

func seconds(d time.Duration) Sample { return Sample{Value: d.Seconds()} }
func milliseconds(d time.Duration) Sample {
	return Sample{Value: float64(d) / float64(time.Millisecond)}
}

// coldStart is the time from the start of the first daemon until all guests
// have answered each other, and until all kernels have all next hops. Guests
// are plugged in as soon as there is a bridge for them.
func coldStart(ctx context.Context, f *Fabric) ([]Sample, error) {
	started := time.Now()
	if err := f.start(ctx); err != nil {
		return nil, err
	}
	if err := f.addGuests(ctx); err != nil {
		return nil, err
	}
	if err := f.guestsReach(ctx); err != nil {
		return nil, err
	}
	reached := time.Since(started)
	whole, err := f.whole(ctx, atFirst)
	if err != nil {
		return nil, err
	}
	return []Sample{seconds(reached), {Value: time.Since(started).Seconds(), Exceeded: !whole}}, nil
}

// lead is how long traffic flows before something happens, and after.
const lead = 300 * time.Millisecond

// traffic sends between pairs of hosts both ways, eight flows in all, while
// something happens and until settled returns.
func (f *Fabric) traffic(ctx context.Context, pairs [][2]probe.Host, happens, settled func() error) (probe.Result, error) {
	const flows, rate = 8, 1000
	var probes []*probe.Probe
	stop := func() (all probe.Result) {
		for _, p := range probes {
			all.Flows = append(all.Flows, p.Stop().Flows...)
		}
		probes = nil
		return all
	}
	defer stop()
	for _, pair := range pairs {
		p, err := probe.Start(ctx, probe.Config{
			From: pair[0].NS, To: pair[1].NS, FromAddr: pair[0].Addr, ToAddr: pair[1].Addr,
			Flows: flows / len(pairs), Rate: rate,
		})
		if err != nil {
			return probe.Result{}, err
		}
		probes = append(probes, p)
	}
	if err := wait(ctx, lead); err != nil {
		return probe.Result{}, err
	}
	if err := happens(); err != nil {
		return probe.Result{}, err
	}
	if err := settled(); err != nil {
		return probe.Result{}, err
	}
	if err := wait(ctx, lead); err != nil {
		return probe.Result{}, err
	}
	return stop(), ctx.Err()
}

// between is a pair of hosts by their names.
func (f *Fabric) between(a, b string) ([][2]probe.Host, error) {
	from, err := f.host(a)
	if err != nil {
		return nil, err
	}
	to, err := f.host(b)
	return [][2]probe.Host{{from, to}}, err
}

// lastLeaf is where cables are cut.
func (f *Fabric) lastLeaf() string { return fmt.Sprintf("leaf%d", f.spec.Leafs) }

// cutAndMend takes the carrier from one of two uplinks and gives it back.
func cutAndMend(ctx context.Context, f *Fabric) ([]Sample, error) {
	spine, leaf := lab.End{Node: "spine1"}, lab.End{Node: f.lastLeaf()}
	pairs, err := f.between("leaf1", f.lastLeaf())
	if err != nil {
		return nil, err
	}
	cut, err := f.traffic(ctx, pairs, func() error { return f.Cut(spine, leaf) }, func() error { return f.settled(ctx) })
	if err != nil {
		return nil, err
	}
	const patience = 20 * time.Second
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
	return []Sample{milliseconds(cut.Worst().Outage), {Value: float64(mend.Lost())}, again}, nil
}

// settled waits until the routes are as what is left of the cables gives them.
func (f *Fabric) settled(ctx context.Context) error {
	whole, err := f.whole(ctx, atFirst)
	if err == nil && !whole {
		err = fmt.Errorf("%s has not settled after %s", f.Name, atFirst)
	}
	return err
}
