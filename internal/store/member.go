package store

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// How the time between two starts of a process that ends grows, after how long
// it counts as sound again, and how long it may take to hand over and end.
const (
	firstRestart   = 100 * time.Millisecond
	slowestRestart = 15 * time.Second
	soundAfter     = 30 * time.Second
	endWithin      = 5 * time.Second
	keptLines      = 64 // of what the process wrote, to find why it ended
)

// Member is the agent's side of a member's process.
type Member struct {
	command func() *exec.Cmd
	config  MemberConfig
	logTo   io.Writer
	log     *slog.Logger

	mu     sync.Mutex
	report Report
}

// NewMember returns a member that is not running. The command is one that
// calls ServeMember with its standard input and output; what it writes to
// standard error goes to logTo.
func NewMember(command func() *exec.Cmd, c MemberConfig, logTo io.Writer, log *slog.Logger) *Member {
	return &Member{command: command, config: c, logTo: logTo, log: log,
		report: Report{State: Starting, Since: time.Now()}}
}

// Report says how the member is.
func (m *Member) Report() Report {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.report
}

// Run keeps the process running until ctx ends, and returns nil when it has
// ended. Nothing that goes wrong with it is an error of the agent.
func (m *Member) Run(ctx context.Context) error {
	retry, said := firstRestart, ""
	for ctx.Err() == nil {
		began := time.Now()
		err := m.once(ctx)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > soundAfter {
			retry = firstRestart
		}
		if text := err.Error(); text != said {
			m.log.Error("store member ended", "err", err, "again_in", retry)
			said = text
		}
		pause(ctx, retry)
		retry = min(2*retry, slowestRestart)
	}
	return nil
}

// once runs the process until it ends; the error says why it did.
func (m *Member) once(ctx context.Context) error {
	cmd := m.command()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return fmt.Errorf("start store member: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start store member: %w", err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return fmt.Errorf("start store member: %w", err)
	}
	if err := cmd.Start(); err != nil {
		err = fmt.Errorf("start store member: %w", err)
		m.set(Report{State: Failed, Trouble: OtherTrouble, Text: err.Error(), Since: time.Now()})
		return err
	}
	m.started(cmd.Process.Pid)
	// Its standard input tells the process that the agent lives.
	ended := make(chan struct{})
	var helpers sync.WaitGroup
	helpers.Go(func() { m.tell(stdin) })
	helpers.Go(func() {
		select {
		case <-ended:
			_ = stdin.Close()
			return
		case <-ctx.Done():
			_ = stdin.Close()
		}
		select {
		case <-ended:
		case <-time.After(endWithin):
			_ = cmd.Process.Kill()
		}
	})
	tail := &tail{to: m.logTo}
	helpers.Go(func() { tail.copy(stderr) })
	m.hear(stdout)
	close(ended)
	helpers.Wait()
	return m.over(cmd.Wait(), tail)
}

func (m *Member) tell(stdin io.Writer) {
	line, err := json.Marshal(m.config)
	if err != nil {
		return // it will say that it was told nothing
	}
	_, _ = stdin.Write(append(line, '\n'))
}

// hear takes reports until the process closes its output, by ending.
func (m *Member) hear(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		var r Report
		if err := json.Unmarshal(lines.Bytes(), &r); err == nil {
			m.set(r)
		}
	}
}

func (m *Member) started(pid int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.report.PID = pid
	m.report.Starts++
}

// set takes a report; one that says the same as before began when that did.
func (m *Member) set(r Report) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.State == m.report.State && r.Trouble == m.report.Trouble && r.Text == m.report.Text {
		r.Since = m.report.Since
	}
	r.PID, r.Starts = m.report.PID, m.report.Starts
	// A member that begins again after it failed has not got over it yet.
	if r.State == Starting && r.Text == "" && m.report.State == Failed {
		return
	}
	m.report = r
}

// over is why the process ended: what it said, or what it wrote at its end.
func (m *Member) over(err error, tail *tail) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.report.PID = 0
	if m.report.State == Failed {
		return errors.New(m.report.Text)
	}
	text := tail.why()
	if text == "" && err != nil {
		text = err.Error()
	}
	m.report.State, m.report.Trouble, m.report.Since = Failed, troubleOf(text), time.Now()
	m.report.Text = "the member's process ended: " + text
	return errors.New(m.report.Text)
}

// tail passes on what a process writes and keeps the last lines.
type tail struct {
	to    io.Writer
	lines []string
}

func (t *tail) copy(from io.Reader) {
	reader := bufio.NewReader(from)
	for {
		line, err := reader.ReadString('\n') // ends with the process, whose lines are short
		if line != "" {
			_, _ = io.WriteString(t.to, line)
			t.lines = append(t.lines, strings.TrimSpace(line))
			t.lines = t.lines[max(len(t.lines)-keptLines, 0):]
		}
		if err != nil {
			return
		}
	}
}

// why is the line that says why a Go program ended by itself.
func (t *tail) why() string {
	for _, begin := range []string{"panic: ", "fatal error: ", "frond: "} {
		for _, line := range t.lines {
			if text, ok := strings.CutPrefix(line, begin); ok {
				return text[:min(len(text), longestSay)]
			}
		}
	}
	return ""
}
