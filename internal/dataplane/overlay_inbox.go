package dataplane

import (
	"maps"
	"slices"
	"sync"
)

// overlayInbox holds what was asked for until the overlay takes it. It is
// bounded: one entry per key, the last one wins.
type overlayInbox struct {
	mu     sync.Mutex
	wishes overlayWishes
}

type overlayWishes struct {
	segments *[]Segment
	update   OverlayUpdate
	taken    map[MACKey]struct{}
	complete bool
	resync   bool
	done     []func()
}

func (b *overlayInbox) take() overlayWishes {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := b.wishes
	b.wishes = overlayWishes{}
	return taken
}

func (o *Overlay) wish(change func(*overlayWishes)) {
	o.inbox.mu.Lock()
	change(&o.inbox.wishes)
	o.inbox.mu.Unlock()
	select {
	case o.wake <- struct{}{}:
	default: // awake already
	}
}

// SetSegments replaces the segments that this node takes part in. Devices of
// frond's that belong to none of them are removed.
func (o *Overlay) SetSegments(segments []Segment) {
	segments = slices.Clone(segments)
	o.wish(func(w *overlayWishes) { w.segments = &segments })
}

// Update takes in what is now desired. Entries of a segment that is not set
// yet wait for it.
func (o *Overlay) Update(update OverlayUpdate) {
	o.wish(func(w *overlayWishes) {
		w.update.MACs = merge(w.update.MACs, update.MACs)
		w.update.Neighbors = merge(w.update.Neighbors, update.Neighbors)
		w.update.Moved = merge(w.update.Moved, update.Moved)
		w.update.Flood = merge(w.update.Flood, update.Flood)
	})
}

func merge[K comparable, V any](into, from map[K]V) map[K]V {
	if into == nil {
		into = make(map[K]V, len(from))
	}
	maps.Copy(into, from)
	return into
}

// Complete tells that what is desired is whole: from now on every entry of
// frond's in the kernel that is not desired is removed.
func (o *Overlay) Complete() {
	o.wish(func(w *overlayWishes) { w.complete = true })
}

// Resync has everything compared with the kernel soon.
func (o *Overlay) Resync() {
	o.wish(func(w *overlayWishes) { w.resync = true })
}

// Then has done called once everything that was asked for before is in the
// kernel, or was refused. It is called by the overlay and must not block.
// Before SetSegments nothing is in the kernel.
func (o *Overlay) Then(done func()) {
	o.wish(func(w *overlayWishes) { w.done = append(w.done, done) })
}

// Observe takes an event of the kernel.
func (o *Overlay) Observe(event OverlayEvent) {
	switch event := event.(type) {
	case OverlayDrifted:
		o.Resync()
	case LocalMACs:
		o.inbox.mu.Lock()
		defer o.inbox.mu.Unlock()
		if o.inbox.wishes.taken == nil {
			o.inbox.wishes.taken = make(map[MACKey]struct{})
		}
		for _, local := range event {
			if !local.Aged {
				o.inbox.wishes.taken[MACKey{local.VNI, local.MAC}] = struct{}{}
			}
		}
	}
}
