package advertise

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/mdlayher/ndp"
	"golang.org/x/sys/unix"
)

// maxFormer bounds the prefixes that are told to be none any more.
const maxFormer = 4

// order is what a speaker is to say.
type order struct {
	router Router
	final  bool // that it is no router any more
}

// speaker advertises on one link. One goroutine owns it, but for the order.
type speaker struct {
	link Link
	log  *slog.Logger
	open func(Link) (*socket, error)

	socket   *socket
	router   Router
	former   []netip.Prefix
	schedule schedule

	mu    sync.Mutex
	order *order // that was not taken yet
	poke  func() // has the goroutine look at the order
}

func newSpeaker(link Link, router Router, log *slog.Logger, open func(Link) (*socket, error)) *speaker {
	return &speaker{link: link, log: log, open: open, router: router, poke: func() {}}
}

// set gives an order in the place of the one before.
func (s *speaker) set(o order) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order = &o
	s.poke()
}

func (s *speaker) take() (order, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.order == nil {
		return order{}, false
	}
	o := *s.order
	s.order = nil
	return o, true
}

// run advertises until ctx ends or the link does not exist any more. The last
// order is carried out even then.
func (s *speaker) run(ctx context.Context) {
	for {
		err := s.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) {
			<-ctx.Done() // whoever tells of links will say so
			return
		}
		s.log.Warn("cannot advertise the gateway, trying again", "error", err, "after", retryInterval)
		select {
		case <-ctx.Done():
			return
		case <-time.After(retryInterval):
		}
	}
}

// serve opens the link's socket and uses it until it fails.
func (s *speaker) serve(ctx context.Context) error {
	var err error
	if s.socket, err = s.open(s.link); err != nil {
		return err
	}
	defer s.socket.close()
	poke := func() { _ = s.socket.wakeAt(time.Unix(1, 0)) }
	s.mu.Lock()
	s.poke = poke
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.poke = func() {}
		s.mu.Unlock()
	}()
	defer context.AfterFunc(ctx, poke)()
	for {
		if o, ok := s.take(); ok {
			s.obey(o, time.Now())
		}
		if ctx.Err() != nil {
			return nil
		}
		if err := s.work(time.Now()); err != nil {
			return err
		}
		if err := s.sleepUntil(ctx, s.schedule.at()); err != nil {
			return err
		}
		message, err := s.socket.receive()
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.ENETDOWN):
			continue // the latter ends with the next frame, or with the link
		case err != nil:
			return err
		}
		s.hear(message, time.Now())
	}
}

// hear takes a question. Those about information are answered at once, if they
// are not too many.
func (s *speaker) hear(message []byte, now time.Time) {
	if from, err := solicitor(message); err == nil {
		s.schedule.solicited(from, now)
		return
	}
	reply, err := information(s.router, message)
	if err != nil || !s.schedule.informs(now) {
		return
	}
	if err := s.socket.send(reply); err != nil {
		s.log.Debug("cannot answer a guest", "error", err)
	}
}

// sleepUntil lets receive wait until a time, unless there is an order or an
// end by now: those would have come before the deadline that is set here.
func (s *speaker) sleepUntil(ctx context.Context, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.order != nil || ctx.Err() != nil {
		at = time.Unix(1, 0)
	}
	return s.socket.wakeAt(at)
}

// obey takes in a router that has changed, or says that there is none.
func (s *speaker) obey(o order, now time.Time) {
	if o.final {
		if err := s.send(target{allNodesMAC, allNodes}, farewell(s.router)); err != nil {
			s.log.Debug("cannot take back the gateway", "error", err)
		}
		return
	}
	if before := s.router.Prefix.Masked(); before != o.router.Prefix.Masked() {
		s.former = slices.DeleteFunc(append(s.former, before), func(p netip.Prefix) bool { return p == o.router.Prefix.Masked() })
		s.former = s.former[max(len(s.former)-maxFormer, 0):]
	}
	s.router, s.schedule.told = o.router, 0
	s.schedule.all(now)
}

// work sends what is due.
func (s *speaker) work(now time.Time) error {
	all, some := s.schedule.due(now)
	if all {
		some = []target{{allNodesMAC, allNodes}}
	}
	for _, to := range some {
		err := s.send(to, advertisement(s.router, s.former))
		switch {
		case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO), errors.Is(err, os.ErrClosed):
			return err
		case err != nil && all: // down at the moment, or its queue is full
			s.log.Debug("cannot advertise the gateway", "error", err)
			s.schedule.failed(now)
		case all:
			s.schedule.sent(now)
		}
	}
	return nil
}

func (s *speaker) send(to target, m *ndp.RouterAdvertisement) error {
	b, err := frame(s.router, to, m)
	if err != nil {
		return err
	}
	return s.socket.send(b)
}
