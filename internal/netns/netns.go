// Package netns makes, lists, enters and removes named network namespaces.
//
// A name is a file under /run/netns that a namespace is bind-mounted on, the
// same convention as ip-netns(8): what one makes, the other can enter.
package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is where namespaces have their names, ip-netns(8)'s own place.
const Dir = "/run/netns"

// Path returns the file that a namespace of that name is mounted on.
func Path(name string) string { return filepath.Join(Dir, name) }

// Create makes a namespace and gives it a name. An existing name is an error
// that wraps fs.ErrExist. Nothing inside is up yet, not even lo.
func Create(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	if err := shareDir(); err != nil {
		return fmt.Errorf("prepare %s: %w", Dir, err)
	}
	mountPoint, err := os.OpenFile(Path(name), os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("create network namespace %s: %w", name, err)
	}
	_ = mountPoint.Close()
	err = onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		return unix.Mount(threadNS(), Path(name), "none", unix.MS_BIND, "")
	})
	if err != nil {
		_ = os.Remove(Path(name))
		return fmt.Errorf("create network namespace %s: %w", name, err)
	}
	return nil
}

// Delete takes a namespace's name away. The namespace itself ends, with all
// its devices, once no process and no descriptor is in it any more. A name
// that is not there is no error.
func Delete(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	// EINVAL: a file that nothing is mounted on, left by a crash in Create.
	err := unix.Unmount(Path(name), unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount network namespace %s: %w", name, err)
	}
	if err := os.Remove(Path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete network namespace %s: %w", name, err)
	}
	return nil
}

// List returns the names that exist, sorted.
func List() ([]string, error) {
	entries, err := os.ReadDir(Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// checkName refuses what would leave Dir.
func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("network namespace name %q: want a plain file name", name)
	}
	return nil
}

// shareDir makes Dir a shared mount, so that a name made here is seen in, and
// can be taken away from, other mount namespaces too (ip-netns(8)).
func shareDir() error {
	if err := os.MkdirAll(Dir, 0o755); err != nil {
		return err
	}
	err := unix.Mount("", Dir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	// Not a mount point yet: only those can be shared.
	if err := unix.Mount(Dir, Dir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return unix.Mount("", Dir, "none", unix.MS_SHARED|unix.MS_REC, "")
}

// onOwnThread runs fn on a thread that nothing else runs on, and puts the
// thread back into the namespace that it came from. A thread that cannot be
// put back stays locked to its goroutine, so it dies with it.
func onOwnThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("the function ended its goroutine")
		defer func() { done <- err }()
		runtime.LockOSThread()
		home, openErr := unix.Open(threadNS(), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if openErr != nil {
			runtime.UnlockOSThread()
			err = fmt.Errorf("open the thread's own network namespace: %w", openErr)
			return
		}
		defer func() {
			if unix.Setns(home, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			_ = unix.Close(home)
		}()
		err = fn()
	}()
	return <-done
}

// threadNS is the calling thread's namespace; /proc/self would be the main
// thread's.
func threadNS() string {
	return fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
}
