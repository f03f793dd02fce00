package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	seam "frond/internal/bgp"
)

// candidate is a connection whose session is not agreed yet: in OpenSent or
// OpenConfirm. The machine decides by proceed or reject when its OPEN has come.
type candidate struct {
	conn      *net.TCPConn
	outbound  bool
	agreement *agreement
	opened    bool // the machine has seen the peer's OPEN
	rejected  bool // the machine has preferred another
	verdict   chan bool
	decided   sync.Once
}

// progress is a step of a dial or a handshake, told to the machine.
type progress struct {
	wasDial   bool
	dialed    *net.TCPConn
	candidate *candidate
	confirmed bool // the first KEEPALIVE has come; otherwise the OPEN has
	err       error
}

var errRejected = errors.New("another connection to this peer was preferred")

func newCandidate(conn *net.TCPConn, outbound bool) *candidate {
	return &candidate{conn: conn, outbound: outbound, verdict: make(chan bool, 1)}
}

func (c *candidate) proceed() {
	c.opened = true
	c.decided.Do(func() { c.verdict <- true })
}

// reject ends the handshake. It may come after proceed: then closing the
// connection is what ends it.
func (c *candidate) reject() {
	c.rejected = true
	c.decided.Do(func() { c.verdict <- false })
	if c.opened {
		_, _ = c.conn.Write(encodeNotification(&notification{code: errCease, subcode: ceaseCollision}))
		c.conn.Close()
	}
}

// shake carries the connection from OPEN to the first KEEPALIVE, telling
// the machine of each step. It closes the connection when it fails.
func (c *candidate) shake(ctx context.Context, l local, p seam.Peer, state restartState, steps chan<- progress) {
	tell := func(step progress) bool {
		step.candidate = c
		select {
		case steps <- step:
			return true
		case <-ctx.Done():
			return false
		}
	}
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	defer stop()
	err := c.exchange(ctx, l, p, state, tell)
	if err == nil && tell(progress{confirmed: true}) {
		return
	}
	var n *notification
	if errors.As(err, &n) && !n.received {
		_, _ = c.conn.Write(encodeNotification(n))
	}
	c.conn.Close()
	if err != nil {
		tell(progress{err: err})
	}
}

func (c *candidate) exchange(ctx context.Context, l local, p seam.Peer, state restartState, tell func(progress) bool) error {
	if err := c.conn.SetDeadline(time.Now().Add(openTime)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	open, err := encodeOpen(l, p.Hold, state)
	if err != nil {
		return err
	}
	if _, err := c.conn.Write(open); err != nil {
		return fmt.Errorf("send OPEN: %w", err)
	}
	buf := make([]byte, maxMessageLen)
	body, err := c.expect(buf, typeOpen)
	if err != nil {
		return err
	}
	if c.agreement, err = negotiate(l, p, body); err != nil {
		return err
	}
	if c.agreement.frond() {
		if err := requireNeighbor(c.conn); err != nil {
			return fmt.Errorf("require hop limit 255: %w", err)
		}
	}
	if !tell(progress{}) {
		return ctx.Err()
	}
	select {
	case ok := <-c.verdict:
		if !ok {
			return errors.Join(errRejected, &notification{code: errCease, subcode: ceaseCollision})
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	if _, err := c.conn.Write(encodeKeepalive()); err != nil {
		return fmt.Errorf("send KEEPALIVE: %w", err)
	}
	_, err = c.expect(buf, typeKeepalive)
	return err
}

// expect reads the next message, which must be of the given type.
func (c *candidate) expect(buf []byte, kind uint8) ([]byte, error) {
	got, body, err := readMessage(c.conn, buf)
	if err != nil {
		return nil, waitingFor(kind, err)
	}
	if got == typeNotification {
		return nil, decodeNotification(body)
	}
	if got != kind {
		return nil, &notification{code: errFSM, subcode: kind, text: fmt.Sprintf("message of type %d where type %d was due", got, kind)}
	}
	return body, nil
}

// waitingFor says what a failed read means before the session is up.
func waitingFor(kind uint8, err error) error {
	switch {
	case isTimeout(err) && kind == typeOpen:
		return fmt.Errorf("the peer accepts the connection but sends no OPEN within %s", openTime)
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the peer closed the connection before the session was agreed")
	}
	return err
}
