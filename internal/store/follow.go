package store

import (
	"context"
	"errors"

	"frond/internal/kv"
)

// errNoClient tells that there is no store to be asked, or not yet.
var errNoClient = errors.New("the store cannot be asked: there is no client yet")

var _ kv.Store = (*Service)(nil)

// Commit implements kv.Store by the client of the moment. Without one, nothing is
// carried out.
func (s *Service) Commit(ctx context.Context, t kv.Txn) (kv.Outcome, error) {
	client, _ := s.current()
	if client == nil {
		return kv.Outcome{}, errNoClient
	}
	return client.Commit(ctx, t)
}

// Watch implements kv.Store by the client of the moment, from one to the next: the
// first change of each is the whole. While there is none, nothing is told.
func (s *Service) Watch(ctx context.Context, prefix string) <-chan kv.Change {
	return kv.WatchEach(ctx, prefix, func() (kv.Store, <-chan struct{}) {
		client, replaced := s.current()
		if client == nil {
			return nil, replaced
		}
		return client, replaced
	})
}

// current is the client of the moment, and what is closed when another one is.
func (s *Service) current() (*Client, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client, s.replaced
}
