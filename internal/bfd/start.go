package bfd

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Start returns a function for [NewClient] that runs `EXECUTABLE bfd --socket
// PATH` detached: a session of its own, so that neither the agent's death nor
// its terminal's ends it. The process writes to log if that is an *os.File;
// anything else would have to be copied by the agent that it outlives, so then
// it writes nowhere. Its standard output is the same.
//
// A service manager that kills whole control groups kills it with the agent
// all the same: the agent's unit wants KillMode=process, systemd.kill(5).
func Start(executable, socket string, log io.Writer) func(context.Context) error {
	var mu sync.Mutex
	var started []int // not reaped yet; that happens when the next is started
	return func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		started = slices.DeleteFunc(started, func(pid int) bool {
			reaped, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
			return reaped == pid || err != nil
		})
		cmd := exec.Command(executable, "bfd", "--socket", socket)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		// From the first instruction, so that the runtime makes no more
		// threads than it will use.
		cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
		if f, ok := log.(*os.File); ok {
			cmd.Stdout, cmd.Stderr = f, f
		}
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("start bfd process: %w", err)
		}
		started = append(started, cmd.Process.Pid)
		_ = cmd.Process.Release()
		return nil
	}
}
