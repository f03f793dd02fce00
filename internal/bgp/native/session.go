package native

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	seam "frond/internal/bgp"
)

// session is an established session. Its reader is serve, its writer write;
// out holds at most one batch of messages that the speaker composed.
type session struct {
	*agreement
	conn     *net.TCPConn
	outbound bool
	since    time.Time
	out      chan []byte

	farewell atomic.Pointer[notification] // to be sent when it ends from our side
	closing  chan struct{}
	closed   atomic.Bool
}

func newSession(c *candidate) *session {
	return &session{
		agreement: c.agreement,
		conn:      c.conn,
		outbound:  c.outbound,
		since:     time.Now(),
		out:       make(chan []byte, 1),
		closing:   make(chan struct{}),
	}
}

// end closes the session from our side, telling the peer n if that is not nil.
func (s *session) end(n *notification) {
	if s.closed.Swap(true) {
		return
	}
	s.farewell.Store(n)
	close(s.closing)
	s.hurry()
}

// hurry gives what is being written little time: it may be to a peer that
// stands still.
func (s *session) hurry() {
	_ = s.conn.SetWriteDeadline(time.Now().Add(byeTime))
}

// serve reads until the session ends and returns why, and whether the
// peer's routes are to be kept for its restart.
func (s *session) serve(ctx context.Context, report func(message), m *machine) (keep bool, reason error) {
	readerDone := make(chan struct{})
	writerDone := make(chan struct{})
	go func() {
		defer close(writerDone)
		s.write(ctx, readerDone, report, m)
	}()
	err := s.read(report, m)
	var n *notification
	if errors.As(err, &n) && !n.received {
		s.end(n)
	}
	close(readerDone)
	<-writerDone
	if farewell := s.farewell.Load(); farewell != nil {
		return s.survives(farewell), farewell
	}
	return s.judge(err)
}

// judge tells from a reader's error why the session ended. A connection
// that breaks without a word is what a restart looks like (RFC 4724 §4.2).
func (s *session) judge(err error) (keep bool, reason error) {
	var n *notification
	switch {
	case errors.As(err, &n):
		return s.survives(n), n
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return true, errors.New("the peer closed the connection")
	default:
		return true, fmt.Errorf("connection lost: %w", err)
	}
}

// survives tells whether the peer's routes outlive a session that a
// notification ended: if another connection to the peer was preferred, or if a
// hold timer expired although BFD goes on: then one of the two agents stood
// still, and packets are forwarded (as RFC 8538 §4 has it).
func (s *session) survives(n *notification) bool {
	if n.code == errHoldTimer {
		return s.watched && s.frond()
	}
	return ceased(n, ceaseCollision)
}

// read takes messages in until the connection or the protocol fails.
func (s *session) read(report func(message), m *machine) error {
	buf := make([]byte, maxMessageLen)
	from := bufio.NewReaderSize(s.conn, maxMessageLen)
	var cache attributeCache
	for {
		var deadline time.Time
		if s.hold > 0 {
			deadline = time.Now().Add(s.hold)
		}
		if err := s.conn.SetReadDeadline(deadline); err != nil {
			return err
		}
		kind, body, err := readMessage(from, buf)
		if isTimeout(err) {
			return &notification{code: errHoldTimer, text: fmt.Sprintf("hold timer: nothing heard for %s", s.hold)}
		}
		if err != nil {
			return err
		}
		switch kind {
		case typeKeepalive:
		case typeUpdate:
			u, fault := decodeUpdate(body, s.agreement, &cache)
			if fault != nil {
				return fault
			}
			report(received{m, s, u})
		case typeRouteRefresh:
			if f, ok := decodeRefresh(body); ok && s.has(f) {
				report(refresh{m, s, f})
			}
		case typeNotification:
			return decodeNotification(body)
		default:
			return &notification{code: errFSM, subcode: 3, text: fmt.Sprintf("message of type %d in an established session", kind)}
		}
	}
}

// write sends what the speaker composed, and keepalives when that is little.
func (s *session) write(ctx context.Context, readerDone <-chan struct{}, report func(message), m *machine) {
	defer s.conn.Close()
	keepalive := make(<-chan time.Time)
	if s.keepalive > 0 {
		ticker := time.NewTicker(s.keepalive)
		defer ticker.Stop()
		keepalive = ticker.C
	}
	for {
		select {
		case batch := <-s.out:
			if !s.send(batch) {
				return
			}
			report(drained{m, s})
		case <-keepalive:
			if !s.send(encodeKeepalive()) {
				return
			}
		case <-s.closing:
			s.bye()
			return
		case <-readerDone:
			s.bye()
			return
		case <-ctx.Done():
			var n *notification
			errors.As(context.Cause(ctx), &n)
			s.end(n)
			s.bye()
			return
		}
	}
}

func (s *session) send(b []byte) bool {
	if err := s.conn.SetWriteDeadline(time.Now().Add(max(s.hold, openTime))); err != nil {
		return false
	}
	if s.closed.Load() {
		s.hurry() // end was first
	}
	_, err := s.conn.Write(b)
	return err == nil
}

func (s *session) bye() {
	if n := s.farewell.Load(); n != nil {
		s.hurry()
		_, _ = s.conn.Write(encodeNotification(n))
	}
}

func decodeRefresh(body []byte) (seam.Family, bool) {
	if len(body) != 4 || body[2] != 0 {
		return 0, false // enhanced refresh markers (RFC 7313) are not agreed on
	}
	return familyOf(uint16(body[0])<<8|uint16(body[1]), body[3])
}
