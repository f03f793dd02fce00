package netns

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// NS is an open network namespace. It stays alive, even without a name, until
// it is closed.
type NS struct {
	name string
	file *os.File
}

// Open opens the namespace of that name. A missing one is an error that wraps
// fs.ErrNotExist.
func Open(name string) (*NS, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	file, err := os.Open(Path(name))
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", name, err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &st); err != nil || st.Type != unix.NSFS_MAGIC {
		_ = file.Close()
		return nil, fmt.Errorf("open network namespace %s: nothing is mounted on %s", name, Path(name))
	}
	return &NS{name: name, file: file}, nil
}

// Current opens the namespace of the calling thread.
func Current() (*NS, error) {
	// Without the lock the goroutine might move between the two steps.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	file, err := os.Open(threadNS())
	if err != nil {
		return nil, fmt.Errorf("open the current network namespace: %w", err)
	}
	return &NS{file: file}, nil
}

// Close lets go of the namespace.
func (n *NS) Close() error { return n.file.Close() }

// Name is the name that it was opened by; empty for Current.
func (n *NS) Name() string { return n.name }

// Fd is the descriptor, for netlink messages that name a namespace
// (IFLA_NET_NS_FD) and for sockets opened in one. It is valid until Close.
func (n *NS) Fd() int { return int(n.file.Fd()) }

// Inode tells namespaces apart: equal for all descriptors and processes in
// the same one (namespaces(7)).
func (n *NS) Inode() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(n.Fd(), &st); err != nil {
		return 0, fmt.Errorf("stat network namespace %s: %w", n.name, err)
	}
	return st.Ino, nil
}

// Do runs fn inside the namespace, on a thread of its own. Sockets opened by
// fn stay in the namespace for their life; goroutines started by fn are
// outside. fn must not call testing's FailNow.
func (n *NS) Do(fn func() error) error {
	return onOwnThread(func() error {
		if err := n.enter(); err != nil {
			return err
		}
		return fn()
	})
}

// Start starts cmd inside the namespace, which all its descendants inherit.
// The caller waits for it as usual. cmd must not set SysProcAttr.Pdeathsig:
// the thread that starts it may end at any time.
func (n *NS) Start(cmd *exec.Cmd) error { return n.Do(cmd.Start) }

// Exec replaces this process by a program inside the namespace, with a /sys
// that shows the namespace's devices, as ip-netns(8) does. It returns only if
// that failed, and the process should then end: part of it has moved.
func (n *NS) Exec(path string, argv, env []string) error {
	runtime.LockOSThread()
	if err := n.enter(); err != nil {
		return err
	}
	if err := remountSys(); err != nil {
		return fmt.Errorf("mount a /sys for network namespace %s: %w", n.name, err)
	}
	if err := unix.Exec(path, argv, env); err != nil {
		return fmt.Errorf("run %s in network namespace %s: %w", path, n.name, err)
	}
	return nil
}

func (n *NS) enter() error {
	if err := unix.Setns(n.Fd(), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", n.name, err)
	}
	return nil
}

// remountSys gives the calling thread a mount namespace in which /sys belongs
// to its network namespace: sysfs shows the one that it was mounted in.
func remountSys() error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "none", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := unix.Unmount("/sys", unix.MNT_DETACH); err != nil && err != unix.EINVAL {
		return err
	}
	return unix.Mount("sysfs", "/sys", "sysfs", 0, "")
}
