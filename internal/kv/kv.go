// Package kv has the words in which a strongly consistent key-value store is
// spoken to: etcd's transactions and watches
// (etcd.io/docs/v3.5/learning/api). Who keeps something in a store and what that
// store is know these, and not each other.
package kv

import (
	"context"
	"strings"
)

// Store is what whoever keeps something needs of a store. Of etcd's leases
// nobody needs any; see package gateway's documentation.
type Store interface {
	// Commit carries out a transaction, or nothing of it if a condition does
	// not hold. An error means that it is not known whether it was, or still
	// will be, carried out.
	Commit(ctx context.Context, t Txn) (Outcome, error)
	// Watch tells of all keys with the prefix, in the order of their
	// revisions, until ctx ends, when it closes the channel. The first change,
	// and the first after a gap that cannot be told, is the whole.
	Watch(ctx context.Context, prefix string) <-chan Change
}

// Record is a key and its value.
type Record struct {
	Key      string
	Value    []byte
	Created  int64 // revision that the key is there since (create_revision)
	Modified int64 // revision of its last change (mod_revision)
}

// Change is what has become of keys. Its slices are not changed any more.
type Change struct {
	Revision int64 // of the store that this is the state of
	Whole    bool  // Records are all that there are
	Records  []Record
	Deleted  []string
}

// Below is a change as a watch of the keys with a prefix tells it.
func (c Change) Below(prefix string) Change {
	below := Change{Revision: c.Revision, Whole: c.Whole}
	for _, r := range c.Records {
		if strings.HasPrefix(r.Key, prefix) {
			below.Records = append(below.Records, r)
		}
	}
	for _, key := range c.Deleted {
		if strings.HasPrefix(key, prefix) {
			below.Deleted = append(below.Deleted, key)
		}
	}
	return below
}

// MostOperations is how many etcd takes in a transaction, and how many conditions
// (--max-txn-ops).
const MostOperations = 128

// Txn is a transaction: all operations, if all conditions hold.
type Txn struct {
	If   []Condition
	Then []Operation
}

// Condition compares a revision of a key; 0 is that of a key that is absent.
type Condition struct {
	Key      string
	Created  int64 // compared if Modified is negative
	Modified int64
}

// Unchanged is that a key's last change was at a revision; 0: that there is none.
func Unchanged(key string, modified int64) Condition { return Condition{Key: key, Modified: modified} }

// Same is that a key is there since a revision, whatever has become of it.
func Same(key string, created int64) Condition {
	return Condition{Key: key, Created: created, Modified: -1}
}

// Operation puts a value, or deletes the key if the value is nil.
type Operation struct {
	Key   string
	Value []byte
}

// Put writes a value, which is not nil.
func Put(key string, value []byte) Operation { return Operation{key, value} }

// Delete removes a key, if it is there.
func Delete(key string) Operation { return Operation{key, nil} }

// Outcome is what became of a transaction.
type Outcome struct {
	Done     bool  // the conditions held
	Revision int64 // of the store afterwards
}
