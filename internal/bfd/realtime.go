package bfd

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"

	"golang.org/x/sys/unix"
)

// realtimePriority is the lowest: before everything that is not real-time,
// behind everything that is.
const realtimePriority = 1

// gcPercent keeps the heap close to what lives on it: this process allocates
// next to nothing once its sessions stand.
const gcPercent = 10

// tune makes the process small, and lets it run when the machine is busy: a
// packet that waits for a processor looks like a broken cable. Each step that
// is not allowed is done without.
func tune(log *slog.Logger) {
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(gcPercent)
	if err := runRealtime(); err != nil {
		log.Warn("bfd runs without real-time scheduling: a busy machine may look like a broken cable", "err", err)
	}
	// Memory stays once it was touched, without touching all of the program.
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		log.Warn("bfd does not lock its memory: swapping may look like a broken cable", "err", err)
	}
	debug.FreeOSMemory()
}

// runRealtime puts every thread of the process under SCHED_RR, sched(7).
// Threads made later inherit it; so when a pass over all threads finds none
// that a pass before has missed, it is true of all that will ever be.
func runRealtime() error {
	done := map[int]bool{}
	for {
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("list threads: %w", err)
		}
		news := false
		for _, thread := range threads {
			id, err := strconv.Atoi(thread.Name())
			if err != nil || done[id] {
				continue
			}
			if err := setRealtime(id); err != nil {
				return fmt.Errorf("schedule thread %d: %w", id, err)
			}
			done[id], news = true, true
		}
		if !news {
			return nil
		}
	}
}

func setRealtime(thread int) error {
	err := unix.SchedSetAttr(thread, &unix.SchedAttr{
		Size:     unix.SizeofSchedAttr,
		Policy:   unix.SCHED_RR,
		Priority: realtimePriority,
	}, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil // the thread has ended
	}
	return err
}
