package dataplane

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// batch bounds the operations that are applied before failures are
	// looked at again.
	batch = 1000
	// The kernel is looked at again after resyncFirst when something
	// happened, then ever more seldom, until every resyncLast.
	resyncFirst = 250 * time.Millisecond
	resyncLast  = 30 * time.Second
	// dumpShare bounds what looking may cost: a dump is followed by a pause
	// of so many times its length.
	dumpShare = 4
)

// Reconciler keeps the kernel as desired. Its state belongs to the goroutine
// of Run; everybody else leaves wishes in the inbox.
type Reconciler struct {
	target  Target
	log     *slog.Logger
	wake    chan struct{} // capacity 1
	adopted chan struct{} // closed after the first dump

	inbox inbox

	work      sync.Mutex // held while the kernel is looked at or changed in batches
	withdrawn bool       // guarded by work

	// Guarded by work.
	intent   intent
	done     []func() // see Then
	ids      idAllocator
	absent   map[string]bool // sysctls that were not there when the kernel was last looked at
	nextDump time.Time
	notYet   time.Time // no dump before
	pause    time.Duration

	mu       sync.RWMutex // guards what follows
	state    *State       // written by the holder of work only
	failing  failing
	sharings map[netip.Prefix]sharing
	left     left
	before   []NextHop // AdoptedNextHops
	right    int
	summary  Report // its counts of what is desired
	missing  []string
	problems map[string]Problem
}

// NewReconciler returns a reconciler that does nothing before Run.
func NewReconciler(target Target, log *slog.Logger) *Reconciler {
	return &Reconciler{
		target:  target,
		log:     log,
		wake:    make(chan struct{}, 1),
		adopted: make(chan struct{}),
		intent:  intent{routes: newRouteTable(), classes: make(routeClasses), guesses: make(map[netip.Prefix]guess), refused: make(map[opKey]error), raised: make(map[string]bool)},
		absent:  make(map[string]bool),
		pause:   resyncFirst,
		state:   newState(),
		failing: newFailing(),
		left:    left{groups: make(map[uint32][]uint32)},
	}
}

// Run adopts what the kernel holds and keeps it as desired until ctx ends.
// It leaves everything in place: packets are forwarded on.
func (r *Reconciler) Run(ctx context.Context) error {
	for {
		wait := r.step(ctx)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-r.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// step does what is due and returns how long nothing else is.
func (r *Reconciler) step(ctx context.Context) time.Duration {
	r.work.Lock()
	defer r.work.Unlock()
	if r.withdrawn || ctx.Err() != nil {
		return resyncLast
	}
	r.takeInbox()
	if due := r.dumpDue(); !due.After(time.Now()) {
		r.look(ctx)
	}
	if r.isAdopted() {
		r.reconcile(ctx)
		r.callDone(ctx)
	}
	due := r.dumpDue()
	if end := r.intent.guessesEnd(); !end.IsZero() && end.Before(due) {
		due = end // which may have passed meanwhile: then they end with the next step
	}
	return max(time.Until(due), 0)
}

// callDone tells those who wait that the kernel is as they asked for.
func (r *Reconciler) callDone(ctx context.Context) {
	if ctx.Err() != nil || r.nextDump.IsZero() {
		return // what was asked for may depend on what the next look shows
	}
	for _, done := range r.done {
		done()
	}
	r.done = nil
}

// dumpDue is when the kernel is to be looked at next.
func (r *Reconciler) dumpDue() time.Time {
	if r.nextDump.Before(r.notYet) {
		return r.notYet
	}
	return r.nextDump
}

// lookSoon has the kernel looked at at once, and more often for a while.
func (r *Reconciler) lookSoon() {
	r.nextDump = time.Time{}
	r.pause = resyncFirst
}

// look compares memory with the kernel, which is always right.
func (r *Reconciler) look(ctx context.Context) {
	started := time.Now()
	state, err := r.target.Dump(ctx)
	took := time.Since(started)
	r.notYet = time.Now().Add(dumpShare * took)
	r.nextDump = time.Now().Add(r.pause)
	r.pause = min(4*r.pause, resyncLast)
	if ctx.Err() != nil {
		return
	}
	clear(r.intent.refused)
	clear(r.intent.raised)
	clear(r.absent)
	if err != nil {
		r.intent.refused[opKey{kind: kindDump}] = err
		r.noteProblems()
		return
	}
	state.whole()
	r.mu.Lock()
	r.state = &state
	r.failing.legs = legIDs(state.NextHops)
	r.mu.Unlock()
	r.intent.wanted = sysctls{}
	r.intent.classify(r.state)
	if !r.isAdopted() {
		r.adopt()
	}
}

func (r *Reconciler) adopt() {
	r.ids.adopt(r.state)
	used := make(map[NextHop]struct{})
	seen := make(map[uint32]struct{})
	for _, route := range r.state.Routes {
		if _, ok := seen[route.NextHopID]; ok {
			continue
		}
		seen[route.NextHopID] = struct{}{}
		for _, leg := range r.state.legs(route.NextHopID) {
			used[leg] = struct{}{}
		}
	}
	r.mu.Lock()
	r.before = slices.SortedFunc(maps.Keys(used), compareNextHops)
	r.mu.Unlock()
	close(r.adopted)
	if n := len(r.state.Routes); n > 0 {
		r.log.Info("adopted what an earlier run left in the kernel", "routes", n, "nexthops", len(r.before))
	}
}

func (r *Reconciler) isAdopted() bool {
	select {
	case <-r.adopted:
		return true
	default:
		return false
	}
}

// reconcile changes the kernel until it is as desired, but for what it refused.
func (r *Reconciler) reconcile(ctx context.Context) {
	for ctx.Err() == nil {
		r.takeInbox()
		r.takeLeft()
		failures := r.takeFailures()
		r.readSysctls()
		c := diff(r.state, &r.intent, &r.ids)
		r.setRight(c.right)
		r.share(c.sharings)
		if len(c.failed) > 0 {
			r.apply(ctx, c.failed)
			continue
		}
		if r.applyAll(ctx, append(c.adds, c.deletes), failures) {
			break
		}
	}
	r.noteProblems()
}

// applyAll applies stages batch by batch. It returns false when what is left
// of them must be thought over: a leg has failed, or the kernel refused
// something that others may depend on.
func (r *Reconciler) applyAll(ctx context.Context, stages [][]Op, failures uint64) bool {
	for _, stage := range stages {
		for chunk := range slices.Chunk(stage, batch) {
			if ctx.Err() != nil || r.failing.count.Load() != failures {
				return false
			}
			if !r.apply(ctx, chunk) {
				return false
			}
		}
	}
	return r.failing.count.Load() == failures
}

// apply carries out operations and remembers what came of them.
func (r *Reconciler) apply(ctx context.Context, ops []Op) bool {
	r.mu.Lock()
	r.failing.expect(ops)
	r.left.applying = true
	r.mu.Unlock()
	failed := r.target.Apply(ctx, ops)
	refused := make(map[int]bool, len(failed))
	for _, f := range failed {
		refused[f.Index] = true
		r.intent.refused[keyOf(f.Op)] = f.Err
	}
	done := ops
	if len(failed) > 0 {
		done = make([]Op, 0, len(ops))
		for i, op := range ops {
			if !refused[i] {
				done = append(done, op)
			}
		}
	}
	from := r.intent.classesOf(r.state, done)
	r.mu.Lock()
	others := r.state.record(done)
	r.failing.forget(done)
	r.left.forget(done)
	r.left.applying = false
	for _, op := range done {
		switch op := op.(type) {
		case SetPort:
			r.intent.raised[op.Name] = true
		case SetRoute:
			r.right++
		case DeleteAddress, DeletePortAddress:
			// The kernel takes the address's routes, or their source, away.
			r.lookSoon()
		}
	}
	r.mu.Unlock()
	if others {
		r.intent.classify(r.state)
	} else {
		r.intent.reclassify(r.state, from)
	}
	return len(failed) == 0
}

// takeInbox turns what was asked for since the last time into intent.
func (r *Reconciler) takeInbox() {
	wishes := r.inbox.take()
	if wishes.desired != nil {
		r.intent.desired, r.intent.wanted = *wishes.desired, sysctls{}
	}
	now := time.Now()
	for prefix, update := range wishes.routes {
		from := r.intent.classOf(r.state, prefix)
		r.intent.update(update, now)
		r.intent.classes.move(prefix, from, r.intent.classOf(r.state, prefix))
	}
	r.intent.endGuesses(now)
	r.intent.complete = r.intent.complete || wishes.complete
	r.done = append(r.done, wishes.done...)
	if wishes.resync || r.concerned(wishes.links, wishes.down) {
		r.lookSoon()
	}
}

// concerned tells whether links that matter here changed.
func (r *Reconciler) concerned(links map[string]Link, down map[string]struct{}) bool {
	if links == nil || !r.isAdopted() {
		return false
	}
	changed := func(name string) bool {
		_, wasDown := down[name]
		return wasDown || links[name] != r.state.Links[name]
	}
	if changed(loopback) || changed(r.intent.desired.Uplink.Port) {
		return true
	}
	for _, port := range r.intent.desired.Ports {
		if changed(port.Name) {
			return true
		}
	}
	for _, set := range r.intent.routes.sets {
		for _, leg := range set.legs {
			if changed(leg.Port) {
				return true
			}
		}
	}
	return false
}

// readSysctls reads the values that became desired since it last did.
func (r *Reconciler) readSysctls() {
	if r.intent.wanted.values != nil {
		return
	}
	wanted := r.intent.sysctls(r.state).paths
	var unread, missing []string
	for _, path := range wanted {
		if _, ok := r.state.Sysctls[path]; !ok && !r.absent[path] {
			unread = append(unread, path)
		}
	}
	if len(unread) > 0 {
		values := r.target.Sysctls(unread)
		r.mu.Lock()
		maps.Copy(r.state.Sysctls, values)
		r.mu.Unlock()
		for _, path := range unread {
			_, there := values[path]
			r.absent[path] = !there
		}
	}
	for _, path := range wanted {
		if r.absent[path] {
			missing = append(missing, path)
		}
	}
	r.setMissing(missing)
}

// Adopted is closed once the kernel was looked at for the first time.
func (r *Reconciler) Adopted() <-chan struct{} { return r.adopted }

// AdoptedNextHops returns the next hops that routes in the kernel used at
// start: the peers of the run before.
func (r *Reconciler) AdoptedNextHops() []NextHop {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Clone(r.before)
}

// Installed returns the next hops by which the kernel forwards a prefix of
// frond's, and whether it does.
func (r *Reconciler) Installed(prefix netip.Prefix) ([]NextHop, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	route, ok := r.state.Routes[prefix]
	if !ok {
		return nil, false
	}
	return r.state.legs(route.NextHopID), true
}
