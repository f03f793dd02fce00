package dhcp

import "context"

// Store is what leases need of a strongly consistent key-value store: etcd's
// transactions and watches (etcd.io/docs/v3.5/learning/api).
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
	Modified int64 // revision of its last change (mod_revision)
}

// Change is what has become of keys.
type Change struct {
	Revision int64 // of the store that this is the state of
	Whole    bool  // Records are all that there are
	Records  []Record
	Deleted  []string
}

// Txn is a transaction.
type Txn struct {
	If   []Condition
	Then []Operation
}

// Condition is that a key's last change was at a revision; 0: there is none.
type Condition struct {
	Key      string
	Modified int64
}

// Operation puts a value, or deletes the key if the value is nil.
type Operation struct {
	Key   string
	Value []byte
}

// Outcome is what became of a transaction.
type Outcome struct {
	Done     bool  // the conditions held
	Revision int64 // of the store afterwards
}
