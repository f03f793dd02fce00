// Package versus measures frond beside others: the same topology, guests and
// events on the same machine in the same run, in turns. What is measured is the
// data plane, by probes of 1,000 packets/s in each of several flows, and of
// these the worst (after RFC 7747 and RFC 4098).
package versus

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Config says what a run measures.
type Config struct {
	Binary string // the program frond
	Events []Event
	// Contenders are measured in turns, beginning with another one each time.
	// The first is compared with the others; in some events others take their
	// place.
	Contenders []Contender
	// Repeat is how often each event is measured for each contender.
	Repeat int
	// Progress is told what is measured now: done of total times.
	Progress func(step string, done, total int)
}

// Event is something that happens to a fabric, and what is measured then.
type Event struct {
	Name string
	Rows []Row
	// Spec is the fabric that it needs.
	Spec Spec
	// Fresh events bring the fabric up themselves, each time anew.
	Fresh bool
	// rivals gives whom frond is compared with, where that is not who the run is for.
	rivals func() []Contender
	// measure gives a sample for each row.
	measure func(ctx context.Context, f *Fabric) ([]Sample, error)
}

// Row is one figure of an event.
type Row struct {
	Title string
	Unit  string // of the samples; "" for a plain number
	Goal  Goal
}

// Sample is one measurement.
type Sample struct {
	Value float64 `json:"value"`
	// Exceeded: it was given up at Value, so what it would be is more.
	Exceeded bool `json:"exceeded,omitempty"`
}

// Run measures all events. What cannot be measured is part of the results, with
// its reason; an error is that ctx has ended.
func Run(ctx context.Context, cfg Config) ([]Result, error) {
	var results []Result
	for _, e := range cfg.Events {
		r := cfg.event(ctx, e)
		if err := ctx.Err(); err != nil {
			return results, err // without the event that was cut short
		}
		results = append(results, r...)
	}
	return results, nil
}

// inARow is how often one contender is measured before it is the next one's
// turn. Only one fabric is there at a time: on a small machine the daemons and
// the kernel's work of another would be measured along.
const inARow = 5

// event measures one event for all contenders, in turns.
func (cfg Config) event(ctx context.Context, e Event) []Result {
	contenders := cfg.Contenders
	if e.rivals != nil && len(contenders) > 1 {
		contenders = append(slices.Clone(contenders[:1]), e.rivals()...)
	}
	tallies := make([]tally, len(contenders))
	for done := 0; done < cfg.Repeat; done += inARow {
		for i := range contenders {
			i = (i + done/inARow) % len(contenders)
			c, t := contenders[i], &tallies[i]
			if t.problem != nil || ctx.Err() != nil {
				continue
			}
			step := func() { cfg.Progress("measuring "+e.Name+" of "+c.Name, len(t.samples), cfg.Repeat) }
			t.problem = cfg.several(ctx, e, c, min(inARow, cfg.Repeat-done), t, step)
		}
	}
	return e.results(contenders, tallies)
}

// tally is what was measured of one contender in one event.
type tally struct {
	samples [][]Sample // of each time, by row
	problem error      // why it was not measured as often as it should have been
}

// several measures an event of one contender so many times.
func (cfg Config) several(ctx context.Context, e Event, c Contender, times int, t *tally, step func()) (err error) {
	var f *Fabric
	defer func() {
		if downErr := f.down(context.WithoutCancel(ctx)); err == nil {
			err = downErr
		}
	}()
	for range times {
		step()
		if f, err = cfg.ready(ctx, e, c, f); err != nil {
			return err
		}
		samples, err := e.measure(ctx, f)
		if err != nil {
			return err
		}
		t.samples = append(t.samples, samples)
	}
	return nil
}

// results are an event's rows.
func (e Event) results(contenders []Contender, tallies []tally) []Result {
	results := make([]Result, len(e.Rows))
	for row, r := range e.Rows {
		results[row] = Result{Event: e.Name, Title: r.Title, Unit: r.Unit, Measured: time.Now().UTC().Truncate(time.Second)}
		for i, c := range contenders {
			var samples []Sample
			for _, s := range tallies[i].samples {
				samples = append(samples, s[row])
			}
			results[row].Of = append(results[row].Of, summarize(c.Name, samples, tallies[i].problem))
		}
		results[row].judge(r.Goal)
	}
	return results
}

// ready gives a fabric that is whole. One that was left broken by what was
// measured before, for good, is brought up anew.
func (cfg Config) ready(ctx context.Context, e Event, c Contender, f *Fabric) (*Fabric, error) {
	if f != nil && !e.Fresh {
		if whole, err := f.whole(ctx, afterwards); err != nil || whole {
			return f, err
		}
	}
	if err := f.down(ctx); err != nil {
		return nil, err
	}
	f, err := c.make(ctx, cfg.Binary, e.Spec)
	if err != nil || e.Fresh {
		return f, err
	}
	return f, f.bring(ctx)
}

const (
	// afterwards is how long a fabric may take to be whole again before it is
	// given up.
	afterwards = 5 * time.Second
	// atFirst is how long it may take to be whole for the first time.
	atFirst = 60 * time.Second
)

// Choose finds events by their names; none stands for all.
func Choose(names []string) ([]Event, error) {
	all := Events()
	if len(names) == 0 {
		return all, nil
	}
	var chosen []Event
	for _, name := range names {
		i := slices.IndexFunc(all, func(e Event) bool { return e.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("no event %q: there are %s", name, eventNames(all))
		}
		chosen = append(chosen, all[i])
	}
	return chosen, nil
}

// NeedsKeepalived tells whether one of the events compares with it.
func NeedsKeepalived(events []Event) bool {
	return slices.ContainsFunc(events, func(e Event) bool { return e.rivals != nil })
}

// wait lets time pass, unless ctx ends.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
