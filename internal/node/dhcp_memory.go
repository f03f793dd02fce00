package node

import (
	"context"
	"maps"
	"slices"
	"sync"

	"frond/internal/dhcp"
)

// reservedStore is where a node notes what its guests have of the addresses
// that the document reserves, in a fabric that lends none. Each of these is one
// client's alone, wherever that asks for it, so that nodes have nothing to tell
// each other. It is dhcp.Store, in memory: after a restart guests ask again and
// get what they had.
type reservedStore struct {
	mu       sync.Mutex
	revision int64
	records  map[string]dhcp.Record
	changed  chan struct{} // closed, and another put in its place, with each change
}

func newReservedStore() *reservedStore {
	return &reservedStore{revision: 1, records: make(map[string]dhcp.Record), changed: make(chan struct{})}
}

// Commit implements dhcp.Store.
func (s *reservedStore) Commit(_ context.Context, t dhcp.Txn) (dhcp.Outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range t.If {
		if s.records[c.Key].Modified != c.Modified {
			return dhcp.Outcome{Revision: s.revision}, nil
		}
	}
	s.revision++
	for _, o := range t.Then {
		if o.Value == nil {
			delete(s.records, o.Key)
			continue
		}
		s.records[o.Key] = dhcp.Record{Key: o.Key, Value: slices.Clone(o.Value), Modified: s.revision}
	}
	close(s.changed)
	s.changed = make(chan struct{})
	return dhcp.Outcome{Done: true, Revision: s.revision}, nil
}

// Watch implements dhcp.Store. Each change is the whole: there are no more
// records than reservations.
func (s *reservedStore) Watch(ctx context.Context, _ string) <-chan dhcp.Change {
	changes := make(chan dhcp.Change)
	go func() {
		defer close(changes)
		for {
			whole, changed := s.whole()
			select {
			case changes <- whole:
			case <-ctx.Done():
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return changes
}

func (s *reservedStore) whole() (dhcp.Change, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return dhcp.Change{Revision: s.revision, Whole: true, Records: slices.Collect(maps.Values(s.records))}, s.changed
}

// addressStore is where leases are: in the fabric's store, or in this node's
// memory where the fabric has none that could keep them. It is dhcp.Store.
type addressStore struct {
	lent     dhcp.Store
	reserved dhcp.Store

	mu       sync.Mutex
	alone    bool          // addresses are reserved, not lent
	replaced chan struct{} // closed, and another put in its place, when alone changes
}

func newAddressStore(lent dhcp.Store) *addressStore {
	return &addressStore{lent: lent, reserved: newReservedStore(), replaced: make(chan struct{})}
}

// SetAlone sets whether the document has addresses reserved only, and nothing
// to keep leases in.
func (s *addressStore) SetAlone(alone bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if alone == s.alone {
		return
	}
	s.alone = alone
	close(s.replaced)
	s.replaced = make(chan struct{})
}

func (s *addressStore) current() (dhcp.Store, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alone {
		return s.reserved, s.replaced
	}
	return s.lent, s.replaced
}

// Commit implements dhcp.Store.
func (s *addressStore) Commit(ctx context.Context, t dhcp.Txn) (dhcp.Outcome, error) {
	store, _ := s.current()
	return store.Commit(ctx, t)
}

// Watch implements dhcp.Store.
func (s *addressStore) Watch(ctx context.Context, prefix string) <-chan dhcp.Change {
	changes := make(chan dhcp.Change)
	go func() {
		defer close(changes)
		for ctx.Err() == nil {
			s.forward(ctx, prefix, changes)
		}
	}()
	return changes
}

// forward tells what one store does until another one is to be watched.
func (s *addressStore) forward(ctx context.Context, prefix string, changes chan<- dhcp.Change) {
	store, replaced := s.current()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	updates := store.Watch(ctx, prefix)
	for {
		select {
		case <-replaced:
			return
		case c, ok := <-updates:
			if !ok {
				return
			}
			select {
			case changes <- c:
			case <-replaced:
				return
			case <-ctx.Done():
				return
			}
		}
	}
}
