package api

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/net/netutil"
)

// ErrInUse tells that another agent answers on the socket.
var ErrInUse = errors.New("another agent answers")

// maxSocketPath is what sun_path holds besides the final zero, unix(7).
const maxSocketPath = 107

// Listen takes the socket as Serve does, for those who must know that no
// other agent runs before they begin. Who asks in the meantime waits.
//
// The socket is made under a name of its own and renamed into place, so that
// it never exists with other rights than it should have.
func Listen(path string) (net.Listener, error) { return listenAs(path, Group) }

// listenAs lets the members of a group use the socket, if there is such a group.
func listenAs(path, group string) (net.Listener, error) {
	unfinished := fmt.Sprintf("%s.%d", path, os.Getpid())
	if len(unfinished) > maxSocketPath {
		return nil, fmt.Errorf("socket path %s is too long: unix(7) allows %d bytes, process id included", path, maxSocketPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make room for socket: %w", err)
	}
	if err := checkFree(path); err != nil {
		return nil, err
	}
	_ = os.Remove(unfinished) // of a process that had our id and crashed here
	unix, err := net.ListenUnix("unix", &net.UnixAddr{Name: unfinished, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("make socket %s: %w", path, err)
	}
	unix.SetUnlinkOnClose(false)
	l := &listener{Listener: netutil.LimitListener(unix, maxConnections), path: path}
	if err := l.publish(unfinished, group); err != nil {
		_ = os.Remove(unfinished)
		return nil, errors.Join(fmt.Errorf("make socket %s: %w", path, err), unix.Close())
	}
	return l, nil
}

// checkFree refuses a path that somebody listens on or that is no socket.
func checkFree(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is no socket: remove it, or name another path", path)
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
	}
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("%w on %s: stop it first, or name another socket", ErrInUse, path)
}

// listener removes its socket when it closes, unless another has taken the path.
type listener struct {
	net.Listener
	path string
	file os.FileInfo
}

func (l *listener) publish(unfinished, group string) error {
	if gid, ok := groupID(group); ok {
		if err := os.Chown(unfinished, -1, gid); err != nil {
			return err
		}
	}
	if err := os.Chmod(unfinished, 0o660); err != nil {
		return err
	}
	file, err := os.Lstat(unfinished)
	if err != nil {
		return err
	}
	l.file = file
	return os.Rename(unfinished, l.path)
}

// Addr is where the socket is, not where it was made.
func (l *listener) Addr() net.Addr { return &net.UnixAddr{Name: l.path, Net: "unix"} }

// Close ends listening and removes the socket.
func (l *listener) Close() error {
	if now, err := os.Lstat(l.path); err == nil && os.SameFile(now, l.file) {
		_ = os.Remove(l.path)
	}
	return l.Listener.Close()
}

func groupID(name string) (int, bool) {
	group, err := user.LookupGroup(name)
	if err != nil {
		return 0, false
	}
	gid, err := strconv.Atoi(group.Gid)
	return gid, err == nil
}
