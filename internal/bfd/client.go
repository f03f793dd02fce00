package bfd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// How long a process that was started may take to answer, how often that is
// looked at, and how the time between failed attempts grows.
const (
	startTimeout  = 5 * time.Second
	startPoll     = 10 * time.Millisecond
	firstRetry    = 50 * time.Millisecond
	slowestRetry  = 5 * time.Second
	requestWithin = 5 * time.Second
)

// Client is the agent's side: it finds the process or starts it, tells it the
// sessions, and hears their states.
type Client struct {
	socket string
	start  func(context.Context) error
	log    *slog.Logger
	events chan State
	states *mailbox

	mu      sync.Mutex
	wanted  map[endpoint]Session  // nil before the first Set
	out     map[endpoint]struct{} // no longer wanted at some time since the process was told
	stopped bool
	changed chan struct{} // wanted or stopped has changed
}

// NewClient returns a client of the process behind a unix socket. When nobody
// answers there, start launches the process and returns; see [Start].
func NewClient(socket string, start func(context.Context) error, log *slog.Logger) *Client {
	return &Client{
		socket:  socket,
		start:   start,
		log:     log,
		events:  make(chan State),
		states:  newMailbox(),
		changed: make(chan struct{}, 1),
		out:     make(map[endpoint]struct{}),
	}
}

// Set says which sessions there are to be, all of them. Before the first Set
// the process keeps the sessions that the agent before asked for; those that
// stay keep their state, those that go are ended without harm to the peer; one
// that goes and comes back begins anew, however quickly that was.
func (c *Client) Set(sessions []Session) {
	wanted := make(map[endpoint]Session, len(sessions))
	for _, s := range sessions {
		wanted[s.endpoint()] = s
	}
	c.mu.Lock()
	for at := range c.wanted {
		if _, ok := wanted[at]; !ok {
			c.out[at] = struct{}{}
		}
	}
	c.wanted = wanted
	c.mu.Unlock()
	c.states.retain(func(at endpoint) bool { _, ok := wanted[at]; return ok })
	c.wake()
}

// Events delivers every state when the client has connected, then each
// change. A reader that is slow finds the newest state of each session.
func (c *Client) Events() <-chan State { return c.events }

// Run stays connected to the process until ctx ends, and then returns nil; the
// sessions go on. After Stop it no longer connects.
func (c *Client) Run(ctx context.Context) error {
	var delivery sync.WaitGroup
	delivery.Go(func() { c.deliver(ctx) })
	defer delivery.Wait()

	retry, said := firstRetry, ""
	for ctx.Err() == nil && !c.isStopped() {
		greeted, err := c.connected(ctx)
		if ctx.Err() != nil || c.isStopped() {
			break
		}
		if greeted {
			retry, said = firstRetry, ""
		}
		if text := err.Error(); text != said {
			c.log.Error("bfd process is away", "err", err)
			said = text
		}
		wait(ctx, retry)
		retry = min(2*retry, slowestRetry)
	}
	<-ctx.Done()
	return nil
}

// Stop ends the process: it takes leave of all peers first, so that none of
// them sees a failure. It returns nil when the process is gone or was not
// there, and may be called with or without Run.
func (c *Client) Stop(ctx context.Context) error {
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	c.wake()
	conn, err := c.dial(ctx)
	if err != nil {
		return ctx.Err() // nobody there
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := send(conn, request{Stop: true}); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("stop bfd process: %w", err)
	}
	_, _ = io.Copy(io.Discard, conn) // ends with the process
	if ctx.Err() != nil {
		return fmt.Errorf("stop bfd process: %w", ctx.Err())
	}
	return nil
}

func (c *Client) isStopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopped
}

func (c *Client) wake() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// deliver hands states over at the reader's pace.
func (c *Client) deliver(ctx context.Context) {
	c.states.each(ctx, func(st State) bool {
		select {
		case c.events <- st:
			return true
		case <-ctx.Done():
			return false
		}
	})
}

// connected lives through one connection, starting the process if need be.
// It always returns an error, the reason why the connection ended; greeted
// says that there was one.
func (c *Client) connected(ctx context.Context) (greeted bool, err error) {
	conn, err := c.find(ctx)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var writer sync.WaitGroup
	writer.Go(func() { cancel(c.tell(ctx, conn)) })
	closing := context.AfterFunc(ctx, func() { _ = conn.Close() })
	greeted, err = c.hear(conn)
	closing()
	_ = conn.Close()
	cancel(err)
	writer.Wait()
	return greeted, context.Cause(ctx)
}

// find dials the process, and starts it when it does not answer.
func (c *Client) find(ctx context.Context) (net.Conn, error) {
	conn, err := c.dial(ctx)
	if err == nil || c.start == nil {
		return conn, err
	}
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	c.log.Info("bfd process started", "socket", c.socket)
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if conn, err = c.dial(ctx); err == nil {
			return conn, nil
		}
		wait(ctx, startPoll)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("bfd process was started but does not answer: %w", err)
		}
	}
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, fmt.Errorf("connect to bfd process: %w", err)
	}
	return conn, nil
}

// tell makes the connection the agent's and passes on what is wanted.
func (c *Client) tell(ctx context.Context, conn net.Conn) error {
	if err := send(conn, request{Watch: true}); err != nil {
		return err
	}
	for {
		if c.isStopped() {
			return send(conn, request{Stop: true})
		}
		for _, set := range c.sets() {
			if err := send(conn, request{Set: &set}); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.changed:
		}
	}
}

// sets are what to tell: what is wanted now, and before that all of it but what
// went out and came back since the process was told. None before the first Set.
func (c *Client) sets() [][]Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wanted == nil {
		return nil
	}
	all := inOrder(c.wanted)
	rest := slices.DeleteFunc(slices.Clone(all), func(s Session) bool { _, out := c.out[s.endpoint()]; return out })
	clear(c.out)
	if len(rest) < len(all) {
		return [][]Session{rest, all}
	}
	return [][]Session{all}
}

func inOrder(wanted map[endpoint]Session) []Session {
	sessions := make([]Session, 0, len(wanted))
	for _, s := range wanted {
		sessions = append(sessions, s)
	}
	slices.SortFunc(sessions, func(a, b Session) int {
		if a.Port != b.Port {
			return strings.Compare(a.Port, b.Port)
		}
		return a.Peer.Compare(b.Peer)
	})
	return sessions
}

// hear takes what the process says until the connection ends.
func (c *Client) hear(conn net.Conn) (greeted bool, err error) {
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var r reply
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return greeted, fmt.Errorf("bfd process does not speak our protocol: %w", err)
		}
		switch {
		case r.Hello != nil && r.Hello.Protocol != protocol:
			_ = send(conn, request{Stop: true})
			_, _ = io.Copy(io.Discard, conn)
			return greeted, fmt.Errorf("bfd process %d speaks protocol %d, not %d: stopped to start ours",
				r.Hello.PID, r.Hello.Protocol, protocol)
		case r.Hello != nil:
			greeted = true
		case r.Error == errOtherAgent.Error():
			return false, errOtherAgent
		case r.Error != "":
			c.log.Error("bfd process refuses", "err", r.Error)
		case r.State != nil:
			c.take(*r.State)
		}
	}
	if err := lines.Err(); err != nil {
		return greeted, fmt.Errorf("read from bfd process: %w", err)
	}
	return greeted, errors.New("bfd process closed the connection")
}

// take keeps a state unless its session has just been given up.
func (c *Client) take(st State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, wanted := c.wanted[st.endpoint()]; wanted || c.wanted == nil {
		c.states.put(st)
	}
}

// send writes one request; a process that does not read is as good as gone.
func send(conn net.Conn, r request) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	if err := conn.SetWriteDeadline(time.Now().Add(requestWithin)); err != nil {
		return fmt.Errorf("write to bfd process: %w", err)
	}
	if _, err := conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("write to bfd process: %w", err)
	}
	return nil
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
