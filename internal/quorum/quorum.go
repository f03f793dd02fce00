package quorum

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"frond/internal/gateway"
)

// DefaultTiming has the lease outlast whatever the kernel may do late, and the
// answers to three questions in a row be lost without any effect. A gateway is
// elsewhere a lease after the database has its new leader.
var DefaultTiming = gateway.Timing{
	Lease:  3 * time.Second,
	Renew:  200 * time.Millisecond,
	Margin: 100 * time.Millisecond,
	Slack:  1100 * time.Millisecond,
}

// Config is what a quorum is made of.
type Config struct {
	Node string
	// Machine tells this machine and boot from others, and Dir is a directory
	// that does not outlive the boot: for an agent that starts again.
	Machine, Dir string
	Timing       gateway.Timing
	Addresses    gateway.Addresses
	// Clock is gateway.Boottime, but in tests.
	Clock func() time.Duration
	// Wire is Dial, but in tests.
	Wire func(Place) Wire
}

// Place is where this node's member of the cluster is.
type Place struct {
	Dir     string // of LXD's or Incus' files
	Address string // of the member, host:port; empty: there is none
}

// Wire is how members of the cluster and agents beside them are spoken to.
type Wire interface {
	reach
	release(ctx context.Context, member string, segments []string) (map[string]Token, error)
	ready(ctx context.Context, member string) error
	mark(ctx context.Context, name, text string) error
	serve(ctx context.Context, member string, local local) error
}

// local is this node's agent as others may ask it.
type local interface {
	Release(ctx context.Context, segments []string) (map[string]Token, error)
	Ready() error
}

// Quorum holds the elected gateways that fall to this node by what the voters
// of its cluster's database say.
type Quorum struct {
	config Config
	log    *slog.Logger

	wishes    chan struct{} // what was asked for has changed
	releases  chan releasing
	inherited chan inherited
	checked   chan checked
	noted     chan noted
	quit      chan struct{} // closed when Run ends

	mu       sync.Mutex
	place    Place
	segments []gateway.Segment
	spread   Spread
	names    map[string]string
	drained  bool
	leaving  bool
	report   gateway.Report
	unready  error         // why no gateway is to come here
	left     chan struct{} // closed when nothing is held any more

	refused string // what the kernel said last, so that it is logged once
	failed  string // why the database was not told something last, as well
}

type releasing struct {
	segments []string
	answer   chan map[string]Token // capacity 1
}

type inherited struct {
	question question
	tokens   map[string]Token
	err      error
}

// Why no gateway is to come to a node.
var (
	errNotYet  = errors.New("the node does not know its member yet")
	errRemoved = errors.New("the node's member is not in the cluster any more")
	errEnded   = errors.New("the agent is stopping")
	errDrained = errors.New("the node is drained")
	errNoPart  = errors.New("the node takes part in no segment with an elected gateway")
)

// New makes a quorum that does nothing until Run.
func New(config Config, log *slog.Logger) *Quorum {
	return &Quorum{
		config: config, log: log,
		wishes: make(chan struct{}, 1), releases: make(chan releasing), inherited: make(chan inherited, 1),
		checked: make(chan checked, 1), noted: make(chan noted, 1), quit: make(chan struct{}), left: make(chan struct{}), unready: errNotYet,
	}
}

// SetPlace sets where this node's member of the cluster is. What was known
// last is to be kept while the member does not answer.
func (q *Quorum) SetPlace(p Place) { q.ask(func() { q.place = p }) }

// SetSegments sets the segments of the fabric whose gateway is elected so.
func (q *Quorum) SetSegments(segments []gateway.Segment) { q.ask(func() { q.segments = segments }) }

// SetSpread sets how they are spread over the members.
func (q *Quorum) SetSpread(s Spread) { q.ask(func() { q.spread = s }) }

// SetNames sets which node has which address, to call members by.
func (q *Quorum) SetNames(names map[string]string) { q.ask(func() { q.names = names }) }

// Drain has gateways leave this node and not come back, or takes that back.
func (q *Quorum) Drain(drained bool) { q.ask(func() { q.drained = drained }) }

func (q *Quorum) ask(change func()) {
	q.mu.Lock()
	change()
	q.mu.Unlock()
	select {
	case q.wishes <- struct{}{}:
	default:
	}
}

// Leave hands over everything that this node holds, for good. It returns when
// that is done, or with ctx's error.
func (q *Quorum) Leave(ctx context.Context) error {
	q.ask(func() { q.leaving = true })
	select {
	case <-q.left:
		return nil
	case <-q.quit:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Report is what there is to say of the gateways now.
func (q *Quorum) Report() gateway.Report {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.report
}

// Release has this node let go of gateways that another one says to be its own
// now. It answers when the kernel has.
func (q *Quorum) Release(ctx context.Context, segments []string) (map[string]Token, error) {
	r := releasing{segments, make(chan map[string]Token, 1)}
	select {
	case q.releases <- r:
	case <-q.quit:
		return nil, errEnded
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	select {
	case tokens := <-r.answer:
		return tokens, nil
	case <-q.quit:
		return nil, errEnded
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Ready tells why no gateway is to come here, if none is.
func (q *Quorum) Ready() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.unready
}

// Run holds gateways until ctx ends. Then it leaves the addresses to their
// lifetimes, unless it was asked to leave. Run is called once.
func (q *Quorum) Run(ctx context.Context) error {
	defer close(q.quit)
	if err := q.config.Timing.Validate(); err != nil {
		return err
	}
	left, err := load(memoryPath(q.config.Dir), q.config.Machine)
	if err != nil {
		q.log.Warn("what the agent before has held is not known, its leases are waited for", "error", err)
	}
	q.mu.Lock()
	if q.place == (Place{}) {
		q.place = left.Place
	}
	q.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	l := &loop{Quorum: q, agent: newAgent(q.config.Node, q.config.Timing, time.Now), former: left.Held}
	l.council = newCouncil(q.config.Clock)
	defer l.work.Wait()
	defer l.council.close()
	defer cancel()
	return l.run(ctx)
}
