package node

import (
	"context"
	"slices"
	"strings"

	"frond/internal/kv"
)

// What the keys of elected gateways and those of guests' addresses begin with.
const (
	gatewayKeys = "gateway/"
	dhcpKeys    = "dhcp/"
)

// keysBelow are the keys of a store that begin with a prefix, which whoever uses
// them does not see.
type keysBelow struct {
	store  kv.Store
	prefix string
}

var _ kv.Store = keysBelow{}

// Commit implements kv.Store.
func (k keysBelow) Commit(ctx context.Context, t kv.Txn) (kv.Outcome, error) {
	t.If, t.Then = slices.Clone(t.If), slices.Clone(t.Then)
	for i := range t.If {
		t.If[i].Key = k.prefix + t.If[i].Key
	}
	for i := range t.Then {
		t.Then[i].Key = k.prefix + t.Then[i].Key
	}
	return k.store.Commit(ctx, t)
}

// Watch implements kv.Store.
func (k keysBelow) Watch(ctx context.Context, prefix string) <-chan kv.Change {
	changes := make(chan kv.Change)
	below := k.store.Watch(ctx, k.prefix+prefix)
	go func() {
		defer close(changes)
		for c := range below {
			select {
			case changes <- k.cut(c):
			case <-ctx.Done():
			}
		}
	}()
	return changes
}

// cut is a change with the prefix taken off its keys.
func (k keysBelow) cut(c kv.Change) kv.Change {
	c.Records, c.Deleted = slices.Clone(c.Records), slices.Clone(c.Deleted)
	for i := range c.Records {
		c.Records[i].Key = strings.TrimPrefix(c.Records[i].Key, k.prefix)
	}
	for i := range c.Deleted {
		c.Deleted[i] = strings.TrimPrefix(c.Deleted[i], k.prefix)
	}
	return c
}
