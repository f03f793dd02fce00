package store

import (
	"errors"
	"testing"

	"frond/internal/kv"
)

func TestCommit(t *testing.T) {
	c := newCluster(t, 3)
	c.startAll()
	client, ctx := c.client(c.machines[0].pki), t.Context()
	type (
		conditions []kv.Condition
		operations []kv.Operation
	)
	put := func(key, value string) kv.Operation { return kv.Put(key, []byte(value)) }

	first, err := client.Commit(ctx, kv.Txn{
		If: conditions{kv.Unchanged("a", 0), kv.Unchanged("b", 0)}, Then: operations{put("a", "1"), put("b", "1")},
	})
	if err != nil || !first.Done {
		t.Fatalf("%+v, %v", first, err)
	}
	if o, err := client.Commit(ctx, kv.Txn{If: conditions{kv.Unchanged("a", 0)}, Then: operations{put("c", "1")}}); err != nil || o.Done {
		t.Errorf("committed although its condition does not hold: %+v, %v", o, err)
	}
	if _, err := client.Get(ctx, "c"); !errors.Is(err, ErrNotFound) {
		t.Errorf("part of it was carried out: %v", err)
	}
	// Whoever does not answer is passed over where nothing was sent to it.
	at, _ := client.preferred()
	c.machines[at].stop()
	c.leader(client)
	for _, when := range []kv.Condition{kv.Unchanged("a", first.Revision), kv.Same("b", first.Revision)} {
		o, err := client.Commit(ctx, kv.Txn{If: conditions{when}, Then: operations{put("b", "2"), kv.Delete("a")}})
		if err != nil || !o.Done || o.Revision <= first.Revision {
			t.Errorf("if %+v: %+v, %v", when, o, err)
		}
	}
	all, _, err := client.List(ctx, "")
	if err != nil || len(all) != 1 || string(all[0].Value) != "2" || all[0].Created != first.Revision {
		t.Errorf("%+v, %v", all, err)
	}
}
