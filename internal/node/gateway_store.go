package node

import (
	"context"

	"frond/internal/gateway"
	"frond/internal/store"
)

// gatewayKeys is what the keys of elected gateways begin with.
const gatewayKeys = "gateway/"

// gatewayStore is the store as elected gateways see it: gateway.Store.
type gatewayStore struct{ service *store.Service }

// Commit implements gateway.Store.
func (s gatewayStore) Commit(ctx context.Context, t gateway.Txn) (gateway.Outcome, error) {
	conditions := make([]store.Condition, len(t.If))
	for i, c := range t.If {
		conditions[i] = store.Condition{Key: gatewayKeys + c.Key, Created: c.Created, Modified: c.Modified}
	}
	operations := make([]store.Operation, len(t.Then))
	for i, o := range t.Then {
		operations[i] = store.Operation{Key: gatewayKeys + o.Key, Value: o.Value}
	}
	done, revision, err := s.service.Commit(ctx, conditions, operations)
	return gateway.Outcome{Done: done, Revision: revision}, err
}

// Watch implements gateway.Store.
func (s gatewayStore) Watch(ctx context.Context, prefix string) <-chan gateway.Change {
	changes := make(chan gateway.Change)
	updates := s.service.Watch(ctx, gatewayKeys+prefix)
	go func() {
		defer close(changes)
		for u := range updates {
			select {
			case changes <- changeOf(u):
			case <-ctx.Done():
			}
		}
	}()
	return changes
}

func changeOf(u store.Update) gateway.Change {
	c := gateway.Change{Revision: u.Revision, Whole: u.Reset}
	for key, e := range u.Entries {
		c.Records = append(c.Records, gateway.Record{
			Key: key[len(gatewayKeys):], Value: e.Value, Created: e.Created, Modified: e.Revision,
		})
	}
	for key := range u.Deleted {
		c.Deleted = append(c.Deleted, key[len(gatewayKeys):])
	}
	return c
}
