package bfd

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// wire is the network as the engine needs it.
type wire interface {
	// Send sends one packet to the peer at the other end of a cable. A cable
	// that was away and is back is found again by sending.
	Send(to endpoint, packet []byte) error
	// Forget releases what Send holds for an endpoint.
	Forget(endpoint)
}

// arrival is a packet that parsePacket and the hop limit let through.
type arrival struct {
	from   endpoint
	packet packet
}

// engine owns the sessions; only its run touches them.
type engine struct {
	wire     wire
	arrivals <-chan arrival
	commands chan func()
	publish  func(State) // must not block
	log      *slog.Logger

	sessions map[endpoint]*watched
	next     time.Time          // when something is due, at the earliest; zero: nothing is
	buffer   [packetLength]byte // the packet being sent
	strays   atomic.Uint64      // valid packets that belong to no session
}

// watched is a session with what the engine remembers of it.
type watched struct {
	session
	told       State
	failures   int // packets in a row that could not be sent
	logWindow  time.Time
	logged     int // lines in this window
	suppressed int // changes that were not logged since
}

// A flapping session may log this many lines in each window.
const (
	logWindow = 10 * time.Second
	logLines  = 10
)

func newEngine(w wire, arrivals <-chan arrival, publish func(State), log *slog.Logger) *engine {
	return &engine{
		wire:     w,
		arrivals: arrivals,
		commands: make(chan func()),
		publish:  publish,
		log:      log,
		sessions: map[endpoint]*watched{},
	}
}

// run keeps the sessions alive until ctx ends, then takes leave of every peer.
func (e *engine) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			_ = e.set(nil) // nothing is asked for, so nothing refused
			return
		case a := <-e.arrivals:
			e.receive(a, time.Now())
		case command := <-e.commands:
			command()
			e.tellAll(time.Now()) // it may have touched any session
		case <-timer.C:
		}
		// A packet that arrives concerns one session: with a hundred, to go through
		// all of them each time would be most of the work.
		if now := time.Now(); !e.next.IsZero() && !now.Before(e.next) {
			e.next = e.work(now)
		}
		if e.next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(e.next))
		}
	}
}

// do has f run where the sessions may be touched, and waits for it.
func (e *engine) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case e.commands <- func() { f(); close(done) }:
		<-done
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// set makes the sessions exactly those asked for. Those that stay keep their
// state; those that go are ended without harm. What is invalid is left out
// and named in the error.
func (e *engine) set(asked []Session) error {
	now := time.Now()
	wanted := make(map[endpoint]Session, len(asked))
	var bad error
	for _, ask := range asked {
		err := ask.validate()
		if err == nil && len(wanted) >= maxSessions {
			err = fmt.Errorf("peer %s on %s: more than %d sessions", ask.Peer, ask.Port, maxSessions)
		}
		if err != nil {
			bad = err
			continue
		}
		wanted[ask.endpoint()] = ask
	}
	for at, w := range e.sessions {
		if _, stays := wanted[at]; !stays {
			e.end(w)
			delete(e.sessions, at)
		}
	}
	for at, ask := range wanted {
		if w := e.sessions[at]; w != nil {
			w.configure(ask, now)
			continue
		}
		e.sessions[at] = &watched{session: *newSession(ask, e.discriminator(), rand.Int64N, now)}
	}
	return bad
}

// discriminator returns one that is not in use (RFC 5880 §6.8.1).
func (e *engine) discriminator() uint32 {
	for {
		d := rand.Uint32()
		if d != 0 && e.byDiscriminator(d) == nil {
			return d
		}
	}
}

func (e *engine) byDiscriminator(d uint32) *watched {
	for _, w := range e.sessions {
		if w.discriminator == d {
			return w
		}
	}
	return nil
}

func (e *engine) end(w *watched) {
	if w.answered {
		w.farewell().put(&e.buffer)
		_ = e.wire.Send(w.endpoint(), e.buffer[:]) // nothing hangs on it: the peer times out otherwise
	}
	e.wire.Forget(w.endpoint())
	e.log.Info("bfd session ended", "port", w.Port, "peer", w.Peer)
}

// receive selects the session by port and source, which must agree with the
// discriminator if the peer sends one (RFC 5880 §6.8.6, RFC 5881 §3).
func (e *engine) receive(a arrival, now time.Time) {
	w := e.sessions[a.from]
	if w == nil || (a.packet.yours != 0 && a.packet.yours != w.discriminator) {
		e.strays.Add(1)
		return
	}
	w.session.receive(a.packet, now)
	if d := w.session.deadline(); !d.IsZero() && (e.next.IsZero() || d.Before(e.next)) {
		e.next = d
	}
	e.tell(w, now)
}

// work does what has become due, and returns when something is again; zero: never.
func (e *engine) work(now time.Time) (next time.Time) {
	for _, w := range e.sessions {
		due := w.session.deadline()
		if !due.IsZero() && !now.Before(due) {
			w.expire(now)
			if p, ok := w.transmit(now); ok {
				e.send(w, p, now)
			}
			e.tell(w, now)
			due = w.session.deadline()
		}
		if !due.IsZero() && (next.IsZero() || due.Before(next)) {
			next = due
		}
	}
	return next
}

// tellAll tells of what a command has changed, and has what follows be done.
func (e *engine) tellAll(now time.Time) {
	for _, w := range e.sessions {
		e.tell(w, now)
	}
	e.next = now
}

// failuresLogged is how many packets in a row must fail before that is worth
// a line: about a second. A cable that comes up fails a few times.
const failuresLogged = 10

func (e *engine) send(w *watched, p packet, now time.Time) {
	p.put(&e.buffer)
	err := e.wire.Send(w.endpoint(), e.buffer[:])
	if err == nil {
		w.failures = 0
		return
	}
	w.unsent(now)
	if w.failures++; w.failures == failuresLogged {
		e.log.Warn("bfd cannot send", "port", w.Port, "peer", w.Peer, "err", err)
	}
}

// tell publishes and logs a state that has changed.
func (e *engine) tell(w *watched, now time.Time) {
	st := w.status()
	if st == w.told {
		return
	}
	changed := st.State != w.told.State
	w.told = st
	e.publish(st)
	if changed {
		e.logState(w, now)
	}
}

func (e *engine) logState(w *watched, now time.Time) {
	if now.Sub(w.logWindow) > logWindow {
		w.logWindow, w.logged = now, 0
	}
	if w.logged == logLines {
		w.suppressed++
		return
	}
	w.logged++
	line := e.log.With("port", w.Port, "peer", w.Peer, "state", w.told.State)
	if w.told.Diagnostic != "" {
		line = line.With("diagnostic", w.told.Diagnostic)
	}
	if w.suppressed > 0 {
		line = line.With("changes_not_logged", w.suppressed)
	}
	line.Info("bfd session")
	w.suppressed = 0
}

// all returns every session's state.
func (e *engine) all() []State {
	states := make([]State, 0, len(e.sessions))
	for _, w := range e.sessions {
		states = append(states, w.status())
	}
	return states
}
