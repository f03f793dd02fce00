package kv

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"sync"
)

// Records are what a store holds, with transactions and revisions as etcd's. One
// goroutine uses them.
type Records struct {
	revision  int64
	byKey     map[string]Record
	followers []func(Change)
}

// NewRecords returns none, at the revision at which etcd begins.
func NewRecords() *Records { return &Records{revision: 1, byKey: make(map[string]Record)} }

// Revision is the one of the last change.
func (r *Records) Revision() int64 { return r.revision }

// Get returns a record, if it is there.
func (r *Records) Get(key string) (Record, bool) {
	found, there := r.byKey[key]
	return found, there
}

// Whole is all that there is.
func (r *Records) Whole() Change {
	return Change{Revision: r.revision, Whole: true, Records: slices.Collect(maps.Values(r.byKey))}
}

// Follow has a function be told of each change, while it is carried out.
func (r *Records) Follow(tell func(Change)) { r.followers = append(r.followers, tell) }

// Commit is Store.Commit.
func (r *Records) Commit(t Txn) Outcome {
	for _, c := range t.If {
		is := r.byKey[c.Key]
		if c.Modified >= 0 && is.Modified != c.Modified || c.Modified < 0 && is.Created != c.Created {
			return Outcome{Revision: r.revision}
		}
	}
	change := Change{Revision: r.revision + 1}
	for _, o := range t.Then {
		before, there := r.byKey[o.Key]
		switch {
		case o.Value != nil:
			after := Record{Key: o.Key, Value: bytes.Clone(o.Value), Created: before.Created, Modified: change.Revision}
			if !there {
				after.Created = change.Revision
			}
			r.byKey[o.Key] = after
			change.Records = append(change.Records, after)
		case there:
			delete(r.byKey, o.Key)
			change.Deleted = append(change.Deleted, o.Key)
		}
	}
	if len(change.Records)+len(change.Deleted) > 0 {
		r.revision = change.Revision
		for _, tell := range r.followers {
			tell(change)
		}
	}
	return Outcome{Done: true, Revision: r.revision}
}

// Memory is a Store in this process, and ends with it. It is safe for
// concurrent use.
type Memory struct {
	mu      sync.Mutex
	records *Records
	last    Change
	changed chan struct{} // closed, and another put in its place, with each change
}

var _ Store = (*Memory)(nil)

// NewMemory returns one that holds nothing.
func NewMemory() *Memory {
	m := &Memory{records: NewRecords(), changed: make(chan struct{})}
	m.records.Follow(func(c Change) {
		m.last = c
		close(m.changed)
		m.changed = make(chan struct{})
	})
	return m
}

// Commit implements Store.
func (m *Memory) Commit(_ context.Context, t Txn) (Outcome, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.records.Commit(t), nil
}

// Watch implements Store. Nothing waits for a reader that is slow: it is told
// the whole again.
func (m *Memory) Watch(ctx context.Context, prefix string) <-chan Change {
	changes := make(chan Change)
	go func() {
		defer close(changes)
		for told := int64(-1); ; {
			next, changed := m.since(told)
			if next.Revision != told {
				select {
				case changes <- next.Below(prefix):
					told = next.Revision
				case <-ctx.Done():
					return
				}
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

// since is what there is to tell after a revision, and what is closed when there
// is more.
func (m *Memory) since(revision int64) (Change, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if revision == m.records.revision-1 {
		return m.last, m.changed
	}
	return m.records.Whole(), m.changed
}
