package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// largestLog is the size in bytes at which an agent's log is begun anew when
// the agent is started.
const largestLog = 16 << 20

// Start starts a node's agent.
func (l *Lab) Start(node string) error {
	return l.locked(func() error {
		if err := l.Topology.checkNode(node); err != nil {
			return err
		}
		if pid, ok := l.AgentPID(node); ok {
			return fmt.Errorf("the agent of %s runs already, as process %d", node, pid)
		}
		return l.startAgent(node)
	})
}

// Kill ends a node's agent at once (SIGKILL); what it put into the kernel
// stays, and so do the processes that it started.
func (l *Lab) Kill(ctx context.Context, node string) error {
	return l.signalAgent(ctx, node, unix.SIGKILL)
}

// Stop asks a node's agent to end (SIGTERM) and waits until it has, at most
// until ctx ends.
func (l *Lab) Stop(ctx context.Context, node string) error {
	return l.signalAgent(ctx, node, unix.SIGTERM)
}

// Freeze has a node's agent stand still (SIGSTOP), as one does that gets no
// processor; the processes that it started go on.
func (l *Lab) Freeze(node string) error { return l.pause(node, unix.SIGSTOP) }

// Thaw undoes Freeze.
func (l *Lab) Thaw(node string) error { return l.pause(node, unix.SIGCONT) }

func (l *Lab) pause(node string, sig syscall.Signal) error {
	return l.locked(func() error {
		pid, err := l.runningAgent(node)
		if err != nil {
			return err
		}
		if err := unix.Kill(pid, sig); err != nil {
			return fmt.Errorf("signal the agent of %s: %w", node, err)
		}
		return nil
	})
}

// runningAgent is the process of a node's agent; that there is none is an error.
func (l *Lab) runningAgent(node string) (int, error) {
	if err := l.Topology.checkNode(node); err != nil {
		return 0, err
	}
	pid, ok := l.AgentPID(node)
	if !ok {
		return 0, fmt.Errorf("no agent runs on %s: \"frond lab start %s\" starts one", node, node)
	}
	return pid, nil
}

// startAgent starts the agent detached: it lives on when this process ends.
func (l *Lab) startAgent(node string) error {
	ns, err := l.Namespace(node)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	log, err := openLog(l.Log(node))
	if err != nil {
		return fmt.Errorf("start the agent of %s: %w", node, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(l.Binary, "agent", "--config", l.Document(), "--node", node,
		"--state", l.file(node, "state"), "--socket", l.Socket(node), "--pki", l.PKI())
	// Without a hypervisor of its own, a node is not to ask the machine's.
	cmd.Dir, cmd.Env = "/", append(agentEnvironment(), "LXD_DIR="+l.LXDDir(node))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := ns.Start(cmd); err != nil {
		return fmt.Errorf("start the agent of %s: %w", node, err)
	}
	// Reaps the agent if it ends before this process does; init does after.
	go func() { _ = cmd.Wait() }()
	if err := os.WriteFile(l.file(node, "pid"), []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o644); err != nil {
		return fmt.Errorf("note the agent of %s: %w", node, err)
	}
	return nil
}

func openLog(name string) (*os.File, error) {
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if info, err := os.Stat(name); err == nil && info.Size() > largestLog {
		flags |= os.O_TRUNC
	}
	return os.OpenFile(name, flags, 0o644)
}

// agentEnvironment is ours, without what would make many agents talk to the
// service manager as one, or to the machine's LXD.
func agentEnvironment() []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if name != "NOTIFY_SOCKET" && !strings.HasPrefix(name, "WATCHDOG_") && name != "LXD_DIR" && name != "INCUS_DIR" {
			env = append(env, v)
		}
	}
	return env
}

// AgentPID is the process of a node's agent, if it runs.
func (l *Lab) AgentPID(node string) (int, bool) {
	text, err := os.ReadFile(l.file(node, "pid"))
	if err != nil {
		return 0, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, false
	}
	// A number that was given to another process since is in another namespace.
	ns, err := l.Namespace(node)
	if err != nil {
		return 0, false
	}
	defer func() { _ = ns.Close() }()
	home, err := ns.Inode()
	if err != nil {
		return 0, false
	}
	inode, err := namespaceOf(pid)
	return pid, err == nil && inode == home
}

// namespaceOf identifies the network namespace of a process that lives; one
// that has ended, reaped or not, has none.
func namespaceOf(pid int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join("/proc", strconv.Itoa(pid), "ns/net"), &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}

// isEnding tells that a process is gone but for what the kernel has yet to
// close: another one that is started now would find its sockets in use.
func isEnding(pid int) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(stat), ") ") // after the name (proc(5))
	threads, err := os.ReadDir(filepath.Join(proc, "task"))
	_, other := namespaceOf(pid)
	return other != nil && err == nil && (len(threads) > 1 || !strings.HasPrefix(state, "Z"))
}

const pollInterval = 10 * time.Millisecond

func (l *Lab) signalAgent(ctx context.Context, node string, sig syscall.Signal) error {
	return l.locked(func() error {
		pid, err := l.runningAgent(node)
		if err != nil {
			return err
		}
		if err := unix.Kill(pid, sig); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal the agent of %s: %w", node, err)
		}
		return poll(ctx, func() bool {
			_, lives := l.AgentPID(node)
			return !lives && !isEnding(pid)
		}, fmt.Sprintf("the agent of %s has not ended", node))
	})
}

// poll waits until done, at most until ctx ends, which is an error that says
// what is not.
func poll(ctx context.Context, done func() bool, what string) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}
