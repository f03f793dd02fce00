package store

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"frond/internal/kv"
)

// update is what has changed below a prefix, of which several can be put together.
type update struct {
	Revision int64
	// Reset tells that Entries are all that there is: what else was known is
	// gone. The first update is one, and any after a gap.
	Reset   bool
	Entries map[string]Entry // written, by key
	Deleted map[string]struct{}
}

// change is an update in the words of those who watch.
func (u update) change() kv.Change {
	c := kv.Change{Revision: u.Revision, Whole: u.Reset, Deleted: slices.Collect(maps.Keys(u.Deleted))}
	for _, e := range u.Entries {
		c.Records = append(c.Records, kv.Record{Key: e.Key, Value: e.Value, Created: e.Created, Modified: e.Revision})
	}
	return c
}

// Watch implements kv.Store. It survives members that go away and history that is
// compacted. A reader that is slow finds several changes in one; never more than
// one record per key waits for it.
func (c *Client) Watch(ctx context.Context, prefix string) <-chan kv.Change {
	updates, merged, changes := make(chan update), make(chan update), make(chan kv.Change)
	go func() {
		defer close(updates)
		c.follow(ctx, prefix, updates)
	}()
	go func() {
		defer close(merged)
		deliver(updates, merged)
	}()
	go func() {
		defer close(changes)
		for u := range merged {
			select {
			case changes <- u.change():
			case <-ctx.Done():
			}
		}
	}()
	return changes
}

// deliver merges what waits. It ends when updates does.
func deliver(updates <-chan update, merged chan<- update) {
	var pending *update
	for {
		var out chan<- update
		var next update
		if pending != nil {
			out, next = merged, *pending
		}
		select {
		case later, ok := <-updates:
			if !ok {
				return
			}
			pending = merge(pending, later)
		case out <- next:
			pending = nil
		}
	}
}

// merge is what both updates say together, the later one last.
func merge(before *update, after update) *update {
	if before == nil || after.Reset {
		return &after
	}
	before.Revision = after.Revision
	for key := range after.Deleted {
		delete(before.Entries, key)
		if !before.Reset {
			before.Deleted[key] = struct{}{}
		}
	}
	for key, e := range after.Entries {
		before.Entries[key] = e
		delete(before.Deleted, key)
	}
	return before
}

// follow lists and watches until ctx ends.
func (c *Client) follow(ctx context.Context, prefix string, changes chan<- update) {
	var revision int64 // up to which all was told; 0: nothing was
	for ctx.Err() == nil {
		if revision == 0 {
			all, at, err := c.List(ctx, prefix)
			if err != nil {
				pause(ctx, betweenRounds)
				continue
			}
			reset := update{Revision: at, Reset: true, Entries: map[string]Entry{}, Deleted: map[string]struct{}{}}
			for _, e := range all {
				reset.Entries[e.Key] = e
			}
			changes <- reset
			revision = at
		}
		at, member := c.preferred()
		err := c.watchAt(ctx, member, prefix, &revision, changes)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, rpctypes.ErrCompacted), errors.Is(err, rpctypes.ErrFutureRev):
			revision = 0
		case errors.Is(err, errMoved):
		default:
			c.avoid(at)
			pause(ctx, betweenRounds)
		}
	}
}

// errMoved tells that another member is to be asked from now on.
var errMoved = errors.New("another member is preferred")

// watchAt watches at one member until it fails or another is preferred. The
// library waits for a member that cannot be reached for as long as the context
// lasts, at the beginning as well as later.
func (c *Client) watchAt(ctx context.Context, member *clientv3.Client, prefix string, revision *int64, changes chan<- update) error {
	c.mu.Lock()
	moved, still := c.moved, c.clients[c.current] == member
	c.mu.Unlock()
	if !still {
		return errMoved
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var leaving sync.WaitGroup
	defer leaving.Wait()
	defer cancel(nil)
	leaving.Go(func() {
		select {
		case <-moved:
			cancel(errMoved)
		case <-ctx.Done():
		}
	})
	watch := member.Watch(clientv3.WithRequireLeader(ctx), c.prefix+prefix,
		clientv3.WithPrefix(), clientv3.WithRev(*revision+1), clientv3.WithCreatedNotify())
	for got := range watch {
		if err := got.Err(); err != nil {
			return cmp.Or(context.Cause(ctx), err)
		}
		if len(got.Events) == 0 {
			continue
		}
		next := c.updateOf(got)
		changes <- next
		*revision = next.Revision
	}
	return cmp.Or(context.Cause(ctx), rpctypes.ErrNoLeader)
}

func (c *Client) updateOf(got clientv3.WatchResponse) update {
	// The header's revision is the store's, which is ahead of these events
	// while it catches up: to resume there would leave some out.
	u := update{Entries: map[string]Entry{}, Deleted: map[string]struct{}{}}
	for _, event := range got.Events {
		u.Revision = max(u.Revision, event.Kv.ModRevision)
		e := c.entry(event.Kv)
		if event.Type == clientv3.EventTypeDelete {
			delete(u.Entries, e.Key)
			u.Deleted[e.Key] = struct{}{}
			continue
		}
		delete(u.Deleted, e.Key)
		u.Entries[e.Key] = e
	}
	return u
}
