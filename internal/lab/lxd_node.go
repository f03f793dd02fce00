package lab

import (
	"context"
	_ "embed" // lxd_node.sh
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// lxdRoot is where the LXD of each node keeps what it has, in NAME/NODE: not
// with the lab's other files, for nothing may be run from there on many machines.
const lxdRoot = "/var/lib/frond-lab"

// LXDDir is the LXD_DIR of a node, whether LXD runs there or not.
func (l *Lab) LXDDir(node string) string { return filepath.Join(lxdRoot, l.Name, node) }

//go:embed lxd_node.sh
var lxdNodeScript string

// lxdTime is how long a node's LXD may take to answer.
const lxdTime = 30 * time.Second

// LXDNodes are the nodes that LXD runs on, in the topology's order.
func (l *Lab) LXDNodes() []string {
	var nodes []string
	for _, n := range l.Topology.Nodes {
		if _, err := os.Stat(filepath.Join(l.LXDDir(n.Name), "pid")); err == nil {
			nodes = append(nodes, n.Name)
		}
	}
	return nodes
}

// makeLXDNode makes a node be a machine of its own for LXD, and starts it there.
func (l *Lab) makeLXDNode(ctx context.Context, node string) error {
	ns, err := l.Namespace(node)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	dir := l.LXDDir(node)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("make room for LXD: %w", err)
	}
	log, err := openLog(l.file(node, "lxd.log"))
	if err != nil {
		return fmt.Errorf("start LXD on %s: %w", node, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command("unshare", "--fork", "--kill-child", "--pid", "--mount", "--uts", "--propagation", "private",
		"sh", "-c", lxdNodeScript, "sh", node, dir, cgroupOf(l.Name, node))
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := ns.Start(cmd); err != nil {
		return fmt.Errorf("make %s a machine for LXD: %w", node, err)
	}
	go func() { _ = cmd.Wait() }() // as for agents
	ctx, cancel := context.WithTimeout(ctx, lxdTime)
	defer cancel()
	ready := func() bool { _, err := l.lxdMachine(node); return err == nil }
	if err := poll(ctx, ready, fmt.Sprintf("%s is no machine for LXD, see %s", node, l.file(node, "lxd.log"))); err != nil {
		return err
	}
	return l.StartLXD(ctx, node)
}

// lxdMachine is the first process of a node as LXD sees it.
func (l *Lab) lxdMachine(node string) (int, error) {
	text, err := os.ReadFile(filepath.Join(l.LXDDir(node), "pid"))
	if err != nil {
		return 0, fmt.Errorf("LXD does not run on %s: \"frond lab up --lxd\" makes a lab with it", node)
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// StartLXD starts the LXD of a node and waits until it answers.
func (l *Lab) StartLXD(ctx context.Context, node string) error {
	cmd, err := l.inLXDMachine(context.Background(), node, "lxd", "--group", "root") // which outlives ctx
	if err != nil {
		return err
	}
	log, err := openLog(l.file(node, "lxd.log"))
	if err != nil {
		return fmt.Errorf("start LXD on %s: %w", node, err)
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start LXD on %s: %w", node, err)
	}
	go func() { _ = cmd.Wait() }() // as for agents
	ctx, cancel := context.WithTimeout(ctx, lxdTime)
	defer cancel()
	return l.lxd(ctx, node, "", "waitready")
}

// StopLXD ends the LXD of a node at once; its instances run on.
func (l *Lab) StopLXD(ctx context.Context, node string) error {
	daemons, err := l.lxdDaemons(node)
	if err != nil {
		return err
	}
	for _, pid := range daemons {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("stop LXD on %s: %w", node, err)
		}
	}
	return poll(ctx, func() bool {
		left, err := l.lxdDaemons(node)
		return err == nil && len(left) == 0
	}, "LXD has not ended on "+node)
}

// lxdDaemons are the processes of a node's LXD itself, not of its instances.
func (l *Lab) lxdDaemons(node string) ([]int, error) {
	all, err := l.Processes(node)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(pid int) bool {
		words, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		return err != nil || !strings.HasPrefix(string(words), "lxd\x00--group\x00")
	}), nil
}

func (l *Lab) lxdEnvironment(node string) []string {
	return append(agentEnvironment(), "LXD_DIR="+l.LXDDir(node), "LXD_CONF="+l.file(node, "lxc"), "HOME="+l.Dir())
}

// inLXDMachine is a command on a node as LXD sees it.
func (l *Lab) inLXDMachine(ctx context.Context, node string, words ...string) (*exec.Cmd, error) {
	machine, err := l.lxdMachine(node)
	if err != nil {
		return nil, err
	}
	args := append([]string{"--target", strconv.Itoa(machine), "--net", "--pid", "--mount", "--uts"}, words...)
	cmd := exec.CommandContext(ctx, "nsenter", args...)
	cmd.Dir, cmd.Env = "/", l.lxdEnvironment(node)
	return cmd, nil
}

// lxd runs LXD's own program on a node: one that joins a cluster talks to a
// member of it over the fabric.
func (l *Lab) lxd(ctx context.Context, node, input string, args ...string) error {
	cmd, err := l.inLXDMachine(ctx, node, append([]string{"lxd"}, args...)...)
	if err != nil {
		return err
	}
	_, err = answer(cmd, input, "lxd "+args[0]+" on "+node)
	return err
}

// LXC runs LXD's client for the LXD of a node.
func (l *Lab) LXC(ctx context.Context, node string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "lxc", args...)
	cmd.Dir, cmd.Env = "/", l.lxdEnvironment(node)
	return answer(cmd, "", "lxc "+args[0]+" on "+node)
}

// answer runs a command and returns what it writes; its error has what it
// complains of.
func answer(cmd *exec.Cmd, input, what string) (string, error) {
	cmd.Stdin = strings.NewReader(input) // lxc reads a configuration from what is not a terminal
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s: %w: %s", what, err, strings.TrimSpace(complaint.String()))
	}
	return string(out), nil
}
