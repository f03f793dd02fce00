package native

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	seam "frond/internal/bgp"
)

// Waiting times of a machine.
const (
	// yieldTime is how long the side with the lower address waits for the
	// other's connection before it dials, so that two nodes that find each
	// other at one moment do not collide (RFC 4271 §6.8).
	yieldTime = 300 * time.Millisecond
	redialMin = 100 * time.Millisecond
	redialMax = 5 * time.Second
	// banTime is how long a peer that sent too many prefixes gets no session:
	// long enough for it to cost little if it does so for ever.
	banTime   = 60 * time.Second
	freshTime = 5 * time.Second  // a session this young may still lose a collision
	openTime  = 10 * time.Second // for OPEN and the first KEEPALIVE to arrive
	byeTime   = time.Second      // for the last message of a session to be taken
	parallel  = 3                // connections of one peer that may be in their handshake
)

// machine is the finite state machine of one peer (RFC 4271 §8). Its run
// goroutine owns it; it reports to the speaker by messages and learns of
// removal by its context, whose cause is the notification to send.
type machine struct {
	peer    seam.Peer
	local   local
	port    uint16
	keys    func() *seam.Keys // as they are now
	inbound chan *net.TCPConn
	report  func(message) // to the speaker; blocks while the speaker is busy
	log     *slog.Logger

	restarting func() bool // whether OPENs still say that we restart
	preserved  bool        // whether what we announced before is still forwarded

	candidates  map[*candidate]struct{}
	progress    chan progress
	session     *session
	ended       chan sessionEnd
	dialing     bool
	redial      *time.Timer
	backoff     time.Duration
	ban         time.Duration // for a peer that sent too many prefixes
	idle        time.Time     // the peer is refused until then
	heard       chan witnessed
	seen        witnessed // last
	stopWitness context.CancelFunc
	work        sync.WaitGroup
}

// sessionEnd is why a session is over. keep: its routes stay while the peer
// restarts (RFC 4724 §4.2).
type sessionEnd struct {
	session *session
	err     error
	keep    bool
}

// run works until ctx ends.
func (m *machine) run(ctx context.Context) {
	m.redial = time.NewTimer(m.firstDial())
	defer m.redial.Stop()
	m.report(stateChanged{m, seam.Connect, "connecting", ""})
	for {
		select {
		case <-ctx.Done():
			m.close(context.Cause(ctx))
			return
		case <-m.redial.C:
			m.dial(ctx)
		case conn := <-m.inbound:
			m.accept(ctx, conn)
		case p := <-m.progress:
			m.advance(ctx, p)
		case e := <-m.ended:
			m.finish(e)
		case w := <-m.heard:
			m.observe(w)
		}
	}
}

// firstDial tells how long to wait for the peer to connect first.
func (m *machine) firstDial() time.Duration {
	own, err := ownLinkLocal(m.peer.Addr)
	if err == nil && own.Less(m.peer.Addr.WithZone("")) {
		return yieldTime
	}
	return 0
}

// dial starts one attempt to connect, unless one is under way.
func (m *machine) dial(ctx context.Context) {
	if m.dialing || m.session != nil || len(m.candidates) >= parallel {
		return
	}
	m.dialing = true
	m.work.Go(func() {
		conn, err := dialWith(ctx, netip.AddrPortFrom(m.peer.Addr, m.port), *m.keys())
		select {
		case m.progress <- progress{dialed: conn, err: err, wasDial: true}:
		case <-ctx.Done():
			if conn != nil {
				conn.Close()
			}
		}
	})
}

// explain says in words why nobody could be reached.
func (m *machine) explain(err error) error {
	switch {
	case isTimeout(err):
		if fault := m.fault(); fault != "" {
			return errors.New(words(fault))
		}
		if m.keys().Current != "" {
			return errors.New("no answer on BGP's port: filtered, or the neighbour has another password or none")
		}
		return errors.New("no answer on BGP's port: filtered, or a password is set there")
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("connection refused: no BGP speaker runs there, or it does not expect us yet")
	case errors.Is(err, syscall.EHOSTUNREACH):
		return errors.New("the neighbour does not answer neighbour discovery")
	}
	return err
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}

// accept takes an incoming connection into its handshake.
func (m *machine) accept(ctx context.Context, conn *net.TCPConn) {
	if len(m.candidates) >= parallel || time.Now().Before(m.idle) {
		conn.Close()
		return
	}
	m.begin(ctx, conn, false)
}

func (m *machine) begin(ctx context.Context, conn *net.TCPConn, outbound bool) {
	if m.session == nil {
		m.report(stateChanged{m, seam.OpenSent, "agreeing on the session", ""})
	}
	c := newCandidate(conn, outbound)
	m.candidates[c] = struct{}{}
	state := m.openState()
	m.work.Go(func() { c.shake(ctx, m.local, m.peer, state, m.progress) })
}

func (m *machine) openState() restartState {
	return restartState{restarting: m.restarting(), preserved: m.preserved}
}

// advance follows one step of a dial or a handshake.
func (m *machine) advance(ctx context.Context, p progress) {
	switch {
	case p.wasDial:
		m.dialing = false
		if p.err != nil {
			if isTimeout(p.err) {
				m.startWitness(ctx)
			} else {
				m.seen = witnessed{} // it answers to this node's key
			}
			m.failed(m.explain(p.err))
			return
		}
		m.begin(ctx, p.dialed, true)
	case p.err != nil:
		delete(m.candidates, p.candidate)
		m.failed(p.err)
	case p.confirmed:
		delete(m.candidates, p.candidate)
		if p.candidate.rejected { // its KEEPALIVE crossed the decision
			m.failed(errRejected)
			return
		}
		m.establish(ctx, p.candidate)
	default:
		m.resolve(p.candidate)
	}
}

// resolve lets a handshake whose OPEN has come go on, unless another
// connection to the same peer is better (RFC 4271 §6.8): the one that the
// side with the higher router-id opened. An established session that is no
// longer young gives way: its peer has restarted without our seeing it
// (RFC 4724 §4.2).
func (m *machine) resolve(c *candidate) {
	if s := m.session; s != nil {
		if time.Since(s.since) > freshTime || m.better(c, s.outbound) {
			c.proceed()
			return
		}
		c.reject()
		return
	}
	for other := range m.candidates {
		if other == c || !other.opened {
			continue
		}
		if !m.better(c, other.outbound) {
			c.reject()
			return
		}
		other.reject()
	}
	c.proceed()
}

// better tells whether c wins over a connection opened by us (outbound) or
// by the peer. Two of the same direction: the newer one.
func (m *machine) better(c *candidate, otherOutbound bool) bool {
	if c.outbound == otherOutbound {
		return true
	}
	oursWins := c.agreement.routerID.Less(m.local.routerID)
	return c.outbound == oursWins
}

// establish makes a confirmed handshake the session.
func (m *machine) establish(ctx context.Context, c *candidate) {
	for other := range m.candidates {
		other.reject()
	}
	if old := m.session; old != nil {
		old.end(&notification{code: errCease, subcode: ceaseCollision})
		m.report(sessionDown{m, old, "the peer connected anew", true, true})
	}
	m.redial.Stop()
	m.endWitness()
	m.backoff = 0
	s := newSession(c)
	m.session = s
	m.preserved = true // from now on only a connection can be lost, not the kernel's routes
	m.report(sessionUp{m, s})
	m.work.Go(func() {
		keep, err := s.serve(ctx, m.report, m)
		select {
		case m.ended <- sessionEnd{s, err, keep}:
		case <-ctx.Done():
		}
	})
}

// finish takes note of a session's end and tries again soon.
func (m *machine) finish(e sessionEnd) {
	if e.session != m.session {
		return // replaced before
	}
	m.session = nil
	m.report(sessionDown{m, e.session, e.err.Error(), e.keep, ceased(e.err, ceaseCollision)})
	if ceased(e.err, ceaseMaxPrefixes) {
		m.idle = time.Now().Add(m.ban)
		m.report(stateChanged{m, seam.Idle, fmt.Sprintf("%s; next try in %s", e.err, m.ban), ""})
		m.redial.Reset(m.ban)
		return
	}
	m.redial.Reset(m.wait())
}

// ceased tells whether err is the Cease notification of that subcode.
func ceased(err error, subcode uint8) bool {
	var n *notification
	return errors.As(err, &n) && n.code == errCease && n.subcode == subcode
}

// failed shows why there is no session yet, and tries again later.
func (m *machine) failed(err error) {
	if m.session != nil || len(m.candidates) > 0 {
		return
	}
	m.report(stateChanged{m, seam.Connect, err.Error(), m.fault()})
	m.redial.Reset(m.wait())
}

// wait returns the next waiting time: doubling, jittered, bounded.
func (m *machine) wait() time.Duration {
	m.backoff = min(max(2*m.backoff, redialMin), redialMax)
	return m.backoff*3/4 + rand.N(m.backoff/4)
}

// close ends everything with the notification that cause carries, or
// silently, which lets the peer keep our routes (RFC 4724 §4.2).
func (m *machine) close(cause error) {
	var n *notification
	errors.As(cause, &n)
	for c := range m.candidates {
		c.conn.Close()
	}
	if m.session != nil {
		m.session.end(n)
	}
	m.work.Wait()
	for {
		select {
		case conn := <-m.inbound:
			conn.Close()
		default:
			return
		}
	}
}
