package node

import (
	"context"

	"frond/internal/dhcp"
	"frond/internal/store"
)

// dhcpKeys is what the keys of guests' addresses begin with.
const dhcpKeys = "dhcp/"

// dhcpStore is the store as guests' addresses see it: dhcp.Store.
type dhcpStore struct{ keys keys }

func (s dhcpStore) below() keysBelow { return keysBelow{s.keys, dhcpKeys} }

// Commit implements dhcp.Store.
func (s dhcpStore) Commit(ctx context.Context, t dhcp.Txn) (dhcp.Outcome, error) {
	conditions := make([]store.Condition, len(t.If))
	for i, c := range t.If {
		conditions[i] = store.Condition{Key: c.Key, Modified: c.Modified}
	}
	operations := make([]store.Operation, len(t.Then))
	for i, o := range t.Then {
		operations[i] = store.Operation(o)
	}
	done, revision, err := s.below().Commit(ctx, conditions, operations)
	return dhcp.Outcome{Done: done, Revision: revision}, err
}

// Watch implements dhcp.Store.
func (s dhcpStore) Watch(ctx context.Context, prefix string) <-chan dhcp.Change {
	return watchBelow(ctx, s.below(), prefix, func(u store.Update, entries []store.Entry, deleted []string) dhcp.Change {
		c := dhcp.Change{Revision: u.Revision, Whole: u.Reset, Deleted: deleted}
		for _, e := range entries {
			c.Records = append(c.Records, dhcp.Record{Key: e.Key, Value: e.Value, Modified: e.Revision})
		}
		return c
	})
}
