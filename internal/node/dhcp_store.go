package node

import (
	"context"

	"frond/internal/dhcp"
	"frond/internal/store"
)

// dhcpKeys is what the keys of guests' addresses begin with.
const dhcpKeys = "dhcp/"

// keys is what is used of store.Service or store.Client.
type keys interface {
	Commit(ctx context.Context, conditions []store.Condition, operations []store.Operation) (done bool, revision int64, err error)
	Watch(ctx context.Context, prefix string) <-chan store.Update
}

// dhcpStore is the store as guests' addresses see it: dhcp.Store.
type dhcpStore struct{ keys keys }

// Commit implements dhcp.Store.
func (s dhcpStore) Commit(ctx context.Context, t dhcp.Txn) (dhcp.Outcome, error) {
	conditions := make([]store.Condition, len(t.If))
	for i, c := range t.If {
		conditions[i] = store.Condition{Key: dhcpKeys + c.Key, Modified: c.Modified}
	}
	operations := make([]store.Operation, len(t.Then))
	for i, o := range t.Then {
		operations[i] = store.Operation{Key: dhcpKeys + o.Key, Value: o.Value}
	}
	done, revision, err := s.keys.Commit(ctx, conditions, operations)
	return dhcp.Outcome{Done: done, Revision: revision}, err
}

// Watch implements dhcp.Store.
func (s dhcpStore) Watch(ctx context.Context, prefix string) <-chan dhcp.Change {
	changes := make(chan dhcp.Change)
	updates := s.keys.Watch(ctx, dhcpKeys+prefix)
	go func() {
		defer close(changes)
		for u := range updates {
			c := dhcp.Change{Revision: u.Revision, Whole: u.Reset}
			for key, e := range u.Entries {
				c.Records = append(c.Records, dhcp.Record{Key: key[len(dhcpKeys):], Value: e.Value, Modified: e.Revision})
			}
			for key := range u.Deleted {
				c.Deleted = append(c.Deleted, key[len(dhcpKeys):])
			}
			select {
			case changes <- c:
			case <-ctx.Done():
			}
		}
	}()
	return changes
}
