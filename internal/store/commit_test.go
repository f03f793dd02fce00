package store

import (
	"errors"
	"testing"
)

func TestCommit(t *testing.T) {
	c := newCluster(t, 3)
	c.startAll()
	client, ctx := c.client(c.machines[0].pki), t.Context()
	absent := func(key string) Condition { return Condition{Key: key} }
	put := func(key, value string) Operation { return Operation{key, []byte(value)} }

	done, first, err := client.Commit(ctx, []Condition{absent("a"), absent("b")}, []Operation{put("a", "1"), put("b", "1")})
	if err != nil || !done {
		t.Fatalf("%t, %v", done, err)
	}
	if done, _, err := client.Commit(ctx, []Condition{absent("a")}, []Operation{put("c", "1")}); err != nil || done {
		t.Errorf("committed although its condition does not hold: %t, %v", done, err)
	}
	if _, err := client.Get(ctx, "c"); !errors.Is(err, ErrNotFound) {
		t.Errorf("part of it was carried out: %v", err)
	}
	// Whoever does not answer is passed over where nothing was sent to it.
	at, _ := client.preferred()
	c.machines[at].stop()
	c.leader(client)
	for i, conditions := range [][]Condition{{{Key: "a", Modified: first}}, {{Key: "b", Created: first, Modified: -1}}} {
		done, now, err := client.Commit(ctx, conditions, []Operation{put("b", "2"), {Key: "a"}})
		if err != nil || !done || now <= first {
			t.Errorf("%d: %t at %d, %v", i, done, now, err)
		}
	}
	all, _, err := client.List(ctx, "")
	if err != nil || len(all) != 1 || string(all[0].Value) != "2" || all[0].Created != first {
		t.Errorf("%+v, %v", all, err)
	}
}
