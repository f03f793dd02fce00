package kv_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"frond/internal/kv"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func put(key, value string) kv.Operation { return kv.Put(key, []byte(value)) }

func TestRecords(t *testing.T) {
	r := kv.NewRecords()
	var told []kv.Change
	r.Follow(func(c kv.Change) { told = append(told, c) })
	type operations []kv.Operation
	for _, step := range []struct {
		name string
		when []kv.Condition
		then operations
		want kv.Outcome
	}{
		{"what is absent is made", []kv.Condition{kv.Unchanged("a", 0), kv.Same("b", 0)}, operations{put("a", "1"), put("b", "1")}, kv.Outcome{Done: true, Revision: 2}},
		{"it is not absent any more", []kv.Condition{kv.Unchanged("a", 0)}, operations{put("c", "1")}, kv.Outcome{Revision: 2}},
		{"one condition of two does not hold", []kv.Condition{kv.Unchanged("a", 2), kv.Same("b", 1)}, operations{put("c", "1")}, kv.Outcome{Revision: 2}},
		{"it is changed", []kv.Condition{kv.Unchanged("a", 2)}, operations{put("a", "2")}, kv.Outcome{Done: true, Revision: 3}},
		{"it is not what it was", []kv.Condition{kv.Unchanged("a", 2)}, operations{put("a", "3")}, kv.Outcome{Revision: 3}},
		{"it is the same", []kv.Condition{kv.Same("a", 2)}, operations{kv.Delete("a")}, kv.Outcome{Done: true, Revision: 4}},
		{"what is absent is deleted", nil, operations{kv.Delete("a")}, kv.Outcome{Done: true, Revision: 4}},
		{"it is made again", []kv.Condition{kv.Same("a", 0)}, operations{put("a", "")}, kv.Outcome{Done: true, Revision: 5}},
		{"it is another than it was", []kv.Condition{kv.Same("a", 2)}, operations{put("a", "4")}, kv.Outcome{Revision: 5}},
		{"nothing", []kv.Condition{kv.Same("a", 5)}, nil, kv.Outcome{Done: true, Revision: 5}},
	} {
		if got := r.Commit(kv.Txn{If: step.when, Then: step.then}); got != step.want || r.Revision() != step.want.Revision {
			t.Errorf("%s: %+v at %d, want %+v", step.name, got, r.Revision(), step.want)
		}
	}
	a, b := kv.Record{Key: "a", Value: []byte{}, Created: 5, Modified: 5}, kv.Record{Key: "b", Value: []byte("1"), Created: 2, Modified: 2}
	want := []kv.Change{
		{Revision: 2, Records: []kv.Record{{Key: "a", Value: []byte("1"), Created: 2, Modified: 2}, b}},
		{Revision: 3, Records: []kv.Record{{Key: "a", Value: []byte("2"), Created: 2, Modified: 3}}},
		{Revision: 4, Deleted: []string{"a"}},
		{Revision: 5, Records: []kv.Record{a}},
	}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Error("what followers are told:", diff)
	}
	if diff := cmp.Diff(kv.Change{Revision: 5, Whole: true, Records: []kv.Record{a, b}}, sorted(r.Whole())); diff != "" {
		t.Error("the whole:", diff)
	}
	if got, there := r.Get("b"); !there || got.Modified != 2 {
		t.Errorf("b is %+v", got)
	}
	if _, there := r.Get("c"); there {
		t.Error("c is there")
	}
}

func sorted(c kv.Change) kv.Change {
	slices.SortFunc(c.Records, func(x, y kv.Record) int { return strings.Compare(x.Key, y.Key) })
	return c
}

func TestMemory(t *testing.T) {
	m := kv.NewMemory()
	ctx, cancel := context.WithCancel(t.Context())
	commit := func(operations ...kv.Operation) {
		t.Helper()
		if o, err := m.Commit(ctx, kv.Txn{Then: operations}); err != nil || !o.Done {
			t.Fatalf("%+v, %v", o, err)
		}
	}
	x, y := put("in/x", "1"), put("in/y", "1")
	commit(x, put("out", "1"))
	watched := m.Watch(ctx, "in/")
	see := func(what string, revision int64, whole bool, records, deleted int) {
		t.Helper()
		if c := <-watched; c.Revision != revision || c.Whole != whole || len(c.Records) != records || len(c.Deleted) != deleted {
			t.Errorf("%s: %+v", what, c)
		}
	}
	see("the first is the whole", 2, true, 1, 0)
	commit(y)
	see("a change", 3, false, 1, 0)
	commit(kv.Delete("in/x"), kv.Delete("out"))
	see("a deletion", 4, false, 0, 1)
	late := m.Watch(ctx, "")
	if c := <-late; c.Revision != 4 || len(c.Records) != 1 {
		t.Errorf("who comes late is told %+v", c)
	}
	cancel()
	for range watched {
	}
	for range late {
	}
}

// A reader that is slow misses nothing: it is told the whole.
func TestMemoryAndASlowReader(t *testing.T) {
	m := kv.NewMemory()
	ctx, cancel := context.WithCancel(t.Context())
	watched := m.Watch(ctx, "")
	<-watched
	for range 9 {
		if _, err := m.Commit(ctx, kv.Txn{Then: []kv.Operation{put("a", "1"), kv.Delete("b")}}); err != nil {
			t.Fatal(err)
		}
	}
	var last kv.Change
	for last.Revision != 10 {
		last = <-watched
		if len(last.Records) != 1 || last.Records[0].Modified != last.Revision {
			t.Fatalf("%+v", last)
		}
	}
	cancel()
	for range watched {
	}
}
