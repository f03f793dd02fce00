package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"syscall"

	"frond/internal/dataplane"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// watchedGroups are the multicast groups of rtnetlink(7) that are listened to.
var watchedGroups = []int{
	unix.RTNLGRP_LINK,
	unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
	unix.RTNLGRP_NEXTHOP,
	unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
}

// Watch tells of links, beginning with all as they are, and of frond's own
// things that somebody else changes. Events that nobody takes are merged, so
// a slow reader gets fewer, never old ones. The channel is closed when ctx
// ends, or when the kernel can no longer be heard, which is logged.
//
// The kernel removes nexthop objects over a link that goes down without a
// word: LinksChanged.Down stands for that.
func (k *Kernel) Watch(ctx context.Context) (<-chan dataplane.Event, error) {
	socket, err := k.subscribe(notificationFilter, watchedGroups)
	if err != nil {
		return nil, fmt.Errorf("watch the kernel: %w", err)
	}
	w := &watcher{kernel: k, socket: socket, news: make(chan struct{}, 1)}
	if err := w.readAll(); err != nil {
		_ = socket.Close()
		return nil, fmt.Errorf("watch the kernel: %w", err)
	}
	events := make(chan dataplane.Event)
	go w.run(ctx, events)
	return events, nil
}

// subscribe opens a socket that is told of what others change in the groups, as
// far as the filter lets it through.
func (k *Kernel) subscribe(filter func(ports []uint32) ([]bpf.RawInstruction, error), groups []int) (*os.File, error) {
	var fd int
	err := k.inside(func() (err error) {
		fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, err
	}
	socket := os.NewFile(uintptr(fd), "rtnetlink")
	program, err := filter(k.ports)
	if err == nil {
		err = listen(fd, program, groups)
	}
	if err != nil {
		_ = socket.Close()
		return nil, err
	}
	return socket, nil
}

// listen has a socket be told of what happens in the groups. The filter is there
// before anything can come.
func listen(fd int, filter []bpf.RawInstruction, groups []int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer); err != nil {
		return fmt.Errorf("set the receive buffer (CAP_NET_ADMIN is needed): %w", err)
	}
	if err := attachFilter(fd, filter); err != nil {
		return fmt.Errorf("attach the filter: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	for _, group := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group); err != nil {
			return fmt.Errorf("join rtnetlink group %d: %w", group, err)
		}
	}
	return nil
}

// watcher turns notifications into events: one goroutine reads, one hands over.
type watcher struct {
	kernel *Kernel
	socket *os.File
	news   chan struct{} // capacity 1

	mu      sync.Mutex
	table   *linkTable
	told    map[string]dataplane.Link // what the last event said
	down    map[string]struct{}       // seen down since then
	drifted bool
}

func (w *watcher) run(ctx context.Context, events chan<- dataplane.Event) {
	ctx, cancel := context.WithCancel(ctx)
	defer close(events)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer cancel()
		if err := w.read(); ctx.Err() == nil {
			w.kernel.log.Error("the kernel's notifications cannot be heard any more", "error", err)
		}
	})
	w.hand(ctx, events)
	_ = w.socket.Close()
	reader.Wait()
}

// hand gives events to whoever listens until ctx ends.
func (w *watcher) hand(ctx context.Context, events chan<- dataplane.Event) {
	for {
		for _, event := range w.take() {
			select {
			case events <- event:
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

// take returns what is new since the last time.
func (w *watcher) take() []dataplane.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	var events []dataplane.Event
	links := w.table.byName()
	if w.told == nil || len(w.down) > 0 || !maps.Equal(links, w.told) {
		w.told = links
		down := slices.Sorted(maps.Keys(w.down))
		events = append(events, dataplane.LinksChanged{Links: maps.Clone(links), Down: down})
		w.down = nil
	}
	if w.drifted {
		w.drifted = false
		events = append(events, dataplane.Drifted{})
	}
	return events
}

// read takes in notifications until the socket is closed.
func (w *watcher) read() error {
	raw, err := w.socket.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := receiveFrom(raw, buf)
		switch {
		case errors.Is(err, unix.ENOBUFS):
			// Notifications are lost: begin anew.
			if err := w.readAll(); err != nil {
				return err
			}
			w.note(func() { w.drifted = true })
			continue
		case err != nil:
			return err
		}
		w.note(func() {
			for m := range parse(buf[:n]) {
				w.notice(m)
			}
		})
	}
}

func receiveFrom(raw syscall.RawConn, buf []byte) (n int, err error) {
	waitErr := raw.Read(func(fd uintptr) bool {
		for {
			n, _, err = unix.Recvfrom(int(fd), buf, 0)
			if !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	if waitErr != nil {
		return 0, waitErr
	}
	return n, err
}

// receiveAll hands over what comes in by a packet socket, at most so many
// octets of each frame, until the socket is closed.
func receiveAll(socket *os.File, octets int, take func(frame []byte)) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, octets)
	for {
		n, err := receiveFrom(raw, buf)
		switch {
		case errors.Is(err, unix.ENETDOWN): // and up again, or gone
			continue
		case err != nil:
			return // closed
		}
		take(buf[:n])
	}
}

// readAll replaces what is known of links by what the kernel holds.
func (w *watcher) readAll() error {
	var table *linkTable
	var err error
	w.kernel.with(func(c *conn) { table, err = readLinks(c) })
	if err != nil {
		return err
	}
	w.note(func() { w.table = table })
	return nil
}

func (w *watcher) note(change func()) {
	w.mu.Lock()
	change()
	w.mu.Unlock()
	select {
	case w.news <- struct{}{}:
	default: // told already
	}
}

// notice takes in one notification.
func (w *watcher) notice(m message) {
	switch m.kind {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		link, ok := parseLink(m)
		if !ok {
			return
		}
		before := w.table.links[uint32(link.Index)]
		w.table.update(m)
		if before.Name != "" && before.Name != link.Name {
			w.noteDown(before.Name)
		}
		if m.kind == unix.RTM_DELLINK || !link.Up || !link.Carrier {
			w.noteDown(link.Name)
		}
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		w.table.update(m)
		if a, ok := parseAddress(m); ok && (a.protocol == Protocol || w.table.links[a.index].Name == "lo") {
			w.drifted = true
		}
	case unix.RTM_NEWNEXTHOP, unix.RTM_DELNEXTHOP, unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		w.drifted = true
	}
}

func (w *watcher) noteDown(name string) {
	if w.down == nil {
		w.down = make(map[string]struct{})
	}
	w.down[name] = struct{}{}
}
