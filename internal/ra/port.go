package ra

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Port is an interface to discover on.
type Port struct {
	Name  string
	Index int              // in the network namespace of this process
	Addr  netip.Addr       // own link-local address, without zone
	MAC   net.HardwareAddr // empty: the port has none
}

// Equal tells whether it is the same interface with the same addresses.
func (p Port) Equal(o Port) bool {
	return p.Name == o.Name && p.Index == o.Index && p.Addr == o.Addr && slices.Equal(p.MAC, o.MAC)
}

// speaker speaks and listens on one port. One goroutine owns it.
type speaker struct {
	Port
	log    *slog.Logger
	open   func(Port) (*socket, error)
	report func(context.Context, Neighbors)

	socket   *socket
	table    table
	schedule schedule
	closed   []netip.Addr // the sources of the closed filter; nil: it is open

	advertisement, solicitation []byte
}

func newSpeaker(p Port, log *slog.Logger, open func(Port) (*socket, error), report func(context.Context, Neighbors)) (*speaker, error) {
	s := &speaker{Port: p, log: log.With("port", p.Name), open: open, report: report, table: table{self: p.Addr}}
	var err error
	if s.advertisement, err = advertise(p.MAC); err != nil {
		return nil, err
	}
	if s.solicitation, err = solicit(p.MAC); err != nil {
		return nil, err
	}
	return s, nil
}

// run speaks and listens until ctx ends or the port does not exist any more.
// Any other failure is logged and tried again: a port that comes back must
// not depend on somebody telling so.
func (s *speaker) run(ctx context.Context) {
	for {
		err := s.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
			s.log.Info("port is gone, discovery on it ends")
			s.report(ctx, Neighbors{Port: s.Name})
			return
		}
		s.log.Warn("discovery failed, trying again", "error", err, "after", Interval)
		select {
		case <-ctx.Done():
			return
		case <-time.After(Interval):
		}
	}
}

// serve opens the port's socket and uses it until it fails.
func (s *speaker) serve(ctx context.Context) error {
	var err error
	if s.socket, err = s.open(s.Port); err != nil {
		return err
	}
	defer s.socket.close()
	defer context.AfterFunc(ctx, s.socket.close)()
	s.closed = nil
	for {
		if err := s.work(ctx, time.Now()); err != nil {
			return err
		}
		message, from, err := s.socket.receive(s.next())
		if errors.Is(err, os.ErrDeadlineExceeded) {
			continue
		}
		if err != nil {
			return err
		}
		s.hear(ctx, message, from, time.Now())
	}
}

// next is when work has something to do.
func (s *speaker) next() time.Time {
	next := s.schedule.at()
	if at := s.table.next(); !at.IsZero() && at.Before(next) {
		return at
	}
	return next
}

// hear takes a message that passed the socket's filter.
func (s *speaker) hear(ctx context.Context, message []byte, from netip.Addr, now time.Time) {
	icmpType, ok := kind(message)
	if !ok {
		return
	}
	if icmpType == solicitation {
		if from != s.Addr {
			s.schedule.owe()
		}
		return
	}
	changed, isNew := s.table.hear(from, now)
	if isNew {
		s.schedule.owe()
	}
	if changed {
		s.tell(ctx)
	}
}

// work does what is due.
func (s *speaker) work(ctx context.Context, now time.Time) error {
	if s.table.expire(now) {
		s.tell(ctx)
	}
	if err := s.filter(); err != nil {
		return err
	}
	if s.table.ask(now) {
		s.table.asked(now, s.socket.send(s.solicitation, allRouters) == nil)
	}
	advertise, solicit := s.schedule.due(now)
	if !advertise {
		return nil
	}
	err := s.socket.send(s.advertisement, allNodes)
	if err == nil && solicit {
		err = s.socket.send(s.solicitation, allRouters)
	}
	if err == nil {
		s.schedule.sent(now)
		return nil
	}
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) || errors.Is(err, os.ErrClosed) {
		return err
	}
	if s.schedule.fail(now) {
		s.log.Warn("cannot advertise this node", "error", err)
	}
	return nil
}

// filter keeps strangers out in the kernel while there is no place for them.
func (s *speaker) filter() error {
	if !s.table.full() {
		if s.closed == nil {
			return nil
		}
		s.closed = nil
		return s.socket.setFilter(openFilter())
	}
	sources := append(s.table.addresses(), s.Addr)
	if slices.Equal(sources, s.closed) {
		return nil
	}
	s.closed = sources
	return s.socket.setFilter(closedFilter(sources))
}

func (s *speaker) tell(ctx context.Context) {
	n := s.table.neighbors(s.Name)
	s.log.Info("neighbours changed", "neighbors", s.table.addresses(), "looped", n.Looped)
	s.report(ctx, n)
}
