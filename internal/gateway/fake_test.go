package gateway

import (
	"bytes"
	"maps"
	"slices"
	"strings"
)

// memory is a store in memory: transactions and revisions as etcd's.
type memory struct {
	revision int64
	records  map[string]Record
	watchers []func(Change)
}

func newMemory() *memory { return &memory{revision: 1, records: make(map[string]Record)} }

func (m *memory) commit(t Txn) Outcome {
	for _, c := range t.If {
		r := m.records[c.Key]
		if c.Modified >= 0 && r.Modified != c.Modified || c.Modified < 0 && r.Created != c.Created {
			return Outcome{Revision: m.revision}
		}
	}
	if len(t.Then) == 0 {
		return Outcome{Done: true, Revision: m.revision}
	}
	m.revision++
	change := Change{Revision: m.revision}
	for _, o := range t.Then {
		before, there := m.records[o.Key]
		switch {
		case o.Value != nil:
			if !there {
				before.Created = m.revision
			}
			r := Record{Key: o.Key, Value: bytes.Clone(o.Value), Created: before.Created, Modified: m.revision}
			m.records[o.Key] = r
			change.Records = append(change.Records, r)
		case there:
			delete(m.records, o.Key)
			change.Deleted = append(change.Deleted, o.Key)
		}
	}
	for _, watcher := range m.watchers {
		watcher(change)
	}
	return Outcome{Done: true, Revision: m.revision}
}

func (m *memory) whole() Change {
	return Change{Revision: m.revision, Whole: true, Records: slices.Collect(maps.Values(m.records))}
}

func (c Change) below(prefix string) Change {
	cut := func(key string) (string, bool) { return strings.CutPrefix(key, prefix) }
	out := Change{Revision: c.Revision, Whole: c.Whole}
	for _, r := range c.Records {
		if key, ok := cut(r.Key); ok {
			r.Key = key
			out.Records = append(out.Records, r)
		}
	}
	for _, d := range c.Deleted {
		if key, ok := cut(d); ok {
			out.Deleted = append(out.Deleted, key)
		}
	}
	return out
}
