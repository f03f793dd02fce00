// Package native is frond's own BGP-4 speaker (RFC 4271) for sessions over
// unnumbered cables: link-local peers, IPv4 over IPv6 next hops (RFC 8950),
// IPv4, IPv6 and EVPN, multipath, graceful restart (RFC 4724) and graceful
// shutdown (RFC 8326).
//
// One goroutine owns all tables (speaker.go, routes.go). Each peer has a
// machine that connects and agrees (machine.go, handshake.go) and, while
// established, a reader and a writer (session.go); they talk to the owner by
// messages only.
package native

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	seam "frond/internal/bgp"
)

// Speaker implements bgp.Speaker.
type Speaker struct {
	at      netip.AddrPort
	log     *slog.Logger
	events  chan seam.Event
	set     chan seam.Desired
	inbox   chan message
	applied chan struct{}
	ended   chan struct{} // closed when Run is over: nobody takes messages any more

	keys       atomic.Pointer[seam.Keys]
	ban        time.Duration // see banTime
	restarting atomic.Bool   // best paths are held back (RFC 4724 §4.1)

	// What follows is owned by Run's goroutine.
	desired   seam.Desired
	listener  *net.TCPListener
	neighbors map[netip.Addr]*neighbor
	indexes   peerSet
	strangers strangers
	unicast   *table[netip.Prefix]
	evpn      *table[string]
	local     originated
	pending   pending
	deadline  *time.Timer // of the restart, and of stale routes
	deferral  time.Time
	converged bool
	leaving   []*neighbor // removed, their machines not ended yet
}

var _ seam.Speaker = (*Speaker)(nil)

// New makes a speaker that will accept sessions at the given address,
// normally [::]:179.
func New(at netip.AddrPort, log *slog.Logger) *Speaker {
	s := &Speaker{
		at:        at,
		log:       log,
		events:    make(chan seam.Event),
		set:       make(chan seam.Desired, 1),
		ban:       banTime,
		inbox:     make(chan message, 64),
		applied:   make(chan struct{}, 1),
		ended:     make(chan struct{}),
		neighbors: make(map[netip.Addr]*neighbor),
		strangers: make(strangers),
	}
	s.keys.Store(&seam.Keys{})
	s.unicast = newTable(s.unicastChanged)
	s.evpn = newTable(s.evpnChanged)
	return s
}

// Events returns the channel of events; see bgp.Speaker.
func (s *Speaker) Events() <-chan seam.Event { return s.events }

// Set hands over the desired state; of several that wait, the last counts.
func (s *Speaker) Set(d seam.Desired) error {
	if err := check(d); err != nil {
		return err
	}
	for {
		select {
		case s.set <- d:
			return nil
		case <-s.set: // one that was never looked at
		}
	}
}

func check(d seam.Desired) error {
	if d.ASN == 0 {
		return errors.New("AS 0 cannot speak BGP (RFC 7607)")
	}
	if !d.RouterID.Is4() || d.RouterID.IsUnspecified() {
		return fmt.Errorf("router-id %s is not an IPv4 address", d.RouterID)
	}
	for _, p := range d.Peers {
		if !p.Addr.Is6() || !linkLocal.Contains(p.Addr.WithZone("")) || p.Addr.Zone() == "" {
			return fmt.Errorf("peer %s is not a link-local address with a zone", p.Addr)
		}
		if p.Hold != 0 && (p.Hold < 3*time.Second || p.Hold > math.MaxUint16*time.Second || p.Keepalive <= 0) {
			return fmt.Errorf("peer %s: hold time %s with keepalives each %s: 3s to 65535s are possible, or 0 (RFC 4271 §4.2)", p.Addr, p.Hold, p.Keepalive)
		}
	}
	if d.Restart.Time < 0 || d.Restart.Time > maxRestartTime {
		return fmt.Errorf("restart time %s: 0s to %s are possible (RFC 4724 §3)", d.Restart.Time, maxRestartTime)
	}
	for _, r := range d.Routes {
		if err := checkRoute(r); err != nil {
			return err
		}
	}
	return nil
}

const maxRestartTime = 4095 * time.Second // its field is 12 bits long

func checkRoute(r seam.Route) error {
	if r.EVPN == nil {
		if !r.Prefix.IsValid() {
			return errors.New("a route without a prefix")
		}
		return nil
	}
	if wire := r.EVPN.NLRI; len(wire) < 2 || int(wire[1]) != len(wire)-2 {
		return fmt.Errorf("EVPN route %x: the length in it is wrong", wire)
	}
	if !r.EVPN.NextHop.IsValid() {
		return fmt.Errorf("EVPN route %x has no next hop", r.EVPN.NLRI)
	}
	return nil
}

// Run speaks until ctx ends. Then it closes all sessions: silently, so that
// peers keep our routes for a restart, or with a NOTIFICATION if the last
// Desired says Leave.
func (s *Speaker) Run(ctx context.Context) error {
	defer close(s.ended)
	first, ok := s.firstDesired(ctx)
	if !ok {
		return nil
	}
	listener, err := listen(ctx, s.at, string(first.Keys.Current))
	if err != nil {
		return err
	}
	s.listener = listener
	accepting := make(chan struct{})
	go func() {
		defer close(accepting)
		s.accept()
	}()
	s.deadline = time.NewTimer(time.Hour)
	defer s.deadline.Stop()
	// Machines end by removal, so that those of a planned end can say so.
	machines, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	s.begin(first)
	s.apply(machines, first)
	s.loop(ctx, machines)
	s.close(stop, accepting)
	return nil
}

func (s *Speaker) firstDesired(ctx context.Context) (seam.Desired, bool) {
	select {
	case d := <-s.set:
		return d, true
	case <-ctx.Done():
		return seam.Desired{}, false
	}
}

func (s *Speaker) loop(ctx, machines context.Context) {
	for {
		event, out := s.nextEvent()
		select {
		case <-ctx.Done():
			s.takeLastWord()
			return
		case d := <-s.set:
			s.apply(machines, d)
		case m := <-s.inbox:
			s.takeMessages(m)
		case out <- event:
			s.eventTaken()
		case <-s.applied:
			s.announceApplied()
		case <-s.deadline.C:
			s.expire()
		}
		s.feed()
	}
}

// takeMessages takes in what machines and sessions have told by now, so that what
// follows from all of it is told together.
func (s *Speaker) takeMessages(first message) {
	first.apply(s)
	for range len(s.inbox) { // what comes meanwhile is for the next time
		(<-s.inbox).apply(s)
	}
}

// takeLastWord heeds a Set that came just before the end: how to leave.
func (s *Speaker) takeLastWord() {
	select {
	case d := <-s.set:
		s.desired.Leave = d.Leave
	default:
	}
}

// feed hands a batch to every neighbor whose writer waits for one.
func (s *Speaker) feed() {
	if s.restarting.Load() {
		return // RFC 4724 §4.1: nothing is advertised before all is known
	}
	for _, n := range s.neighbors {
		for n.ready(s.pending.settled()) {
			batch := s.compose(n)
			if len(batch) == 0 {
				continue
			}
			n.idle = false
			s.pending.counters(n)
			n.session.out <- batch
		}
	}
}

// post hands a message to the owner; it gives up when the speaker has ended.
func (s *Speaker) post(m message) {
	select {
	case s.inbox <- m:
	case <-s.ended:
	}
}

// close ends all machines and waits for them and for accepting to end,
// taking their last words.
func (s *Speaker) close(stop context.CancelCauseFunc, accepting <-chan struct{}) {
	s.listener.Close()
	s.await(accepting)
	var farewell error
	if s.desired.Leave {
		farewell = &notification{code: errCease, subcode: ceaseShutdown}
	}
	stop(farewell)
	for _, n := range s.neighbors {
		s.leaving = append(s.leaving, n)
	}
	for _, n := range s.leaving {
		s.await(n.done)
	}
	for len(s.inbox) > 0 {
		discard(<-s.inbox)
	}
	s.strangers.closeAll()
}

// await discards messages, so that nobody blocks on telling them, until done
// is closed.
func (s *Speaker) await(done <-chan struct{}) {
	for {
		select {
		case m := <-s.inbox:
			discard(m)
		case <-done:
			return
		}
	}
}

func discard(m message) {
	if a, ok := m.(accepted); ok {
		a.conn.Close()
	}
}
