package bfd

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"sync"
)

// connection is a client of the control socket. Only one of them is the agent.
type connection struct {
	server *server
	conn   *net.UnixConn
	states *mailbox
	write  sync.Mutex
}

func newConnection(s *server, conn *net.UnixConn) *connection {
	return &connection{server: s, conn: conn, states: newMailbox()}
}

// run answers requests until the client goes away or ctx ends.
func (c *connection) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	var writer sync.WaitGroup
	writer.Go(func() { c.send(ctx) })
	stopClosing := context.AfterFunc(ctx, func() { _ = c.conn.Close() })

	c.reply(reply{Hello: &hello{Protocol: protocol, PID: os.Getpid()}})
	lines := bufio.NewScanner(c.conn)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			c.reply(reply{Error: "not a request: " + err.Error()})
			break
		}
		if err := c.answer(ctx, r); err != nil {
			c.reply(reply{Error: err.Error()})
		}
	}
	_ = c.server.engine.do(ctx, c.leave)
	stopClosing()
	_ = c.conn.Close()
	cancel()
	writer.Wait()
}

func (c *connection) answer(ctx context.Context, r request) error {
	if r.Stop {
		c.server.log.Info("bfd asked to stop")
		c.server.stop()
		return nil
	}
	var refused error
	err := c.server.engine.do(ctx, func() {
		if r.Watch {
			refused = c.become()
		}
		if r.Set != nil && refused == nil {
			refused = c.set(*r.Set)
		}
	})
	if err != nil {
		return nil // the process ends; the client sees the connection end
	}
	return refused
}

// become makes this connection the agent's. It runs in the engine.
func (c *connection) become() error {
	s := c.server
	if s.agent != nil && s.agent != c {
		return errOtherAgent
	}
	s.agent = c
	s.alone.Stop()
	for _, st := range s.engine.all() {
		c.states.put(st)
	}
	return nil
}

// set runs in the engine.
func (c *connection) set(sessions []Session) error {
	if c.server.agent != c {
		return errors.New("only the agent may set sessions: send watch first")
	}
	err := c.server.engine.set(sessions)
	c.states.retain(func(at endpoint) bool { return c.server.engine.sessions[at] != nil })
	return err
}

// leave runs in the engine.
func (c *connection) leave() {
	s := c.server
	if s.agent != c {
		return
	}
	s.agent = nil
	s.alone.Reset(s.agentless)
	s.log.Info("bfd goes on without the agent", "sessions", len(s.engine.sessions))
}

// send writes states as they come; a client that does not read holds up
// nothing but this goroutine.
func (c *connection) send(ctx context.Context) {
	c.states.each(ctx, func(st State) bool { return c.reply(reply{State: &st}) })
}

func (c *connection) reply(r reply) bool {
	line, err := json.Marshal(r)
	if err != nil {
		return false
	}
	c.write.Lock()
	defer c.write.Unlock()
	_, err = c.conn.Write(append(line, '\n'))
	return err == nil
}
