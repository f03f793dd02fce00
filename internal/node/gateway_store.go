package node

import (
	"context"

	"frond/internal/gateway"
	"frond/internal/store"
)

// gatewayKeys is what the keys of elected gateways begin with.
const gatewayKeys = "gateway/"

// gatewayStore is the store as elected gateways see it: gateway.Store.
type gatewayStore struct{ keys keys }

func (s gatewayStore) below() keysBelow { return keysBelow{s.keys, gatewayKeys} }

// Commit implements gateway.Store.
func (s gatewayStore) Commit(ctx context.Context, t gateway.Txn) (gateway.Outcome, error) {
	conditions := make([]store.Condition, len(t.If))
	for i, c := range t.If {
		conditions[i] = store.Condition(c)
	}
	operations := make([]store.Operation, len(t.Then))
	for i, o := range t.Then {
		operations[i] = store.Operation(o)
	}
	done, revision, err := s.below().Commit(ctx, conditions, operations)
	return gateway.Outcome{Done: done, Revision: revision}, err
}

// Watch implements gateway.Store.
func (s gatewayStore) Watch(ctx context.Context, prefix string) <-chan gateway.Change {
	return watchBelow(ctx, s.below(), prefix, func(u store.Update, entries []store.Entry, deleted []string) gateway.Change {
		c := gateway.Change{Revision: u.Revision, Whole: u.Reset, Deleted: deleted}
		for _, e := range entries {
			c.Records = append(c.Records, gateway.Record{Key: e.Key, Value: e.Value, Created: e.Created, Modified: e.Revision})
		}
		return c
	})
}
