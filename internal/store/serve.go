package store

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	largestConfig = 1 << 20 // bytes
	askAgain      = 250 * time.Millisecond
	// leastSpace is what a member wants to find on its disk before it starts,
	// in bytes: what it writes ahead in segments of segmentSize, and room to
	// compact. With less it would end in the middle of a write.
	leastSpace = 4 * segmentSize
)

// ServeMember is a member's process: it reads a MemberConfig as one line of
// JSON and serves until ctx ends or in does, which is how the agent's end is
// noticed, whatever kind of end it was. On out it writes Reports, one a line.
func ServeMember(ctx context.Context, in io.Reader, out io.Writer, log *slog.Logger) error {
	reader := bufio.NewReaderSize(in, largestConfig)
	line, err := reader.ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("read the member's configuration: %w", err)
	}
	var c MemberConfig
	if err := json.Unmarshal(line, &c); err != nil {
		return fmt.Errorf("read the member's configuration: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with the process: a read cannot be cancelled
		_, _ = io.Copy(io.Discard, reader)
		cancel()
	}()
	m := &server{MemberConfig: c, log: log.With("member", c.Name), reports: &reporter{out: out}}
	err = m.run(ctx)
	var failure *failedError
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.As(err, &failure):
		m.reports.say(Failed, failure.trouble, failure.Error())
	case err != nil:
		m.reports.say(Failed, troubleOf(err.Error()), err.Error())
	}
	return err
}

// failedError is an end of a kind that is known.
type failedError struct {
	trouble Trouble
	err     error
}

func (e *failedError) Error() string { return e.err.Error() }
func (e *failedError) Unwrap() error { return e.err }

// reporter writes reports for the agent.
type reporter struct {
	mu  sync.Mutex
	out io.Writer
}

func (r *reporter) say(state State, trouble Trouble, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	line, err := json.Marshal(Report{State: state, Trouble: trouble, Text: text, Since: time.Now()})
	if err != nil {
		return
	}
	_, _ = r.out.Write(append(line, '\n')) // nobody there: the agent has gone, and in ends too
}

// server is one run of a member.
type server struct {
	MemberConfig
	log     *slog.Logger
	reports *reporter
}

func (s *server) run(ctx context.Context) error {
	unlock, err := s.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.Files.Check(time.Now()); err != nil {
		return &failedError{Certificates, err}
	}
	if err := enoughSpace(s.Dir); err != nil {
		return err
	}
	d, err := s.begin(ctx)
	if err != nil {
		return err
	}
	return s.serve(ctx, d)
}

// lock makes this the only process on the directory; the one before may still
// be ending.
func (s *server) lock(ctx context.Context) (func(), error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the member's directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the member's directory: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		s.reports.say(Waiting, NoTrouble, "another process has "+s.Dir)
		if !pause(ctx, askAgain) {
			_ = f.Close()
			return nil, ctx.Err()
		}
	}
}

func enoughSpace(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at the space for %s: %w", dir, err)
	}
	free := int64(st.Bavail) * st.Bsize
	if free >= leastSpace {
		return nil
	}
	return &failedError{DiskFull, fmt.Errorf("%d MiB are free for %s, a member needs %d: make room, it starts by itself then",
		free>>20, dir, int64(leastSpace)>>20)}
}

// begin decides how this member starts, and asks the others until it can.
func (s *server) begin(ctx context.Context) (decision, error) {
	have, err := inspect(s.Dir)
	if err != nil {
		return decision{}, err
	}
	if have.data && !have.removed {
		return decision{move: resume}, nil
	}
	server, err := s.Files.Server(time.Now())
	if err != nil {
		return decision{}, &failedError{Certificates, err}
	}
	client, err := s.Files.Client(time.Now())
	if err != nil {
		return decision{}, &failedError{Certificates, err}
	}
	if !have.removed {
		stop, err := tellFresh(s.self(), server, s.log)
		if err != nil {
			return decision{}, err
		}
		defer stop()
	}
	said := ""
	for {
		d := decide(s.self(), s.others(), have, askAll(ctx, s.others(), client))
		switch d.move {
		case form, join:
			return d, s.clear(d.move)
		case leaveFirst, askForPlace:
			d.text = "its data is lost: the others make a new place for it"
			if err := s.askForPlace(ctx, d); err != nil {
				d.text = "its data is lost, and it cannot come back yet: " + err.Error()
			}
			have.rejoining = true
		}
		if d.text != said {
			s.reports.say(Waiting, d.trouble, d.text)
			s.log.Info("store member waits", "why", d.text)
			said = d.text
		}
		if !pause(ctx, askAgain) {
			return decision{}, ctx.Err()
		}
	}
}

// askForPlace has the cluster forget what this member was, if it knows it
// still, and make a place for a learner. That this is under way outlives the
// process: in between, nothing else would tell this member from a stranger.
func (s *server) askForPlace(ctx context.Context, d decision) error {
	if err := touch(filepath.Join(s.Dir, rejoinFile)); err != nil {
		return err
	}
	tls, err := s.Files.Client(time.Now())
	if err != nil {
		return err
	}
	var peers []Peer
	for _, p := range s.others() {
		if _, member := find(d.roster, p); member {
			peers = append(peers, p)
		}
	}
	client, err := Open(ClientConfig{Endpoints: Endpoints(peers), TLS: tls, Log: s.log})
	if err != nil {
		return err
	}
	defer client.Close()
	if d.move == leaveFirst {
		if err := client.RemoveMember(ctx, d.old); err != nil {
			return err
		}
	}
	return client.AddMember(ctx, s.self())
}

// clear makes the directory one that has never been used, and keeps what was
// there for once.
func (s *server) clear(m move) error {
	old := filepath.Join(s.Dir, "member")
	if _, err := os.Stat(old); err == nil {
		kept := filepath.Join(s.Dir, "member.old")
		if err := os.RemoveAll(kept); err != nil {
			return fmt.Errorf("remove what was kept: %w", err)
		}
		if err := os.Rename(old, kept); err != nil {
			return fmt.Errorf("put old data aside: %w", err)
		}
		s.log.Warn("store member begins anew, its old data is put aside", "kept", kept)
	}
	for _, name := range []string{removedFile, rejoinFile} {
		if m == join || name == removedFile {
			if err := os.Remove(filepath.Join(s.Dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("begin anew: %w", err)
			}
		}
	}
	return nil
}

// The marks in a member's directory.
const (
	removedFile = "removed"
	rejoinFile  = "rejoining"
)

// inspect says what a member's directory holds.
func inspect(dir string) (local, error) {
	logs, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	if err != nil {
		return local{}, fmt.Errorf("look at the member's data: %w", err)
	}
	there := func(name string) bool { _, err := os.Stat(filepath.Join(dir, name)); return err == nil }
	return local{data: len(logs) > 0, removed: there(removedFile), rejoining: there(rejoinFile)}, nil
}

func touch(name string) error {
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		return fmt.Errorf("mark the member's directory: %w", err)
	}
	return nil
}

// pause waits, and tells whether ctx has not ended.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
