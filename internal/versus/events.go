package versus

import (
	"context"
	"fmt"
	"strings"
	"time"

	"frond/internal/probe"
)

// Events are all that can be measured, in the order of the table.
func Events() []Event {
	small := Spec{Spines: 2, Leafs: 3}
	guests := Spec{Spines: 2, Leafs: 3, Guests: 3}
	events := []Event{
		{
			Name: "start", Spec: guests, Fresh: true, measure: coldStart,
			Rows: []Row{{"cold start → all guests ping, 2×3", "s", Goal{Ratio: 0.3}}, {"cold start → ECMP whole in all kernels, 2×3", "s", Goal{Ratio: 0.3}}},
		},
		{
			Name: "start-4x8", Spec: Spec{Spines: 4, Leafs: 8, Guests: 8}, Fresh: true, measure: coldStart,
			Rows: []Row{{"cold start → all guests ping, 4×8", "s", Goal{Ratio: 0.3}}, {"cold start → ECMP whole in all kernels, 4×8", "s", Goal{Ratio: 0.3}}},
		},
		{
			Name: "cut", Spec: small, measure: cutAndMend,
			Rows: []Row{
				{"an uplink loses carrier: outage", "ms", Goal{Set: true, AtMost: 15, Ratio: 1}},
				{"it returns: packets lost", "", Goal{Set: true}},
				{"it returns → ECMP whole again", "s", Goal{Set: true, AtMost: 2, Always: true}},
			},
		},
		{
			Name: "uplinks", Spec: guests, measure: shareOfUplinks,
			Rows: []Row{{"the lesser of two uplinks' share of 64 overlay flows", "%", Goal{AtLeast: 30}}},
		},
	}
	for _, n := range []int{10, 1000, 10000} {
		events = append(events, Event{
			Name: fmt.Sprintf("cut-%d", n), Spec: Spec{Spines: 2, Leafs: 3, Behind: n}, measure: cutBefore,
			Rows: []Row{{fmt.Sprintf("an uplink loses carrier, %d prefixes behind the leaf: outage", n), "ms", Goal{Set: true, AtMost: 15, Ratio: 1}}},
		})
	}
	events = append(events,
		Event{
			Name: "mute", Spec: small, measure: mute,
			Rows: []Row{{"packets vanish on an uplink, default settings: outage", "ms", Goal{Set: true, AtMost: 350, Ratio: 1}}},
		},
		Event{
			Name: "mute-bfd", Spec: Spec{Spines: 2, Leafs: 3, BFD: 50 * time.Millisecond}, measure: mute,
			Rows: []Row{{"the same, BFD 50 ms × 3 for all", "ms", Goal{Ratio: 1}}},
		},
		Event{
			Name: "spine-off", Spec: small, measure: powerOff,
			Rows: []Row{{"a spine loses all cables: outage", "ms", Goal{Set: true, AtMost: 15, Ratio: 1}}, {"they return: packets lost", "", Goal{Set: true}}},
		},
		Event{
			Name: "spine-kill", Spec: small, measure: killOf("spine1"),
			Rows: []Row{{"a spine's daemons killed and started again: packets lost", "", Goal{Set: true}}},
		},
		Event{
			Name: "leaf-kill", Spec: guests, measure: killOf("leaf3"),
			Rows: []Row{{"a leaf's daemons killed and started again: outage of guests", "ms", Goal{Set: true}}},
		},
		Event{
			Name: "move", Spec: Spec{Spines: 2, Leafs: 3, Guests: 15}, measure: moveOf(true),
			Rows: []Row{{"a guest moves and announces itself: outage", "ms", Goal{Ratio: 0.2}}},
		},
		Event{
			Name: "move-silent", Spec: Spec{Spines: 2, Leafs: 3, Guests: 15}, measure: moveOf(false),
			Rows: []Row{{"a guest moves and just goes on sending: outage", "ms", Goal{Ratio: 0.2}}},
		},
	)
	events = append(append(events, tableEvents()...), bandwidthEvent())
	return append(append(events, growEvents()...), crowdEvents()...)
}

// Quick are the events for a look within minutes: those that leave FRR's fabrics
// whole, so that none has to be brought up anew each time.
func Quick() []string { return []string{"start", "uplinks", "move"} }

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
