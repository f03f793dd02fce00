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

// Run measures all events.
func Run(ctx context.Context, cfg Config) ([]Result, error) {
	var results []Result
	for _, e := range cfg.Events {
		r, err := cfg.event(ctx, e)
		if err != nil {
			return results, fmt.Errorf("event %s: %w", e.Name, err)
		}
		results = append(results, r...)
	}
	return results, nil
}

// event measures one event for all contenders. Their fabrics are there side by
// side, and something happens to one of them at a time.
func (cfg Config) event(ctx context.Context, e Event) (_ []Result, err error) {
	if e.rivals != nil && len(cfg.Contenders) > 1 {
		cfg.Contenders = append(slices.Clone(cfg.Contenders[:1]), e.rivals()...)
	}
	fabrics := make([]*Fabric, len(cfg.Contenders))
	defer func() {
		for _, f := range fabrics {
			if downErr := f.down(context.WithoutCancel(ctx)); err == nil {
				err = downErr
			}
		}
	}()
	samples := make([][][]Sample, len(e.Rows)) // by row and contender
	for i := range samples {
		samples[i] = make([][]Sample, len(cfg.Contenders))
	}
	for turn := range cfg.Repeat {
		for i := range cfg.Contenders {
			i = (i + turn) % len(cfg.Contenders)
			c := cfg.Contenders[i]
			cfg.Progress("measuring "+e.Name+" of "+c.Name, turn, cfg.Repeat)
			if fabrics[i], err = cfg.ready(ctx, e, c, fabrics[i]); err != nil {
				return nil, fmt.Errorf("%s: %w", c.Name, err)
			}
			got, err := e.measure(ctx, fabrics[i])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.Name, err)
			}
			for row, s := range got {
				samples[row][i] = append(samples[row][i], s)
			}
		}
	}
	var results []Result
	for i, row := range e.Rows {
		r := Result{Event: e.Name, Title: row.Title, Unit: row.Unit, Measured: time.Now().UTC().Truncate(time.Second)}
		for j, c := range cfg.Contenders {
			r.Of = append(r.Of, summarize(c.Name, samples[i][j]))
		}
		r.judge(row.Goal)
		results = append(results, r)
	}
	return results, nil
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
	if err := f.bring(ctx); err != nil {
		return f, err
	}
	return f, nil
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
