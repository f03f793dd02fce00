package store

import (
	"context"
	"errors"
)

// errNoClient tells that there is no store to be asked, or not yet.
var errNoClient = errors.New("the store cannot be asked: there is no client yet")

// Commit is Client.Commit by the client of the moment. Without one, nothing is
// carried out.
func (s *Service) Commit(ctx context.Context, conditions []Condition, operations []Operation) (done bool, revision int64, err error) {
	client, _ := s.current()
	if client == nil {
		return false, 0, errNoClient
	}
	return client.Commit(ctx, conditions, operations)
}

// Watch is Client.Watch by the client of the moment, from one to the next: the
// first update of each is a reset. While there is none, nothing is told.
func (s *Service) Watch(ctx context.Context, prefix string) <-chan Update {
	updates := make(chan Update)
	go func() {
		defer close(updates)
		for ctx.Err() == nil {
			client, changed := s.current()
			s.watch(ctx, client, prefix, changed, updates)
		}
	}()
	return updates
}

// watch passes on what a client tells until there is another.
func (s *Service) watch(ctx context.Context, client *Client, prefix string, changed <-chan struct{}, updates chan<- Update) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var told <-chan Update
	if client != nil {
		told = client.Watch(ctx, prefix)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			return
		case update, ok := <-told:
			if !ok {
				return
			}
			select {
			case updates <- update:
			case <-changed:
				return
			case <-ctx.Done():
				return
			}
		}
	}
}

// current is the client of the moment, and what is closed when another one is.
func (s *Service) current() (*Client, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client, s.replaced
}
