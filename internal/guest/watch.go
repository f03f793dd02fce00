package guest

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Desired is where a hypervisor is to be looked for.
type Desired struct {
	// Sockets are where it may answer: the first that exists counts. None: no
	// hypervisor is looked for.
	Sockets []string
	// Expected tells that there is to be one: that there is none is a fault.
	Expected bool
}

// Contact is how the hypervisor can be asked.
type Contact string

// The states of the contact.
const (
	Off       Contact = "off"       // the document wants none
	Absent    Contact = "absent"    // there is no socket
	Away      Contact = "away"      // there is one, but nobody who answers as it should
	Connected Contact = "connected" // what is known is up to date
)

// State is what is known of the hypervisor and its instances here.
type State struct {
	Contact   Contact
	Socket    string // empty: none was found yet
	Server    Server // who answered last
	Since     time.Time
	Trouble   string // in words, of one that is away
	Expected  bool
	Instances []Instance // in the order of Everywhere; not to be changed
	// Elsewhere are those on other members of the cluster, as these have last
	// said: their names, and no more, are good for anything.
	Elsewhere []Instance
	// ClusterTrouble is why Elsewhere may be out of date, in words; empty: it is not.
	ClusterTrouble string
}

// Everywhere are all instances that are known, those of the default project first,
// then by project and name. What is said of one here counts.
func (s State) Everywhere() []Instance {
	all := make(map[Key]Instance, len(s.Instances)+len(s.Elsewhere))
	for _, list := range [][]Instance{s.Elsewhere, s.Instances} {
		for _, i := range list {
			all[i.Key] = i
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b Instance) int { return a.Key.compare(b.Key) })
}

// How long things may take, and how often they are done.
const (
	askTime      = 10 * time.Second // for one answer
	listTime     = 30 * time.Second // for a list with everything in it
	lookInterval = 30 * time.Second // between two comparisons of names
	findInterval = 2 * time.Second  // between two looks for a socket
	firstPause   = 100 * time.Millisecond
	longestPause = 10 * time.Second // before a new attempt
	// maxPending bounds the instances that are to be asked for one by one: the
	// whole list is cheaper then.
	maxPending = 64
)

// Watcher keeps up to date what is known of the instances here. Its state
// belongs to the goroutine of Run.
type Watcher struct {
	open   func(socket string) Source
	exists func(socket string) bool
	log    *slog.Logger
	states chan State    // capacity 1, holds the newest
	wake   chan struct{} // capacity 1: Set was called

	mu   sync.Mutex
	next Desired

	book  *book
	state State
	told  State
	inbox inbox
}

// New returns a watcher of LXD or Incus that does nothing before Run.
func New(log *slog.Logger) *Watcher {
	return &Watcher{
		open:   func(socket string) Source { return NewClient(socket) },
		exists: func(socket string) bool { _, err := os.Stat(socket); return err == nil },
		log:    log,
		states: make(chan State, 1), wake: make(chan struct{}, 1),
		book: newBook(), state: State{Contact: Off}, inbox: inbox{wake: make(chan struct{}, 1)},
	}
}

// Set replaces where a hypervisor is looked for.
func (w *Watcher) Set(d Desired) {
	w.mu.Lock()
	changed := !reflect.DeepEqual(d, w.next)
	w.next = d
	w.mu.Unlock()
	if !changed {
		return
	}
	select {
	case w.wake <- struct{}{}:
	default: // awake already
	}
}

// Events tells each new state. Who is late gets the newest alone.
func (w *Watcher) Events() <-chan State { return w.states }

// Run watches until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	rest := firstPause
	for ctx.Err() == nil {
		select {
		case <-w.wake: // for what is read now
		default:
		}
		w.mu.Lock()
		desired := w.next
		w.mu.Unlock()
		w.state.Expected = desired.Expected
		i := slices.IndexFunc(desired.Sockets, w.exists)
		switch {
		case len(desired.Sockets) == 0:
			w.book = newBook()
			w.state = State{}
			w.be(Off, "")
			select {
			case <-ctx.Done():
			case <-w.wake:
			}
			continue
		case i < 0:
			w.state.Socket = ""
			w.be(Absent, "")
			_, _ = pause(ctx, findInterval, w.wake)
			continue
		}
		w.state.Socket = desired.Sockets[i]
		err := w.attend(ctx, w.open(desired.Sockets[i]))
		if err == nil { // ctx has ended, or other sockets are desired
			continue
		}
		if w.state.Contact == Connected {
			rest = firstPause
			w.log.Warn("the hypervisor does not answer, what is known of its instances stays", "socket", w.state.Socket, "error", err)
		}
		w.be(Away, clip(err.Error()))
		_, _ = pause(ctx, rest, w.wake)
		rest = min(2*rest, longestPause)
	}
	return nil
}

// be notes the state of the contact and tells it.
func (w *Watcher) be(c Contact, trouble string) {
	if w.state.Contact != c {
		w.state.Since = time.Now()
	}
	w.state.Contact, w.state.Trouble = c, trouble
	w.tell()
}

func (w *Watcher) tell() {
	w.state.Instances = w.book.list()
	if reflect.DeepEqual(w.state, w.told) {
		return
	}
	w.told = w.state
	select {
	case <-w.states:
	default:
	}
	w.states <- w.state
}

// attend keeps up to date what is known until something fails, which is its
// error. It has none if ctx has ended or another hypervisor is desired.
func (w *Watcher) attend(ctx context.Context, source Source) error {
	server, err := ask(ctx, askTime, source.Server)
	if err != nil {
		return unless(ctx, err)
	}
	if server != w.book.server {
		w.book.server, w.state.Server = server, server
	}
	if !server.Cluster {
		w.state.Elsewhere, w.state.ClusterTrouble = nil, "" // it may have left one
	}
	w.inbox.clear()
	hears := make(chan struct{})
	group, work := errgroup.WithContext(ctx)
	far := newSurvey(w.state.Elsewhere)
	group.Go(func() error {
		return source.Events(work, func() { close(hears) }, func(e Event) { w.hear(e, server, far) })
	})
	if server.Cluster {
		group.Go(func() error { return far.run(work, source, server, hears) })
	}
	group.Go(func() error { return w.follow(work, source, hears, far) })
	if err := group.Wait(); !errors.Is(err, errRearranged) {
		return unless(ctx, err)
	}
	return nil
}

// errRearranged ends what was begun for a Desired of before, or for a hypervisor
// that is not any more what it was: it has joined a cluster.
var errRearranged = errors.New("another hypervisor is to be watched")

// hear has somebody ask for what an event names: what happens on other members
// is not to delay what happens here.
func (w *Watcher) hear(e Event, server Server, far *survey) {
	if server.Cluster && e.Location != "" && e.Location != server.Member {
		far.inbox.put(e)
		return
	}
	w.inbox.put(e)
}

// unless is an error that is not due to the end of ctx.
func unless(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// follow lists all instances once events are heard, and asks for what these
// name after that.
func (w *Watcher) follow(ctx context.Context, source Source, hears <-chan struct{}, far *survey) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-hears:
	}
	if err := w.list(ctx, source); err != nil {
		return err
	}
	w.be(Connected, "")
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.wake:
			return errRearranged
		case others := <-far.found:
			w.state.Elsewhere, w.state.ClusterTrouble = others.instances, ""
			if others.err != nil {
				w.state.ClusterTrouble = clip(others.err.Error())
			}
		case <-look.C:
			err = w.look(ctx, source)
		case <-w.inbox.wake:
			if keys, all := w.inbox.take(); all {
				err = w.list(ctx, source)
			} else {
				err = w.ask(ctx, source, keys)
			}
		}
		if err == nil && w.book.strayed() {
			err = w.same(ctx, source)
		}
		if err != nil {
			return err
		}
		w.tell()
	}
}

func (w *Watcher) list(ctx context.Context, source Source) error {
	return bounded(ctx, listTime, func(ctx context.Context) error {
		known, unknown, err := source.Instances(ctx)
		if err == nil {
			w.book.replace(known, unknown)
		}
		return err
	})
}

// same tells by errRearranged that the hypervisor is not any more what it was.
func (w *Watcher) same(ctx context.Context, source Source) error {
	server, err := ask(ctx, askTime, source.Server)
	if err == nil && server != w.book.server {
		return errRearranged
	}
	return err
}

// look compares names: should an event have been missed, this finds it.
func (w *Watcher) look(ctx context.Context, source Source) error {
	if err := w.same(ctx, source); err != nil {
		return err
	}
	all, err := ask(ctx, askTime, source.Keys)
	if err != nil {
		return err
	}
	return w.ask(ctx, source, w.book.compare(all))
}

func (w *Watcher) ask(ctx context.Context, source Source, keys []Key) error {
	for _, key := range keys {
		i, err := ask(ctx, askTime, func(ctx context.Context) (Instance, error) { return source.Instance(ctx, key) })
		switch {
		case errors.Is(err, ErrGone):
			w.book.forget(key)
		case errors.Is(err, ErrUnknown):
			w.book.doubt(key)
		case err != nil:
			return err
		default:
			w.book.put(i)
		}
	}
	return nil
}

// bounded asks for no longer than d, and says so if that was not long enough.
func bounded(ctx context.Context, d time.Duration, ask func(context.Context) error) error {
	limited, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	err := ask(limited)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return noAnswer(d)
	}
	return err
}

// ask is bounded, for what has an answer.
func ask[T any](ctx context.Context, d time.Duration, of func(context.Context) (T, error)) (answer T, err error) {
	err = bounded(ctx, d, func(ctx context.Context) (err error) {
		answer, err = of(ctx)
		return err
	})
	return answer, err
}

// inbox is what is to be asked for. Putting into it never waits: who hears
// events slowly is cut off.
type inbox struct {
	wake chan struct{} // capacity 1

	mu      sync.Mutex
	pending []Key
	all     bool
}

func (b *inbox) put(e Event) {
	b.mu.Lock()
	switch {
	case b.all || !e.Renamed && slices.Contains(b.pending, e.Key):
	case e.Renamed || len(b.pending) == maxPending: // the former name is to be forgotten too
		b.all, b.pending = true, nil
	default:
		b.pending = append(b.pending, e.Key)
	}
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default: // awake already
	}
}

func (b *inbox) take() (keys []Key, all bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	keys, all = b.pending, b.all
	b.pending, b.all = nil, false
	return keys, all
}

func (b *inbox) clear() {
	_, _ = b.take()
	select {
	case <-b.wake:
	default:
	}
}
