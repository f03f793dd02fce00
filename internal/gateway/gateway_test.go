package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"frond/internal/kv"
	"frond/internal/status"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shared is a store that may be away.
type shared struct {
	*kv.Memory
	away atomic.Bool
}

func newShared() *shared { return &shared{Memory: kv.NewMemory()} }

func (s *shared) Commit(ctx context.Context, t kv.Txn) (kv.Outcome, error) {
	if s.away.Load() {
		return kv.Outcome{}, context.DeadlineExceeded
	}
	return s.Memory.Commit(ctx, t)
}

// bridges are the addresses of a node.
type bridges struct {
	mu   sync.Mutex
	held map[string]uint64 // term by segment
}

func (b *bridges) Set(_ context.Context, list []Holding) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = make(map[string]uint64)
	for _, h := range list {
		b.held[h.Segment] = h.Term
	}
	return nil
}

func (b *bridges) snapshot() map[string]uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.held)
}

type running struct {
	*Gateway
	*bridges
	stop func()
}

func start(t *testing.T, store kv.Store, node string, segments []Segment) *running {
	t.Helper()
	return startOn(t, store, node, node, segments)
}

func startOn(t *testing.T, store kv.Store, machine, node string, segments []Segment) *running {
	t.Helper()
	r := &running{bridges: &bridges{}}
	r.Gateway = New(Config{
		Node: node, Machine: machine, Timing: DefaultTiming, Store: store, Addresses: r.bridges, Clock: Boottime,
	}, slog.New(slog.DiscardHandler))
	r.SetSegments(segments)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", node, err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func eventually(t *testing.T, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still: %v", err)
		}
	}
}

// onceEach wants every segment to be held once.
func onceEach(segments []Segment, nodes ...*running) func() error {
	return func() error {
		count := make(map[string]int)
		for _, n := range nodes {
			for segment := range n.snapshot() {
				count[segment]++
			}
		}
		for _, s := range segments {
			if count[s.Name] != 1 {
				return fmt.Errorf("%s is held %d times", s.Name, count[s.Name])
			}
		}
		return nil
	}
}

func TestGateways(t *testing.T) {
	store := newShared()
	names := []string{"n1", "n2", "n3"}
	var segments []Segment
	for i := range 30 {
		segments = append(segments, Segment{Name: fmt.Sprint("s", i), Nodes: names})
	}
	n1, n2, n3 := start(t, store, "n1", segments), start(t, store, "n2", segments), start(t, store, "n3", segments)
	eventually(t, onceEach(segments, n1, n2, n3))
	eventually(t, func() error {
		for _, n := range []*running{n1, n2, n3} {
			if held := len(n.snapshot()); held < 9 {
				return fmt.Errorf("a node holds %d", held)
			}
		}
		return nil
	})

	before := n1.snapshot()
	if err := n1.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, onceEach(segments, n2, n3))
	if held := n1.snapshot(); len(held) > 0 {
		t.Errorf("after it has left, n1 holds %v", held)
	}
	after := n2.snapshot()
	maps.Copy(after, n3.snapshot())
	for segment, term := range before {
		if after[segment] <= term {
			t.Errorf("%s has moved, and its term went from %d to %d", segment, term, after[segment])
		}
	}
	n1.stop()
	if left := <-store.Watch(t.Context(), nodesPrefix+"n1"); len(left.Records) > 0 {
		t.Error("n1 has left, and its session is there")
	}

	n2.stop() // without leaving
	eventually(t, onceEach(segments, n3))
	report := n3.Report()
	if len(report.Gateways) != len(segments) || report.Left <= 0 {
		t.Errorf("report: %+v", report)
	}

	store.away.Store(true)
	eventually(t, func() error {
		if held := len(n3.snapshot()); held > 0 {
			return fmt.Errorf("without a store %d are held", held)
		}
		conditions := n3.Report().Conditions
		if len(conditions) != 1 || conditions[0].Name != ConditionStoreAway {
			return fmt.Errorf("conditions: %+v", conditions)
		}
		return nil
	})
	store.away.Store(false)
	eventually(t, onceEach(segments, n3))
}

// An agent that is restarted goes on with what it had.
func TestRestart(t *testing.T) {
	store := newShared()
	segments := []Segment{{Name: "blue", Nodes: []string{"n1", "n2"}}}
	n1 := start(t, store, "n1", segments)
	eventually(t, onceEach(segments, n1))
	n2 := start(t, store, "n2", segments)
	term := n1.snapshot()["blue"]
	n1.stop()
	n1 = start(t, store, "n1", segments)
	eventually(t, onceEach(segments, n1))
	if got := n1.snapshot()["blue"]; got != term || len(n2.snapshot()) > 0 {
		t.Errorf("term %d became %d; the other holds %v", term, got, n2.snapshot())
	}
}

// TestNameTwice has two machines go by one name: the second one holds nothing,
// says why, and takes over when the first is gone.
func TestNameTwice(t *testing.T) {
	store := newShared()
	segments := []Segment{{Name: "blue", Nodes: []string{"n1", "n2"}}}
	a := start(t, store, "n1", segments)
	eventually(t, onceEach(segments, a))
	b := startOn(t, store, "another machine", "n1", segments)
	doubled := func(r *running) bool {
		return slices.ContainsFunc(r.Report().Conditions, func(c status.Condition) bool { return c.Name == ConditionNameTwice })
	}
	eventually(t, func() error {
		if !doubled(b) {
			return errors.New("the second one does not say so")
		}
		return nil
	})
	if doubled(a) || len(a.snapshot()) != 1 || len(b.snapshot()) > 0 {
		t.Errorf("the first one says %t and holds %v, the second holds %v", doubled(a), a.snapshot(), b.snapshot())
	}
	a.stop()
	eventually(t, func() error {
		if doubled(b) {
			return errors.New("it is said though the other one is gone")
		}
		return onceEach(segments, b)()
	})
}

func TestTiming(t *testing.T) {
	if err := DefaultTiming.Validate(); err != nil {
		t.Error(err)
	}
	for _, wrong := range []Timing{
		{},
		{Lease: time.Second, Renew: 100 * time.Millisecond, Margin: 1, Slack: 1},
		{Lease: 2 * time.Second, Renew: 600 * time.Millisecond, Margin: 1, Slack: 1},
	} {
		if wrong.Validate() == nil {
			t.Errorf("%+v is taken", wrong)
		}
	}
	timing := Timing{Lease: 3900 * time.Millisecond, Slack: 500 * time.Millisecond}
	tests := []struct{ now, lifetime, before time.Duration }{
		{0, 3 * time.Second, 400 * time.Millisecond},
		{400 * time.Millisecond, 3 * time.Second, 400 * time.Millisecond},
		{401 * time.Millisecond, 2 * time.Second, 1400 * time.Millisecond},
		{2400 * time.Millisecond, time.Second, 2400 * time.Millisecond},
		{2401 * time.Millisecond, 0, 0},
		{time.Hour, 0, 0},
	}
	for _, test := range tests {
		if lifetime, before := timing.Lifetime(0, test.now); lifetime != test.lifetime || before != test.before {
			t.Errorf("after %s: %s before %s, want %s before %s", test.now, lifetime, before, test.lifetime, test.before)
		}
	}
}

// What cannot be read is nobody's: no key of the store stops an agent.
func TestRecordsThatCannotBeRead(t *testing.T) {
	v := newView()
	v.apply(kv.Change{Revision: 9, Whole: true, Records: []kv.Record{
		{Key: "gateways/blue", Value: []byte("{"), Created: 3, Modified: 4},
		{Key: "nodes/n1", Value: []byte(`[]`), Created: 3, Modified: 4},
		{Key: "guests/n1", Value: nil, Created: 3, Modified: 4},
		{Key: "something", Value: []byte("else"), Created: 3, Modified: 4},
		{Key: "", Created: 3, Modified: 4},
	}}, 0)
	if got := v.tenures["blue"]; got.value != (tenure{}) || got.modified != 4 {
		t.Errorf("%+v", got)
	}
	if v.alive("", 0) || !slices.Contains(slices.Collect(maps.Keys(v.beats)), "n1") {
		t.Errorf("%+v", v.beats)
	}
}
