package kernel

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

// Sysctls reads values below /proc/sys; what cannot be read is left out.
func (k *Kernel) Sysctls(paths []string) map[string]string {
	values := make(map[string]string, len(paths))
	err := k.inside(func() error {
		for _, path := range paths {
			if value, err := readSysctl(path); err == nil {
				values[path] = value
			}
		}
		return nil
	})
	if err != nil {
		k.log.Warn("cannot read values below /proc/sys", "error", err)
	}
	return values
}

// readSysctl reads one value without what package os does besides, for pollers
// and sizes: a node with many ports has thousands of them.
func readSysctl(path string) (string, error) {
	if !filepath.IsLocal(path) {
		return "", fs.ErrInvalid
	}
	fd, err := unix.Open(filepath.Join("/proc/sys", path), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer func() { _ = unix.Close(fd) }()
	var value [4096]byte // of a page, as the kernel writes it
	n, err := unix.Read(fd, value[:])
	return strings.TrimSpace(string(value[:max(n, 0)])), err
}

// writeSysctl writes one value. The path is no name with dots: an interface
// may have some of its own.
func (k *Kernel) writeSysctl(path, value string) error {
	if !filepath.IsLocal(path) {
		return fmt.Errorf("sysctl %q: want a path below /proc/sys", path)
	}
	return k.inside(func() error {
		file, err := os.OpenFile(filepath.Join("/proc/sys", path), os.O_WRONLY, 0)
		if err != nil {
			return reason(err)
		}
		_, err = file.WriteString(value)
		return reason(errors.Join(err, file.Close()))
	})
}

// reason is an error without the file's name, which the operation has told.
func reason(err error) error {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err
	}
	return err
}

// inside runs fn in the kernel's namespace: /proc/sys/net is that of the
// thread that looks. Only a thread that is elsewhere has to change.
func (k *Kernel) inside(fn func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var here unix.Stat_t
	if unix.Stat("/proc/thread-self/ns/net", &here) == nil && here.Ino == k.inode {
		return fn()
	}
	return k.ns.Do(fn)
}

// olderThan compares the running kernel's version.
func olderThan(major, minor int) bool {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	var a, b int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &a, &b); err != nil {
		return false
	}
	return a < major || a == major && b < minor
}
