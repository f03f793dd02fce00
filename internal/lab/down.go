package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"frond/internal/netns"
)

// Removed counts what Down took away.
type Removed struct{ Processes, Namespaces int }

// endOfProcesses is how long killed processes may take to be gone.
const endOfProcesses = 10 * time.Second

// Down removes everything of a lab: all processes in its namespaces, the
// namespaces, the cables in them, the files. It goes by what is there and not
// by what the files say, so it cleans up after a crash as well; nothing to
// remove is no error.
func Down(ctx context.Context, name string) (Removed, error) {
	var removed Removed
	if err := CheckName(name); err != nil {
		return removed, err
	}
	namespaces, err := namespacesOf(name)
	if err != nil {
		return removed, err
	}
	if removed.Processes, err = killAll(ctx, namespaces); err != nil {
		return removed, fmt.Errorf("take lab %s down: %w", name, err)
	}
	if err := deleteAll(ctx, name, namespaces); err != nil {
		return removed, fmt.Errorf("take lab %s down: %w", name, err)
	}
	removed.Namespaces = len(namespaces)
	if err := removeLXD(ctx, name); err != nil {
		return removed, fmt.Errorf("take lab %s down: %w", name, err)
	}
	if err := os.RemoveAll(filepath.Join(Root, name)); err != nil {
		return removed, fmt.Errorf("take lab %s down: %w", name, err)
	}
	return removed, nil
}

// killAll kills the processes in the namespaces until none is left: one may
// have been starting another.
func killAll(ctx context.Context, namespaces []string) (int, error) {
	inside := map[uint64]bool{}
	for _, name := range namespaces {
		var st unix.Stat_t
		if err := unix.Stat(netns.Path(name), &st); err == nil {
			inside[st.Ino] = true
		}
	}
	ctx, cancel := context.WithTimeout(ctx, endOfProcesses)
	defer cancel()
	killed := map[int]bool{}
	err := poll(ctx, func() bool {
		left := processesIn(inside)
		for _, pid := range left {
			killed[pid] = true
			_ = unix.Kill(pid, unix.SIGKILL) // one that cannot be killed shows as not gone
		}
		return len(left) == 0
	}, "its processes are not gone")
	return len(killed), err
}

// Processes are those that run on a node, whoever started them.
func (l *Lab) Processes(node string) ([]int, error) {
	ns, err := l.Namespace(node)
	if err != nil {
		return nil, err
	}
	defer func() { _ = ns.Close() }()
	inode, err := ns.Inode()
	if err != nil {
		return nil, err
	}
	return processesIn(map[uint64]bool{inode: true}), nil
}

// processesIn are the processes, but for this one, in any of the namespaces.
func processesIn(namespaces map[uint64]bool) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if inode, err := namespaceOf(pid); err == nil && namespaces[inode] {
			pids = append(pids, pid)
		}
	}
	return pids
}
