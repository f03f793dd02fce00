package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
)

// Instant is a moment on this machine's own clock since boot, which no one
// sets and which goes on while the machine sleeps (CLOCK_BOOTTIME).
type Instant time.Duration

// Now is the present moment.
func Now() Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // a clock that every Linux since 2.6.39 has
	}
	return Instant(ts.Nano())
}

// Add is the moment that comes so much later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub is the time that passed since the earlier moment.
func (i Instant) Sub(earlier Instant) time.Duration { return time.Duration(i - earlier) }

// driftShare is the share of a lease that is given away because clocks do not
// run alike: 1/200 is ten times what NTP's slew makes of a clock.
const driftShare = 200

// Session is a lease in the store: keys that were written with it are deleted
// when nobody has renewed it for its time.
//
// Until is the moment up to which that can surely not have happened. It is
// counted on this machine's clock from when the renewal was *sent*: the store
// counts from when it came, which is later. Whoever acts on a key of the
// session only before Until never does so beside a successor.
type Session struct {
	client *Client
	id     clientv3.LeaseID
	ttl    time.Duration

	mu      sync.Mutex
	until   Instant
	renewed chan struct{}
}

// NewSession asks for a lease. The time is of whole seconds, at least MinTTL.
func (c *Client) NewSession(ctx context.Context, ttl time.Duration) (*Session, error) {
	if ttl < MinTTL || ttl%time.Second != 0 {
		return nil, fmt.Errorf("ask for a session: %s is no number of whole seconds of at least %s", ttl, MinTTL)
	}
	s := &Session{client: c, ttl: ttl, renewed: make(chan struct{}, 1)}
	err := c.do(ctx, "ask for a session", func(ctx context.Context, member *clientv3.Client, _ bool) error {
		sent := Now()
		got, err := member.Grant(ctx, int64(ttl/time.Second))
		if err != nil {
			return err
		}
		s.id = got.ID
		s.extend(sent, time.Duration(got.TTL)*time.Second)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// lease is 0 without a session.
func (s *Session) lease() clientv3.LeaseID {
	if s == nil {
		return clientv3.NoLease
	}
	return s.id
}

// ID is what Entry.Lease says of the session's keys.
func (s *Session) ID() int64 { return int64(s.id) }

// TTL is the time that a renewal gives.
func (s *Session) TTL() time.Duration { return s.ttl }

// Until is the moment up to which the session surely lives.
func (s *Session) Until() Instant {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.until
}

// Renewed delivers after Until has moved on; what nobody takes is left out.
func (s *Session) Renewed() <-chan struct{} { return s.renewed }

// extend notes a renewal that was sent at that moment. One that gives more
// time than was asked for is not believed: others may have asked for less.
func (s *Session) extend(sent Instant, ttl time.Duration) {
	ttl = min(ttl, s.ttl)
	s.mu.Lock()
	s.until = max(s.until, sent.Add(ttl-ttl/driftShare))
	s.mu.Unlock()
	select {
	case s.renewed <- struct{}{}:
	default:
	}
}

// Renew renews once. ErrSessionLost means that the session has ended, any
// other error that it may go on if a later renewal comes in time.
func (s *Session) Renew(ctx context.Context) error {
	return s.client.do(ctx, "renew a session", func(ctx context.Context, member *clientv3.Client, _ bool) error {
		sent := Now()
		ttl, err := renew(ctx, member, s.id)
		if err != nil {
			return err
		}
		s.extend(sent, ttl)
		return nil
	})
}

// renew asks on a stream of its own: the library's own way asks again and
// again without a pause when a member does not answer.
func renew(ctx context.Context, member *clientv3.Client, id clientv3.LeaseID) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := clientv3.RetryLeaseClient(member).LeaseKeepAlive(ctx)
	if err != nil {
		return 0, err
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil {
		return 0, err
	}
	got, err := stream.Recv()
	if err != nil {
		return 0, rpctypes.Error(err)
	}
	if got.TTL <= 0 {
		return 0, rpctypes.ErrLeaseNotFound
	}
	return time.Duration(got.TTL) * time.Second, nil
}

// Run renews each fifth of the time until ctx ends, and returns nil then. It
// returns ErrSessionLost when the session has ended, which is certain at the
// latest one TTL after Until.
func (s *Session) Run(ctx context.Context) error {
	for pause(ctx, s.ttl/5) {
		err := s.Renew(ctx)
		switch {
		case errors.Is(err, ErrSessionLost):
			return ErrSessionLost
		case Now().Sub(s.Until()) > s.ttl:
			return fmt.Errorf("%w: it was not renewed in time: %w", ErrSessionLost, err)
		}
	}
	return nil
}

// Revoke ends the session and deletes its keys at once. Until is over before
// the store is asked.
func (s *Session) Revoke(ctx context.Context) error {
	s.mu.Lock()
	s.until = 0
	s.mu.Unlock()
	err := s.client.do(ctx, "end a session", func(ctx context.Context, member *clientv3.Client, _ bool) error {
		_, err := member.Revoke(ctx, s.id)
		return err
	})
	if errors.Is(err, ErrSessionLost) {
		return nil
	}
	return err
}
