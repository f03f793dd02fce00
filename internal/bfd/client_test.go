package bfd

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// patience ends a test that would hang; nothing is judged by it.
const patience = 20 * time.Second

// absent is a port that no machine has: its sessions stay unanswered.
func absent(n int) Session {
	s := ask(peerA)
	s.Port = fmt.Sprintf("absent%d", n)
	return s
}

// serveHere runs a server in this process.
func serveHere(t *testing.T, socket string, agentless time.Duration) (stop func(), ended <-chan struct{}) {
	t.Helper()
	listener, err := listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		newServer(testLog(t), agentless).run(ctx, listener)
	}()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop, done
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// runClient runs a client until stop; where nobody answers it only tries again.
func runClient(t *testing.T, socket string, start func(context.Context) error) (c *Client, stop func()) {
	t.Helper()
	c = NewClient(socket, start, testLog(t))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx); close(done) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
	t.Cleanup(stop)
	return c, stop
}

// await reads events until one fits.
func await(t *testing.T, c *Client, what string, fits func(State) bool) State {
	t.Helper()
	deadline := time.After(patience)
	var last State
	for {
		select {
		case last = <-c.Events():
			if fits(last) {
				return last
			}
		case <-deadline:
			t.Fatalf("waited for %s; last event %+v", what, last)
		}
	}
}

func at(s Session) func(State) bool {
	return func(st State) bool { return st.endpoint() == s.endpoint() }
}

func TestClientAndServer(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "bfd.sock")
	serveHere(t, socket, time.Hour)
	c, stop := runClient(t, socket, nil)
	c.Set([]Session{absent(1), absent(2)})
	first := awaitBoth(t, c)
	if first.State != "unanswered" || first.EverUp {
		t.Errorf("got %+v", first)
	}
	stop()

	// The next agent hears of them before it has set any, and keeps them.
	next, _ := runClient(t, socket, nil)
	if kept := awaitBoth(t, next); !kept.Since.Equal(first.Since) {
		t.Errorf("session began anew: since %s, was %s", kept.Since, first.Since)
	}
	next.Set([]Session{absent(1), absent(3)})
	await(t, next, "the new session", at(absent(3)))
}

// awaitBoth waits for both of two sessions, in either order, and returns the
// first one's state.
func awaitBoth(t *testing.T, c *Client) State {
	t.Helper()
	heard := map[string]State{}
	await(t, c, "both sessions", func(st State) bool { heard[st.Port] = st; return len(heard) == 2 })
	return heard[absent(1).Port]
}

// What the process still says of a session that was just given up is not told.
func TestSessionThatIsOutForAMoment(t *testing.T) {
	c := NewClient("", nil, testLog(t))
	told := func(when string, want ...[]Session) {
		t.Helper()
		if got := c.sets(); !slices.EqualFunc(got, want, slices.Equal) {
			t.Errorf("%s: told %+v, want %+v", when, got, want)
		}
	}
	a, b := absent(1), absent(2)
	told("before anything is set")
	c.Set([]Session{a, b})
	told("first", []Session{a, b})
	c.Set([]Session{b})
	c.Set([]Session{a, b})
	told("one was out", []Session{b}, []Session{a, b})
	told("again", []Session{a, b})
	c.Set([]Session{b})
	told("one is out", []Session{b})
}

func TestClientForgetsSessionsGivenUp(t *testing.T) {
	c := NewClient("", nil, testLog(t))
	state := func(s Session) State { return State{Port: s.Port, Peer: s.Peer, State: "down"} }
	c.take(state(absent(1))) // before the first Set all count
	c.take(state(absent(2)))
	c.Set([]Session{absent(2)})
	c.take(state(absent(1)))
	first, _ := c.states.next()
	if _, more := c.states.next(); first.Port != absent(2).Port || more {
		t.Errorf("tells %+v, more %t; want the second session alone", first, more)
	}
}

func TestClientReconnects(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "bfd.sock")
	stop, _ := serveHere(t, socket, time.Hour)
	c, _ := runClient(t, socket, nil)
	c.Set([]Session{absent(1)})
	first := await(t, c, "the session", at(absent(1)))
	stop()
	serveHere(t, socket, time.Hour)
	again := await(t, c, "the session in the new process", at(absent(1)))
	if again.Since.Equal(first.Since) {
		t.Error("not a new session")
	}
}

func TestSecondAgentIsRefused(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "bfd.sock")
	serveHere(t, socket, time.Hour)
	first, stopFirst := runClient(t, socket, nil)
	first.Set([]Session{absent(1)})
	await(t, first, "the first agent's session", at(absent(1)))

	second, _ := runClient(t, socket, nil)
	second.Set([]Session{absent(2)})
	conn := dialRaw(t, socket)
	if got := conn.ask(t, `{"watch":true}`); got != `{"error":"another agent is connected"}` {
		t.Errorf("answer %s", got)
	}
	if got := conn.ask(t, `{"set":[]}`); !strings.Contains(got, "only the agent") {
		t.Errorf("answer %s", got)
	}
	first.Set([]Session{absent(1), absent(3)})
	await(t, first, "its own next session", at(absent(3)))

	stopFirst()
	await(t, second, "its turn", at(absent(2)))
}

func TestClientStop(t *testing.T) {
	t.Run("running", func(t *testing.T) {
		socket := filepath.Join(t.TempDir(), "bfd.sock")
		_, ended := serveHere(t, socket, time.Hour)
		var starts atomic.Int32
		c, _ := runClient(t, socket, func(context.Context) error { starts.Add(1); return nil })
		c.Set([]Session{absent(1)})
		await(t, c, "the session", at(absent(1)))
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := c.Stop(ctx); err != nil {
			t.Fatal(err)
		}
		<-ended
		if starts.Load() != 0 {
			t.Error("started again what was to be stopped")
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		c := NewClient(filepath.Join(t.TempDir(), "bfd.sock"), nil, testLog(t))
		if err := c.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func TestServerEndsWithoutAgent(t *testing.T) {
	t.Run("none ever came", func(t *testing.T) {
		_, ended := serveHere(t, filepath.Join(t.TempDir(), "bfd.sock"), time.Millisecond)
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatal("goes on for ever")
		}
	})
	t.Run("the last has gone", func(t *testing.T) {
		socket := filepath.Join(t.TempDir(), "bfd.sock")
		_, ended := serveHere(t, socket, 500*time.Millisecond)
		c, stop := runClient(t, socket, nil)
		c.Set([]Session{absent(1)})
		await(t, c, "the session", at(absent(1)))
		stop()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Fatal("goes on for ever")
		}
	})
}

// An agent that hangs holds up nobody, and finds the newest state afterwards.
func TestServerSurvivesAgentThatDoesNotRead(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "bfd.sock")
	serveHere(t, socket, time.Hour)
	c := dialRaw(t, socket)
	c.send(t, `{"watch":true}`)
	for i := range 20 {
		var sessions []Session
		for n := range 200 {
			sessions = append(sessions, absent(i%2*200+n))
		}
		line, err := json.Marshal(request{Set: &sessions})
		if err != nil {
			t.Fatal(err)
		}
		c.send(t, string(line))
	}
	other := dialRaw(t, socket)
	if got := other.ask(t, `{"watch":true}`); !strings.Contains(got, "another agent") {
		t.Errorf("answer %s", got)
	}
}

func TestServerRefusesNonsense(t *testing.T) {
	tests := map[string]string{
		"not JSON":    `hello`,
		"wrong type":  `{"set":5}`,
		"bad address": `{"watch":true,"set":[{"port":"p0","peer":"x"}]}`,
		"bad session": `{"watch":true,"set":[{"port":"p0","peer":"fe80::1"}]}`,
	}
	socket := filepath.Join(t.TempDir(), "bfd.sock")
	serveHere(t, socket, time.Hour)
	for name, line := range tests {
		t.Run(name, func(t *testing.T) {
			c := dialRaw(t, socket)
			if got := c.ask(t, line); !strings.Contains(got, `"error"`) {
				t.Errorf("answer %s", got)
			}
			_ = c.Close()
		})
	}
	t.Run("a line without end", func(t *testing.T) {
		c := dialRaw(t, socket)
		_, _ = c.Write(make([]byte, 2*maxLine)) // fails when the server hangs up
		if _, err := io.Copy(io.Discard, c); err == nil {
			return
		} else if !strings.Contains(err.Error(), "reset") {
			t.Error(err)
		}
	})
}

// raw is a client that need not keep to the protocol; it has read the hello.
type raw struct {
	net.Conn
	lines *bufio.Scanner
}

func dialRaw(t *testing.T, socket string) raw {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c := raw{conn, bufio.NewScanner(conn)}
	if !c.lines.Scan() || !strings.HasPrefix(c.lines.Text(), `{"hello":{"protocol":1,`) {
		t.Fatalf("greeting %q, error %v", c.lines.Text(), c.lines.Err())
	}
	return c
}

func (c raw) send(t *testing.T, line string) {
	t.Helper()
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		t.Fatal(err)
	}
}

func (c raw) ask(t *testing.T, line string) string {
	t.Helper()
	c.send(t, line)
	if !c.lines.Scan() {
		t.Fatalf("no answer: %v", c.lines.Err())
	}
	return c.lines.Text()
}
