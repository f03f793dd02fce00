package bfd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// agentless is how long sessions go on without any agent: longer than any
// restart or upgrade, and than the graceful restart that the peers grant.
const agentless = 10 * time.Minute

// maxConnections bounds clients of the control socket.
const maxConnections = 8

// Serve is the process that `frond bfd --socket PATH` runs: it keeps BFD
// sessions for the agent that connects to the unix socket, and goes on with
// them while no agent is there, for up to ten minutes. It returns nil when ctx
// ends, when a client asks it to stop or when it waited in vain for an agent;
// all peers were told AdminDown then.
//
// It is made to have a process for itself: it takes real-time scheduling for
// all its threads where that is allowed, tunes Go's runtime for a small heap
// and ignores SIGPIPE. It refuses a socket that another process serves.
func Serve(ctx context.Context, socket string, log *slog.Logger) error {
	signal.Ignore(unix.SIGPIPE) // the agent that read our log may be gone
	tune(log)
	unlock, err := lock(socket)
	if err != nil {
		return err
	}
	defer unlock()
	listener, err := listen(socket)
	if err != nil {
		return err
	}
	log.Info("bfd serves", "socket", socket, "pid", os.Getpid())
	newServer(log, agentless).run(ctx, listener)
	log.Info("bfd stopped")
	return nil
}

// lock makes sure that one process serves a socket, also when two start at
// once. The lock goes with the process; its file stays.
func lock(socket string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return nil, fmt.Errorf("serve bfd: %w", err)
	}
	f, err := os.OpenFile(socket+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("serve bfd: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("serve bfd: another process serves %s", socket)
		}
		return nil, fmt.Errorf("serve bfd: lock %s: %w", f.Name(), err)
	}
	return func() { _ = f.Close() }, nil
}

// listen replaces what a process that died left behind; with the lock held
// nobody answers there.
func listen(socket string) (*net.UnixListener, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("serve bfd: remove dead socket: %w", err)
	}
	defer unix.Umask(unix.Umask(0o177))
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("serve bfd: %w", err)
	}
	return listener, nil
}

// server connects the engine with the wire below and the agent above.
type server struct {
	log       *slog.Logger
	transport *transport
	engine    *engine
	agentless time.Duration

	stop        context.CancelFunc
	connections sync.WaitGroup

	// Of the engine's goroutine:
	agent *connection
	alone *time.Timer // stops the server when it fires
}

func newServer(log *slog.Logger, agentless time.Duration) *server {
	arrivals := make(chan arrival, 64)
	s := &server{log: log, transport: newTransport(arrivals, log), agentless: agentless}
	s.engine = newEngine(s.transport, arrivals, s.publish, log)
	return s
}

func (s *server) publish(st State) {
	if s.agent != nil {
		s.agent.states.put(st)
	}
}

// run serves until ctx ends, a client says stop, or no agent came in time.
func (s *server) run(ctx context.Context, listener *net.UnixListener) {
	engineContext, stop := context.WithCancel(ctx)
	defer stop()
	s.stop = stop
	s.alone = time.AfterFunc(s.agentless, func() {
		s.log.Warn("bfd ends: no agent", "waited", s.agentless)
		stop()
	})
	defer s.alone.Stop()

	// Connections end after the engine: when a client sees its own end, the
	// peers were told and the socket is gone.
	connectionContext, disconnect := context.WithCancel(context.WithoutCancel(ctx))
	defer disconnect()
	s.connections.Go(func() { s.accept(connectionContext, listener) })
	s.connections.Go(func() { s.report(connectionContext) })
	s.engine.run(engineContext)
	_ = listener.Close()
	disconnect()
	s.connections.Wait()
	s.transport.Close()
}

func (s *server) accept(ctx context.Context, listener *net.UnixListener) {
	places := make(chan struct{}, maxConnections)
	for {
		conn, err := listener.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			s.log.Error("bfd ends: it accepts no agent", "err", err)
			s.stop()
			return
		}
		select {
		case places <- struct{}{}:
		default:
			_ = conn.Close()
			continue
		}
		s.connections.Go(func() {
			newConnection(s, conn).run(ctx)
			<-places
		})
	}
}

// reportEvery is how often dropped packets are worth a line.
const reportEvery = time.Minute

// report logs how many packets were dropped, if any were.
func (s *server) report(ctx context.Context) {
	ticker := time.NewTicker(reportEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		invalid, strays := s.transport.dropped.Swap(0), s.engine.strays.Swap(0)
		if invalid+strays > 0 {
			s.log.Warn("bfd dropped packets", "invalid", invalid, "of_no_session", strays, "within", reportEvery)
		}
	}
}
