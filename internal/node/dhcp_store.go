package node

import (
	"context"
	"sync"

	"frond/internal/kv"
)

// addressStore is where leases are: in the fabric's store, or in this node's
// memory where the fabric has none that could keep them.
type addressStore struct {
	lent kv.Store
	// reserved is where a node notes what its guests have of the addresses that
	// the document reserves, in a fabric that lends none. Each of these is one
	// client's alone, wherever that asks for it, so that nodes have nothing to
	// tell each other. After a restart guests ask again and get what they had.
	reserved kv.Store

	mu       sync.Mutex
	alone    bool          // addresses are reserved, not lent
	replaced chan struct{} // closed, and another put in its place, when alone changes
}

var _ kv.Store = (*addressStore)(nil)

func newAddressStore(lent kv.Store) *addressStore {
	return &addressStore{lent: lent, reserved: kv.NewMemory(), replaced: make(chan struct{})}
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

func (s *addressStore) current() (kv.Store, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alone {
		return s.reserved, s.replaced
	}
	return s.lent, s.replaced
}

// Commit implements kv.Store.
func (s *addressStore) Commit(ctx context.Context, t kv.Txn) (kv.Outcome, error) {
	store, _ := s.current()
	return store.Commit(ctx, t)
}

// Watch implements kv.Store.
func (s *addressStore) Watch(ctx context.Context, prefix string) <-chan kv.Change {
	return kv.WatchEach(ctx, prefix, s.current)
}
