package dataplane

import (
	"net/netip"
	"sync"
)

// inbox holds what was asked for until the reconciler takes it. It is
// bounded: one entry per prefix and per link, the last one wins.
type inbox struct {
	mu     sync.Mutex
	wishes wishes
}

type wishes struct {
	desired  *Desired
	routes   map[netip.Prefix]RouteUpdate
	complete bool
	resync   bool
	links    map[string]Link // nil: no news
	down     map[string]struct{}
	done     []func()
}

func (b *inbox) take() wishes {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := b.wishes
	b.wishes = wishes{}
	return taken
}

func (r *Reconciler) wish(change func(*wishes)) {
	r.inbox.mu.Lock()
	change(&r.inbox.wishes)
	r.inbox.mu.Unlock()
	r.wakeUp()
}

func (r *Reconciler) wakeUp() {
	select {
	case r.wake <- struct{}{}:
	default: // awake already
	}
}

// Set replaces the whole small state that is desired.
func (r *Reconciler) Set(desired Desired) {
	r.wish(func(w *wishes) { w.desired = &desired })
}

// UpdateRoutes replaces what is desired for each prefix named. A prefix with
// bits below its length, or no valid one, is ignored and logged.
func (r *Reconciler) UpdateRoutes(updates []RouteUpdate) {
	for _, u := range updates {
		if !u.Prefix.IsValid() || u.Prefix != u.Prefix.Masked() || u.Prefix.Addr().Is4In6() {
			r.log.Warn("ignored a route whose prefix is none", "prefix", u.Prefix)
		}
	}
	r.leaveAtOnce(updates)
	r.wish(func(w *wishes) {
		if w.routes == nil {
			w.routes = make(map[netip.Prefix]RouteUpdate, len(updates))
		}
		for _, u := range updates {
			if u.Prefix.IsValid() && u.Prefix == u.Prefix.Masked() && !u.Prefix.Addr().Is4In6() {
				w.routes[u.Prefix] = u
			}
		}
	})
}

// Then has done called once everything that was asked for before is in the
// kernel, or was refused. It is called by the reconciler and must not block.
func (r *Reconciler) Then(done func()) {
	r.wish(func(w *wishes) { w.done = append(w.done, done) })
}

// Complete tells that what is desired is whole: from now on everything of
// frond's in the kernel that is not desired is removed.
func (r *Reconciler) Complete() {
	r.wish(func(w *wishes) { w.complete = true })
}

// Resync has everything compared with the kernel soon.
func (r *Reconciler) Resync() {
	r.wish(func(w *wishes) { w.resync = true })
}

// Observe takes an event of the kernel. Links that are nobody's port cost nothing.
func (r *Reconciler) Observe(event Event) {
	r.wish(func(w *wishes) {
		switch event := event.(type) {
		case Drifted:
			w.resync = true
		case LinksChanged:
			w.links = event.Links
			if w.down == nil {
				w.down = make(map[string]struct{})
			}
			for _, name := range event.Down {
				w.down[name] = struct{}{}
			}
		}
	})
}
