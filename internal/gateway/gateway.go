package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"time"

	"frond/internal/kv"
)

// Config is what a gateway is made of.
type Config struct {
	Node      string
	Machine   string // tells machines of one name apart, and one before and after it has booted
	Timing    Timing
	Store     kv.Store
	Addresses Addresses
	// Clock is Boottime, but in tests.
	Clock func() time.Duration
}

// Gateway holds the elected gateways that fall to this node.
type Gateway struct {
	config Config
	log    *slog.Logger

	wishes  chan struct{} // what was asked for has changed
	answers chan answer
	quit    chan struct{} // closed when Run ends

	mu       sync.Mutex
	segments []Segment
	guests   map[string]int
	leaving  bool
	report   Report
	reported time.Duration // when it was made
	refused  string        // what the kernel said last, so that it is logged once
	left     chan struct{} // closed when nothing is held any more
}

// reportInterval is how old a report may be: it is made anew with a beat.
const reportInterval = 100 * time.Millisecond

type answer struct {
	request request
	outcome kv.Outcome
	err     error
}

// New makes a gateway that does nothing until Run.
func New(config Config, log *slog.Logger) *Gateway {
	return &Gateway{
		config: config, log: log,
		wishes: make(chan struct{}, 1), answers: make(chan answer), quit: make(chan struct{}),
		left: make(chan struct{}),
	}
}

// SetSegments sets all segments of the fabric whose gateway is elected, those
// that this node has no part in too: every node has to see the same election.
func (g *Gateway) SetSegments(segments []Segment) {
	g.ask(func() { g.segments = segments })
}

// SetGuests sets how many guests of segments with locality this node has.
func (g *Gateway) SetGuests(guests map[string]int) {
	g.ask(func() { g.guests = guests })
}

func (g *Gateway) ask(change func()) {
	g.mu.Lock()
	change()
	g.mu.Unlock()
	select {
	case g.wishes <- struct{}{}:
	default:
	}
}

// Leave hands over everything that this node holds, for good. It returns when
// that is done, or with ctx's error: then the rest falls to the others when
// the lease is over, or with Run's end, whatever comes first.
func (g *Gateway) Leave(ctx context.Context) error {
	g.ask(func() { g.leaving = true })
	select {
	case <-g.left:
		return nil
	case <-g.quit:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run holds gateways until ctx ends. Then it leaves the addresses to their
// lifetimes and the session to its lease: an agent that is back within that
// time goes on where it was. After Leave it ends the session instead, with
// no address left. Run is called once.
func (g *Gateway) Run(ctx context.Context) error {
	defer close(g.quit)
	if err := g.config.Timing.Validate(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	a := newAgent(g.config.Node, g.config.Machine, rand.Text(), g.config.Timing, time.Now)
	changes := g.config.Store.Watch(ctx, "")
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		g.takeIn(a)
		again := g.work(ctx, a, &work)
		now := g.config.Clock()
		timer.Reset(min(a.wake(now), again) - now)
		select {
		case <-ctx.Done():
			return g.finish(a)
		case <-g.wishes:
		case <-timer.C:
		case c, ok := <-changes:
			if !ok {
				return g.finish(a)
			}
			a.changed(c, g.config.Clock())
		case r := <-g.answers:
			if r.err != nil {
				g.log.Debug("store", "for", r.request.kind, "error", r.err)
			}
			a.answered(r.request, r.outcome, r.err, g.config.Clock())
		}
	}
}

// takeIn takes what was asked for.
func (g *Gateway) takeIn(a *agent) {
	g.mu.Lock()
	defer g.mu.Unlock()
	a.setSegments(g.segments)
	a.guests = g.guests
	if g.leaving && !a.leaving {
		a.leave()
	}
}

// work does what the agent decides, and returns when the report is to be made
// anew at the latest.
func (g *Gateway) work(ctx context.Context, a *agent, work *sync.WaitGroup) time.Duration {
	clock := g.config.Clock
	a.decide(clock())
	if list, due := a.due(clock()); due {
		err := g.config.Addresses.Set(ctx, list)
		a.kernel.Acknowledge(list, err, clock())
		g.note(err)
	}
	for _, r := range a.requests(clock()) {
		work.Go(func() { g.commit(ctx, r) })
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if a.leaving && a.hasLeft() {
		closeOnce(g.left)
	}
	now := clock()
	if now-g.reported >= reportInterval || now < g.reported {
		a.watchVacant(now)
		g.report, g.reported = a.report(now), now
		return now + idleInterval
	}
	return g.reported + reportInterval
}

// note logs what the kernel has refused, each thing once.
func (g *Gateway) note(err error) {
	text := ""
	if err != nil && !errors.Is(err, context.Canceled) {
		text = err.Error()
	}
	if text != "" && text != g.refused {
		g.log.Warn("the addresses of elected gateways cannot be set, trying again", "error", text)
	}
	g.refused = text
}

// commit asks the store, which has the time of two beats to answer.
func (g *Gateway) commit(ctx context.Context, r request) {
	limited, cancel := context.WithTimeout(ctx, 2*g.config.Timing.Renew)
	defer cancel()
	outcome, err := g.config.Store.Commit(limited, r.txn)
	select {
	case g.answers <- answer{r, outcome, err}:
	case <-ctx.Done():
	}
}

// finish ends the session of a node that has left, so that nobody waits for it.
func (g *Gateway) finish(a *agent) error {
	if !a.leaving || a.session.id == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*g.config.Timing.Renew)
	defer cancel()
	if err := g.config.Addresses.Set(ctx, nil); err != nil {
		return err
	}
	if _, err := g.config.Store.Commit(ctx, a.farewell()); err != nil {
		g.log.Warn("the store does not know that this node holds no gateway any more, others wait for the lease", "error", err)
	}
	return nil
}

// Report is what there is to say of the gateways now.
func (g *Gateway) Report() Report {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.report
}

func closeOnce(c chan struct{}) {
	select {
	case <-c:
	default:
		close(c)
	}
}
