package kernel

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"frond/internal/dataplane"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Where more is notified of than can be heard, or a port seems to be over its
// limit, everything is read anew: after a pause of so many times what that
// takes, and not less than rereadPause.
const (
	rereadPause = 100 * time.Millisecond
	rereadShare = 4
)

// OverlayWatch tells what happens on the segments that it was given.
type OverlayWatch struct {
	kernel *Kernel
	socket *os.File
	events chan dataplane.OverlayEvent
	news   chan struct{} // capacity 1
	reread chan struct{} // capacity 1: read everything, when it is time
	guard  *loopGuard
	guests *guestPorts
	work   sync.WaitGroup

	mu      sync.Mutex
	board   *switchboard
	pending overlayNews
	fresh   bool // segments were set since everything was read
}

// WatchOverlay begins to watch: guests that appear, move and vanish on ports
// of segments' bridges, what they say their addresses are, and what others
// change of devices and neighbours that are frond's. Nothing is told before
// SetSegments. Events that nobody takes are merged, so a slow reader gets
// fewer, never old ones. The watch ends with ctx, or when the kernel can no
// longer be heard, which is logged.
func (k *Kernel) WatchOverlay(ctx context.Context) (*OverlayWatch, error) {
	socket, err := k.subscribe(overlayFilter, []int{unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH})
	if err != nil {
		return nil, fmt.Errorf("watch segments: %w", err)
	}
	w := newOverlayWatch(k, socket)
	go w.run(ctx)
	return w, nil
}

func newOverlayWatch(k *Kernel, socket *os.File) *OverlayWatch {
	w := &OverlayWatch{
		kernel: k,
		socket: socket,
		events: make(chan dataplane.OverlayEvent),
		news:   make(chan struct{}, 1),
		reread: make(chan struct{}, 1),
	}
	w.guard = newLoopGuard(w)
	w.guests = newGuestPorts(k.openRequests)
	w.board = newSwitchboard(&w.pending, w.tap, w.serve, w.guard.suspect)
	return w
}

// Events are what happens. The channel is closed when the watch has ended.
func (w *OverlayWatch) Events() <-chan dataplane.OverlayEvent { return w.events }

// SetSegments replaces the segments that are watched. Guests of those that
// are new are told of as if they had just appeared.
func (w *OverlayWatch) SetSegments(segments []dataplane.Segment) {
	w.mu.Lock()
	w.board.setSegments(segments)
	w.fresh = true
	w.mu.Unlock()
	signal(w.reread)
}

// signal wakes who waits, unless that is awake already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Offsets of struct ndmsg's members in a notification.
const (
	offsetEntryFamily = unix.SizeofNlMsghdr + 0  // ndm_family
	offsetEntryFlags  = unix.SizeofNlMsghdr + 10 // ndm_flags
)

// overlayFilter lets through links, what bridges learn and forget by
// themselves, and what others do to neighbours that a control plane has set.
// Neither the echoes of frond's own batches nor the ordinary neighbours of
// a busy host reach the process. The kernel does not say who has changed a
// forwarding entry, so those of a control plane are left out altogether.
func overlayFilter(ports []uint32) ([]bpf.RawInstruction, error) {
	accept, drop := bpf.RetConstant{Val: verdictAccept}, bpf.RetConstant{Val: verdictDrop}
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetKind, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: swap16(unix.RTM_NEWNEIGH), SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: swap16(unix.RTM_DELNEIGH), SkipTrue: 1},
		accept,
		bpf.LoadAbsolute{Off: offsetEntryFamily, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.AF_BRIDGE, SkipTrue: 4},
		bpf.LoadAbsolute{Off: offsetEntryFlags, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.NTF_SELF | unix.NTF_EXT_LEARNED, SkipTrue: 1},
		accept,
		drop,
		bpf.LoadAbsolute{Off: offsetEntryFlags, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.NTF_EXT_LEARNED, SkipTrue: 1},
		drop,
		bpf.LoadAbsolute{Off: offsetPort, Size: 4},
	}
	for i, port := range ports {
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: swap32(port), SkipTrue: uint8(len(ports) - i)})
	}
	program = append(program, accept, drop)
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("assemble the filter of segments' notifications: %w", err)
	}
	return raw, nil
}

func (w *OverlayWatch) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer close(w.events)
	w.work.Go(func() {
		defer cancel()
		if err := w.read(); ctx.Err() == nil {
			w.kernel.log.Error("segments' notifications cannot be heard any more", "error", err)
		}
	})
	w.work.Go(func() { w.guard.run(ctx) })
	w.work.Go(func() { w.readAllInTurn(ctx) })
	w.hand(ctx)
	_ = w.socket.Close()
	w.mu.Lock()
	w.board.close()
	w.mu.Unlock()
	w.work.Wait()
}

// hand gives events to whoever listens until ctx ends.
func (w *OverlayWatch) hand(ctx context.Context) {
	for {
		w.mu.Lock()
		events := w.pending.take()
		w.mu.Unlock()
		for _, event := range events {
			select {
			case w.events <- event:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-w.news:
		case <-ctx.Done():
			return
		}
	}
}

// read takes in notifications until the socket is closed.
func (w *OverlayWatch) read() error {
	raw, err := w.socket.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		unclear, err := w.receive(raw, buf)
		if err != nil {
			return err
		}
		if unclear {
			signal(w.reread)
		}
		signal(w.news)
	}
}

// receive takes in what comes next, and tells whether everything is to be
// read anew. Nothing is between the socket and the board without the lock:
// discard would miss it, and what it says is older than what was read since.
func (w *OverlayWatch) receive(raw syscall.RawConn, buf []byte) (unclear bool, err error) {
	waitErr := raw.Read(func(fd uintptr) bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		var n int
		n, _, err = unix.Recvfrom(int(fd), buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return false
		case errors.Is(err, unix.EINTR):
			err = nil
		case errors.Is(err, unix.ENOBUFS):
			err, w.board.lost = nil, true
		case err == nil:
			for m := range parse(buf[:n]) {
				w.board.notice(m)
			}
		}
		unclear = w.board.unclear || w.board.lost
		return true
	})
	return unclear, errors.Join(waitErr, err)
}

// readAllInTurn reads everything when that is asked for, and not too often.
func (w *OverlayWatch) readAllInTurn(ctx context.Context) {
	for {
		select {
		case <-w.reread:
		case <-ctx.Done():
			return
		}
		w.mu.Lock()
		ordered := !w.board.unclear && !w.board.lost
		w.mu.Unlock()
		started := time.Now()
		err := w.readAll()
		if err != nil && ctx.Err() == nil {
			w.kernel.log.Warn("cannot read what segments' bridges know", "error", err)
			signal(w.reread)
		}
		if ordered && err == nil {
			continue
		}
		select {
		case <-time.After(max(rereadPause, rereadShare*time.Since(started))):
		case <-ctx.Done():
			return
		}
	}
}

// readAll replaces what is known by what the kernel holds. Notifications of
// what happens meanwhile wait: each is of something newer. Those that wait
// already are older, and would take for gone what has come since.
func (w *OverlayWatch) readAll() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.board.lost = w.discard() || w.board.lost
	var links map[uint32]overlayLink
	var learned []entry
	var err error
	w.kernel.with(func(c *conn) {
		if links, err = readOverlayLinks(c); err != nil {
			return
		}
		err = c.entries(unix.AF_BRIDGE, func() { learned = learned[:0] }, func(e entry) {
			if e.isLearned() {
				learned = append(learned, e)
			}
		})
	})
	if err != nil && !absent(err) {
		return err
	}
	w.board.replace(links, learned)
	if w.fresh {
		if err := w.readNeighbors(); err != nil {
			return err
		}
		w.fresh, w.pending.read = false, true
	}
	signal(w.news)
	return nil
}

// readNeighbors takes in which addresses the kernel knows of guests that are
// here: after a restart, nobody needs to wait until they say so again.
func (w *OverlayWatch) readNeighbors() error {
	var err error
	w.kernel.with(func(c *conn) {
		for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
			var found []entry
			dumpErr := c.entries(family, func() { found = found[:0] }, func(e entry) {
				if e.isValid() {
					found = append(found, e)
				}
			})
			if dumpErr != nil && !absent(dumpErr) {
				err = errors.Join(err, dumpErr)
			}
			for _, e := range found {
				w.board.neighbor(e)
			}
		}
	})
	return err
}

// discard drops the notifications that nobody has taken in yet, and tells
// whether there were any.
func (w *OverlayWatch) discard() (some bool) {
	raw, err := w.socket.SyscallConn()
	if err != nil {
		return false
	}
	var buf [1]byte
	_ = raw.Control(func(fd uintptr) {
		for {
			_, _, err := unix.Recvfrom(int(fd), buf[:], unix.MSG_DONTWAIT|unix.MSG_TRUNC)
			if err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) {
				return
			}
			some = true
		}
	})
	return some
}
