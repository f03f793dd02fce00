package guest

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a hypervisor that can be made to fail. Its instances are on this member.
type fake struct {
	mu        sync.Mutex
	names     []string
	unknown   []string      // of names: those whose configuration is not known
	alone     bool          // it is in no cluster
	elsewhere string        // one on another member
	away      bool          // that member is
	partial   error         // the answer to what other members are asked for
	broken    error         // the answer to everything
	hanging   bool          // there is no answer
	drop      chan struct{} // closed: the connection of events ends
	tell      func(Event)
	connected int
	asked     int // who it is
	listed    int
	surveyed  int
	single    int // for one elsewhere
}

func (f *fake) answer(ctx context.Context) error {
	f.mu.Lock()
	hanging, broken := f.hanging, f.broken
	f.mu.Unlock()
	if hanging {
		<-ctx.Done()
		return ctx.Err()
	}
	return broken
}

func (f *fake) Server(ctx context.Context) (Server, error) {
	f.mu.Lock()
	alone := f.alone
	f.asked++
	f.mu.Unlock()
	return Server{Product: "LXD", Version: "5.0.2", Member: "leaf1", Cluster: !alone}, f.answer(ctx)
}

func (f *fake) Instances(ctx context.Context) ([]Instance, []Key, error) {
	if err := f.answer(ctx); err != nil {
		return nil, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listed++
	known := slices.DeleteFunc(slices.Clone(f.names), func(n string) bool { return slices.Contains(f.unknown, n) })
	return named(known...), keys(f.unknown...), nil
}

func (f *fake) Everywhere(ctx context.Context) ([]Instance, []Key, error) {
	if err := f.answer(ctx); err != nil {
		return nil, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.surveyed++
	far := Instance{Key: Key{"default", f.elsewhere}, Location: "leaf2"}
	switch {
	case f.partial != nil:
		return nil, nil, f.partial
	case f.away:
		return named(f.names...), []Key{far.Key}, nil
	case f.elsewhere == "":
		return named(f.names...), nil, nil
	}
	return append(named(f.names...), far), nil, nil
}

func (f *fake) Keys(ctx context.Context) ([]Key, error) {
	if err := f.answer(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return keys(f.names...), nil
}

func (f *fake) Names(ctx context.Context) ([]Key, error) {
	own, err := f.Keys(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.elsewhere == "" {
		return own, err
	}
	return append(own, Key{"default", f.elsewhere}), err
}

func (f *fake) Instance(ctx context.Context, key Key) (Instance, error) {
	if err := f.answer(ctx); err != nil {
		return Instance{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.elsewhere != "" && key.Name == f.elsewhere {
		f.single++
		switch {
		case f.partial != nil:
			return Instance{}, f.partial
		case f.away:
			return Instance{}, errors.New("its member is away")
		}
		return Instance{Key: key, Location: "leaf2"}, nil
	}
	switch {
	case slices.Contains(f.unknown, key.Name):
		return Instance{}, ErrUnknown
	case !slices.Contains(f.names, key.Name):
		return Instance{}, ErrGone
	}
	return named(key.Name)[0], nil
}

func (f *fake) Events(ctx context.Context, ready func(), tell func(Event)) error {
	f.mu.Lock()
	f.tell, f.drop = tell, make(chan struct{})
	f.connected++
	drop := f.drop
	f.mu.Unlock()
	if err := f.answer(ctx); err != nil {
		return err
	}
	ready()
	select {
	case <-drop:
		return errors.New("the connection has ended")
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// watched runs a watcher of the hypervisor in a bubble of fake time. Its state
// is what the watcher has told last.
func watched(t *testing.T, f *fake, run func(t *testing.T, w *Watcher, state func() State)) {
	synctest.Test(t, func(t *testing.T) {
		w := New(slog.New(slog.DiscardHandler))
		w.open = func(string) Source { return f }
		w.exists = func(socket string) bool { return socket == "there" }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		var last State
		run(t, w, func() State {
			synctest.Wait()
			select {
			case last = <-w.Events():
			default:
			}
			return last
		})
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func wantState(t *testing.T, when string, s State, c Contact, names ...string) {
	t.Helper()
	var got []string
	for _, i := range s.Instances {
		got = append(got, i.Name)
	}
	if s.Contact != c || !slices.Equal(got, names) {
		t.Errorf("%s: %s, knows %v; want %s, %v", when, s.Contact, got, c, names)
	}
}

var somewhere = Desired{Sockets: []string{"nowhere", "there"}}

func TestWatcherFollows(t *testing.T) {
	f := &fake{names: []string{"a"}}
	watched(t, f, func(t *testing.T, w *Watcher, state func() State) {
		wantState(t, "before it is told", state(), Off)
		w.Set(Desired{Sockets: []string{"nowhere"}})
		wantState(t, "without a socket", state(), Absent)
		w.Set(somewhere)
		wantState(t, "connected", state(), Connected, "a")
		f.set(func() { f.names = []string{"a", "b"} })
		f.tell(Event{Key: Key{"default", "b"}})
		wantState(t, "one more", state(), Connected, "a", "b")
		f.set(func() { f.names = []string{"b"} })
		f.tell(Event{Key: Key{"default", "a"}})
		wantState(t, "one less", state(), Connected, "b")
		f.set(func() { f.names = []string{"c"} })
		f.tell(Event{Key: Key{"default", "c"}, Renamed: true})
		wantState(t, "one renamed", state(), Connected, "c")
		f.set(func() { f.names = []string{"c", "d"} })
		time.Sleep(lookInterval)
		wantState(t, "an event was missed", state(), Connected, "c", "d")
		f.set(func() { f.unknown = []string{"c"} })
		f.tell(Event{Key: Key{"default", "c"}})
		wantState(t, "nothing is known of one", state(), Connected, "c", "d")
		f.set(func() { f.elsewhere = "e" })
		f.tell(Event{Key: Key{"default", "e"}, Location: "leaf2"})
		time.Sleep(surveyPause)
		if s := state(); len(s.Elsewhere) != 1 || s.Elsewhere[0].Name != "e" || f.surveyed != 1 || f.single != 1 {
			t.Errorf("elsewhere are %+v, all were asked for %d times and it alone %d", s.Elsewhere, f.surveyed, f.single)
		}
		f.set(func() { f.elsewhere = "" })
		f.tell(Event{Key: Key{"default", "e"}, Location: "leaf2"})
		time.Sleep(surveyPause)
		if s := state(); len(s.Elsewhere) != 0 || f.surveyed != 1 {
			t.Errorf("elsewhere are %+v, all were asked for %d times", s.Elsewhere, f.surveyed)
		}
		if f.connected != 1 {
			t.Errorf("connected %d times", f.connected)
		}
		w.Set(Desired{})
		wantState(t, "none is wanted", state(), Off)
		w.Set(somewhere)
		wantState(t, "wanted again", state(), Connected, "d") // c was known before, of another life
	})
}

// TestWatcherKeeps has the hypervisor fail in every way: what is known stays,
// and is put right when it answers.
func TestWatcherKeeps(t *testing.T) {
	for name, fail := range map[string]func(f *fake){
		"hangs":   func(f *fake) { f.hanging = true },
		"garbage": func(f *fake) { f.broken = errors.New("the answer is none of LXD's API") },
		"restart": func(f *fake) { close(f.drop); f.broken = errors.New("connection refused") },
		"drops":   func(f *fake) { close(f.drop); f.hanging = true },
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{names: []string{"a", "b"}}
			watched(t, f, func(t *testing.T, w *Watcher, state func() State) {
				w.Set(somewhere)
				wantState(t, "at first", state(), Connected, "a", "b")
				f.set(func() { fail(f) })
				time.Sleep(lookInterval + askTime)
				s := state()
				wantState(t, "while it fails", s, Away, "a", "b")
				if s.Trouble == "" || s.Server.Member != "leaf1" {
					t.Errorf("says %+v", s)
				}
				time.Sleep(time.Hour)
				wantState(t, "after an hour", state(), Away, "a", "b")
				if most := 3800 / int(longestPause.Seconds()); f.asked > most {
					t.Errorf("tried %d times", f.asked)
				}
				f.set(func() { f.hanging, f.broken, f.names = false, nil, []string{"b", "c"} })
				time.Sleep(longestPause + askTime)
				wantState(t, "when it answers", state(), Connected, "b", "c")
			})
		})
	}
}

// TestWatcherJoins has a hypervisor join a cluster, which an instance with a
// place in one tells.
func TestWatcherJoins(t *testing.T) {
	f := &fake{alone: true}
	watched(t, f, func(t *testing.T, w *Watcher, state func() State) {
		w.Set(somewhere)
		if s := state(); s.Contact != Connected || s.Server.Cluster {
			t.Errorf("at first: %+v", s)
		}
		f.set(func() { f.alone, f.names = false, []string{"a"} })
		f.tell(Event{Key: Key{"default", "a"}})
		if s := state(); s.Contact != Connected || !s.Server.Cluster || len(s.Instances) != 1 || f.connected != 2 {
			t.Errorf("joined: %+v, connected %d times", s, f.connected)
		}
	})
}

// TestWatcherLeaves has a hypervisor leave its cluster: nobody is elsewhere then.
func TestWatcherLeaves(t *testing.T) {
	f := &fake{names: []string{"a"}, elsewhere: "e"}
	watched(t, f, func(t *testing.T, w *Watcher, state func() State) {
		w.Set(somewhere)
		if s := state(); s.Contact != Connected || len(s.Elsewhere) != 1 {
			t.Errorf("at first: %+v", s)
		}
		f.set(func() { f.alone = true; close(f.drop) })
		time.Sleep(firstPause)
		if s := state(); s.Contact != Connected || s.Server.Cluster || len(s.Elsewhere) != 0 {
			t.Errorf("left: %+v", s)
		}
	})
}

// TestWatcherKeepsThoseElsewhere has another member of the cluster be away, and
// the hypervisor not tell of any.
func TestWatcherKeepsThoseElsewhere(t *testing.T) {
	f := &fake{elsewhere: "e"}
	watched(t, f, func(t *testing.T, w *Watcher, state func() State) {
		want := func(when, trouble string, names ...string) {
			t.Helper()
			s := state()
			var got []string
			for _, i := range s.Elsewhere {
				got = append(got, i.Name)
			}
			if s.Contact != Connected || s.ClusterTrouble != trouble || !slices.Equal(got, names) {
				t.Errorf("%s: %+v", when, s)
			}
		}
		event := func() {
			time.Sleep(surveyPause)
			f.tell(Event{Key: Key{"default", f.elsewhere}, Location: "leaf2"})
			synctest.Wait()
		}
		w.Set(somewhere)
		want("at first", "", "e")
		f.set(func() { f.away = true })
		event()
		want("its member is away", "", "e")
		f.set(func() { f.partial = errors.New("20000 instances") })
		event()
		want("the answer is none", "20000 instances", "e")
		f.set(func() { close(f.drop); f.partial = nil }) // begins anew, with the member away
		time.Sleep(firstPause)
		want("the connection was lost", "", "e")
		f.set(func() { f.partial = errors.New("hangs") })
		event()
		f.set(func() { f.away, f.partial = false, nil })
		time.Sleep(surveyPause + surveyLook)
		want("without another event", "", "e")
		asked := f.surveyed
		time.Sleep(surveyInterval - surveyPause - surveyLook)
		if f.surveyed != asked {
			t.Errorf("asked %d times though nothing has changed", f.surveyed-asked)
		}
		f.set(func() { f.elsewhere = "h" })
		time.Sleep(surveyLook)
		want("an event was missed", "", "h")
	})
}

// TestWatcherSaysWhatIsWrong has the text of a hypervisor that hangs be clear.
func TestWatcherSaysWhatIsWrong(t *testing.T) {
	f := &fake{hanging: true}
	watched(t, f, func(t *testing.T, w *Watcher, state func() State) {
		w.Set(somewhere)
		time.Sleep(askTime)
		if s := state(); s.Contact != Away || s.Trouble != "no answer within 10s" {
			t.Errorf("says %+v", s)
		}
	})
}

// TestWatcherBounds has more events than anybody asks for one by one.
func TestWatcherBounds(t *testing.T) {
	f := &fake{names: []string{"a"}}
	watched(t, f, func(t *testing.T, w *Watcher, state func() State) {
		w.Set(somewhere)
		wantState(t, "at first", state(), Connected, "a")
		for n := range 10 * maxPending {
			w.inbox.mu.Lock() // as if it was asked for something meanwhile
			if len(w.inbox.pending) > maxPending {
				t.Errorf("%d are pending", len(w.inbox.pending))
			}
			w.inbox.mu.Unlock()
			f.tell(Event{Key: Key{"default", string(rune('a' + n))}})
		}
		wantState(t, "after all", state(), Connected, "a")
	})
}
