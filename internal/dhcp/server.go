package dhcp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"frond/internal/dataplane"
	"frond/internal/kv"
)

// Wire is the guests' ports of the segments that DHCP is answered on.
type Wire interface {
	// Frames are what guests of this node send to a DHCP server, and what they
	// answer to ARP probes. It is never closed.
	Frames() <-chan dataplane.GuestFrame
	// Send sends a frame by a port, or by all guests' ports of the segment if
	// the port has no name. One that cannot be sent is as one that is lost.
	Send(port dataplane.LocalPort, frame []byte)
}

// Config is what a server is made of.
type Config struct {
	Node  string
	Store kv.Store
	Wire  Wire
	Clock func() time.Duration // monotonic, goes on while the machine is suspended
}

// Server gives the guests of this node their addresses.
type Server struct {
	config Config
	log    *slog.Logger

	wishes   chan struct{} // what was asked for has changed
	requests chan func(*agent, time.Duration)
	answers  chan answer
	kept     chan []dataplane.LocalAddress
	bound    chan []dataplane.LocalAddress
	named    chan []Named
	quit     chan struct{} // closed when Run ends

	mu        sync.Mutex
	segments  []Segment
	neighbors map[dataplane.NeighborKey]dataplane.MAC // not yet taken in
	report    Report
	reported  time.Duration // when it was made
}

// reportInterval is how old a report may be.
const reportInterval = 100 * time.Millisecond

type answer struct {
	batch   batch
	outcome kv.Outcome
	err     error
}

// commitTime is how long the store has for a transaction.
const commitTime = 2 * time.Second

// New makes a server that does nothing until Run.
func New(config Config, log *slog.Logger) *Server {
	return &Server{
		config: config, log: log,
		wishes: make(chan struct{}, 1), requests: make(chan func(*agent, time.Duration)),
		answers: make(chan answer), kept: make(chan []dataplane.LocalAddress), bound: make(chan []dataplane.LocalAddress),
		named: make(chan []Named), quit: make(chan struct{}),
		neighbors: make(map[dataplane.NeighborKey]dataplane.MAC),
	}
}

// SetSegments sets the segments whose guests are answered.
func (s *Server) SetSegments(segments []Segment) {
	s.mu.Lock()
	s.segments = segments
	s.mu.Unlock()
	signal(s.wishes)
}

// Observe tells which addresses guests of other nodes have, as changes; the
// zero MAC: nobody any more.
func (s *Server) Observe(neighbors map[dataplane.NeighborKey]dataplane.MAC) {
	s.mu.Lock()
	for key, mac := range neighbors {
		s.neighbors[key] = mac
	}
	s.mu.Unlock()
	signal(s.wishes)
}

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Kept are the addresses that clients are about to be given: each is told when it
// is kept for its client, before it is probed, and when it is offered once more. It
// is to be read all the time; what waits is merged.
func (s *Server) Kept() <-chan []dataplane.LocalAddress { return s.kept }

// Bound are the addresses that clients were given. It is to be read all the
// time; what waits is merged.
func (s *Server) Bound() <-chan []dataplane.LocalAddress { return s.bound }

// Named are the names that clients of the whole fabric have given themselves,
// as changes. It is to be read all the time; what waits is merged.
func (s *Server) Named() <-chan []Named { return s.named }

// Run answers until ctx ends. It is called once.
func (s *Server) Run(ctx context.Context) error {
	defer close(s.quit)
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	clock := s.config.Clock
	a := newAgent(s.config.Node, rand.Text(), time.Now)
	changes := s.config.Store.Watch(ctx, leasesPrefix)
	timer := time.NewTimer(0)
	defer timer.Stop()
	untold := untold{named: make(map[netip.Addr]Named)}
	for {
		s.takeIn(a)
		a.tick(clock())
		s.work(ctx, a, &untold, &work)
		var kept, bound chan []dataplane.LocalAddress
		if len(untold.kept) > 0 {
			kept = s.kept
		}
		if len(untold.bound) > 0 {
			bound = s.bound
		}
		var named chan []Named
		names := untold.names()
		if len(names) > 0 {
			named = s.named
		}
		timer.Reset(min(a.wake(clock()), s.tell(a)) - clock())
		select {
		case <-ctx.Done():
			return nil
		case <-s.wishes:
		case <-timer.C:
		case kept <- untold.kept:
			untold.kept = nil
		case bound <- untold.bound:
			untold.bound = nil
		case named <- names:
			clear(untold.named)
			untold.list = nil
		case c, ok := <-changes:
			if !ok {
				return nil
			}
			a.changed(c, clock())
		case f := <-s.config.Wire.Frames():
			a.heard(f.Port, f.Data, clock())
			s.more(a, clock)
		case r := <-s.answers:
			if r.err != nil && ctx.Err() == nil {
				s.log.Debug("the store did not take leases", "count", len(r.batch.writes), "error", r.err)
			}
			a.answered(r.batch, r.outcome, r.err, clock())
		case request := <-s.requests:
			request(a, clock())
		}
	}
}

// atOnce bounds how many frames are taken in before anything is done, so that
// many allocations share a transaction.
const atOnce = 256

// more takes in what has come together with a frame.
func (s *Server) more(a *agent, clock func() time.Duration) {
	for range atOnce {
		select {
		case f := <-s.config.Wire.Frames():
			a.heard(f.Port, f.Data, clock())
		default:
			return
		}
	}
}

// takeIn takes what was asked for.
func (s *Server) takeIn(a *agent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.segments != nil {
		a.setSegments(s.segments, s.config.Clock())
		s.segments = nil
	}
	a.observe(s.neighbors)
	clear(s.neighbors)
}

// untold is what nobody has taken yet.
type untold struct {
	kept, bound []dataplane.LocalAddress
	named       map[netip.Addr]Named
	list        []Named // of named; nil: to be made
}

// maxWaiting bounds the addresses that nobody has taken from Kept and Bound yet.
// Later ones are found by what the guests say themselves.
const maxWaiting = 65536

// work does what the agent decides.
func (s *Server) work(ctx context.Context, a *agent, untold *untold, work *sync.WaitGroup) {
	if b, ok := a.commit(s.config.Clock()); ok {
		work.Go(func() { s.commit(ctx, b) })
	}
	out := a.take()
	for _, f := range out.frames {
		s.config.Wire.Send(f.Port, f.Frame)
	}
	if len(untold.kept) < maxWaiting {
		untold.kept = append(untold.kept, out.kept...)
	}
	if len(untold.bound) < maxWaiting {
		untold.bound = append(untold.bound, out.bound...)
	}
	if len(out.named) > 0 {
		maps.Copy(untold.named, out.named)
		untold.list = nil
	}
}

func (u *untold) names() []Named {
	if u.list == nil && len(u.named) > 0 {
		u.list = slices.Collect(maps.Values(u.named))
	}
	return u.list
}

func (s *Server) commit(ctx context.Context, b batch) {
	limited, cancel := context.WithTimeout(ctx, commitTime)
	defer cancel()
	outcome, err := s.config.Store.Commit(limited, b.txn)
	select {
	case s.answers <- answer{b, outcome, err}:
	case <-ctx.Done():
	}
}

// ask has f run with the agent and waits for it; it is not run if Run has ended.
func (s *Server) ask(ctx context.Context, f func(*agent, time.Duration)) {
	done := make(chan struct{})
	select {
	case s.requests <- func(a *agent, now time.Duration) { defer close(done); f(a, now) }:
		<-done
	case <-s.quit:
	case <-ctx.Done():
	}
}

// tell makes the report anew if it is old, and returns when to do so again.
func (s *Server) tell(a *agent) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.config.Clock()
	if now-s.reported < reportInterval {
		return s.reported + reportInterval
	}
	s.report, s.reported = a.report(now), now
	return now + time.Minute
}

// Report is what there is to say of the leases now. It is not changed after it
// was returned.
func (s *Server) Report() Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.report
}

// Leases are those of a segment, or all for the empty name, by address.
func (s *Server) Leases(ctx context.Context, segment string) []Lease {
	var list []Lease
	s.ask(ctx, func(a *agent, now time.Duration) { list = a.leases(segment, now) })
	return list
}

// ErrNoLease tells that an address is not leased.
var ErrNoLease = errors.New("nobody has a lease of it")

// Release ends the lease of an address whose guest is gone for good. Only the
// node that gave it can: it may have promised it to the guest since.
func (s *Server) Release(ctx context.Context, address netip.Addr) error {
	err := errors.New("the agent is stopping")
	s.ask(ctx, func(a *agent, now time.Duration) { err = a.releaseByHand(address, now) })
	return err
}

func (a *agent) releaseByHand(address netip.Addr, now time.Duration) error {
	e := a.book.entries[address]
	switch {
	case !a.synced:
		return errors.New("the store has not told what is leased yet; see frond store status")
	case e == nil, now >= e.over():
		return ErrNoLease
	case e.Kind != declined && e.Node != a.node:
		return fmt.Errorf("%s has given it: ask there, or wait until it is over", e.Node)
	case a.writes.pending[address] != nil:
		return errors.New("it is being changed; try again")
	}
	a.giveUp(e, now)
	return nil
}
