package node

import (
	"context"

	"frond/internal/store"
)

// keys is what is used of store.Service or store.Client.
type keys interface {
	Commit(ctx context.Context, conditions []store.Condition, operations []store.Operation) (done bool, revision int64, err error)
	Watch(ctx context.Context, prefix string) <-chan store.Update
}

// keysBelow are the keys that begin with a prefix, which whoever uses them does
// not see.
type keysBelow struct {
	keys   keys
	prefix string
}

// Commit is store.Client.Commit. It changes what it is given.
func (k keysBelow) Commit(ctx context.Context, conditions []store.Condition, operations []store.Operation) (done bool, revision int64, err error) {
	for i := range conditions {
		conditions[i].Key = k.prefix + conditions[i].Key
	}
	for i := range operations {
		operations[i].Key = k.prefix + operations[i].Key
	}
	return k.keys.Commit(ctx, conditions, operations)
}

// watchBelow is store.Client.Watch, with what it tells in other words.
func watchBelow[T any](ctx context.Context, k keysBelow, prefix string, inWords func(u store.Update, entries []store.Entry, deleted []string) T) <-chan T {
	changes := make(chan T)
	updates := k.keys.Watch(ctx, k.prefix+prefix)
	go func() {
		defer close(changes)
		for u := range updates {
			var entries []store.Entry
			for key, e := range u.Entries {
				e.Key = key[len(k.prefix):]
				entries = append(entries, e)
			}
			var deleted []string
			for key := range u.Deleted {
				deleted = append(deleted, key[len(k.prefix):])
			}
			select {
			case changes <- inWords(u, entries, deleted):
			case <-ctx.Done():
			}
		}
	}()
	return changes
}
