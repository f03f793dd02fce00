package store

import (
	"bytes"
	"context"
	"errors"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Entry is a key and what it holds.
type Entry struct {
	Key      string
	Value    []byte
	Revision int64 // of its last change: what Update and Delete compare with
	Created  int64 // revision in which it came to be
	Lease    int64 // of the session that it ends with; 0: it stays
}

func (c *Client) entry(kv *mvccpb.KeyValue) Entry {
	return Entry{strings.TrimPrefix(string(kv.Key), c.prefix), kv.Value, kv.ModRevision, kv.CreateRevision, kv.Lease}
}

// Get reads a key as it is now, as confirmed by a majority; ErrNotFound if
// there is none.
func (c *Client) Get(ctx context.Context, key string) (Entry, error) {
	var found Entry
	err := c.do(ctx, "read "+key, func(ctx context.Context, member *clientv3.Client, _ bool) error {
		got, err := member.Get(ctx, c.prefix+key)
		if err != nil {
			return err
		}
		if len(got.Kvs) == 0 {
			return ErrNotFound
		}
		found = c.entry(got.Kvs[0])
		return nil
	})
	return found, err
}

// page is how many keys List asks for at once.
const page = 1000

// List reads all keys below a prefix, sorted, as of one revision.
func (c *Client) List(ctx context.Context, prefix string) ([]Entry, int64, error) {
	var all []Entry
	var revision int64
	from, end := c.prefix+prefix, clientv3.GetPrefixRangeEnd(c.prefix+prefix)
	for more := true; more; {
		err := c.do(ctx, "list "+prefix, func(ctx context.Context, member *clientv3.Client, _ bool) error {
			got, err := member.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(page), clientv3.WithRev(revision))
			if err != nil {
				return err
			}
			for _, kv := range got.Kvs {
				all = append(all, c.entry(kv))
				from = string(kv.Key) + "\x00"
			}
			if revision == 0 {
				revision = got.Header.Revision
			}
			more = got.More
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
	}
	return all, revision, nil
}

// Create writes a key that does not exist; ErrConflict if it does. With a
// session, the key ends with that. The entry is the key as it is then, in
// case of a conflict the other's.
func (c *Client) Create(ctx context.Context, key string, value []byte, s *Session) (Entry, error) {
	return c.swap(ctx, "create "+key, key, 0, value, s)
}

// Update writes a key if its revision is that of the entry before; else
// ErrConflict, with the entry as it is, or ErrNotFound. The key is the
// session's afterwards, or nobody's without one.
func (c *Client) Update(ctx context.Context, before Entry, value []byte, s *Session) (Entry, error) {
	return c.swap(ctx, "update "+before.Key, before.Key, before.Revision, value, s)
}

func (c *Client) swap(ctx context.Context, what, key string, revision int64, value []byte, s *Session) (Entry, error) {
	full, lease := c.prefix+key, s.lease()
	var now Entry
	err := c.do(ctx, what, func(ctx context.Context, member *clientv3.Client, sure bool) error {
		done, err := member.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(full), "=", revision)).
			Then(clientv3.OpPut(full, string(value), clientv3.WithLease(lease)), clientv3.OpGet(full)).
			Else(clientv3.OpGet(full)).
			Commit()
		if err != nil {
			return err
		}
		kvs := done.Responses[len(done.Responses)-1].GetResponseRange().Kvs
		if len(kvs) == 0 {
			return ErrNotFound
		}
		now = c.entry(kvs[0])
		// An earlier try whose answer was lost may be what stands there.
		ours := !sure && bytes.Equal(now.Value, value) && now.Lease == int64(lease)
		if done.Succeeded || ours {
			return nil
		}
		return ErrConflict
	})
	return now, err
}

// Delete removes a key if its revision is that of the entry; else ErrConflict.
// One that is gone already is no error.
func (c *Client) Delete(ctx context.Context, before Entry) error {
	full := c.prefix + before.Key
	return c.do(ctx, "delete "+before.Key, func(ctx context.Context, member *clientv3.Client, _ bool) error {
		done, err := member.Txn(ctx).
			If(clientv3.Compare(clientv3.ModRevision(full), "=", before.Revision)).
			Then(clientv3.OpDelete(full)).
			Else(clientv3.OpGet(full, clientv3.WithKeysOnly())).
			Commit()
		if err != nil || done.Succeeded {
			return err
		}
		if len(done.Responses[0].GetResponseRange().Kvs) > 0 {
			return ErrConflict
		}
		return nil
	})
}

// IsConflict tells whether somebody else was first: the key was changed, made
// or removed.
func IsConflict(err error) bool { return errors.Is(err, ErrConflict) || errors.Is(err, ErrNotFound) }
