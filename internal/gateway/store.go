package gateway

import "context"

// Store is what the gateways need of a strongly consistent key-value store:
// etcd's transactions and watches (etcd.io/docs/v3.5/learning/api). Of its
// leases they need none; see the package's documentation.
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

// Condition compares a revision of a key; 0 is that of a key that is absent.
type Condition struct {
	Key      string
	Created  int64 // compared if Modified is negative
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

func unchanged(key string, modified int64) Condition { return Condition{Key: key, Modified: modified} }

func same(key string, created int64) Condition {
	return Condition{Key: key, Created: created, Modified: -1}
}
