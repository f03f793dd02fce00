package dataplane

import (
	"context"
	"maps"
	"sync/atomic"
)

// failing is the short way from a failure to the kernel. It knows the id of
// every leg that the kernel may hold, so that a leg can be taken away at
// once, whatever the reconciler is busy with. The reconciler then does it
// again in its own turn: what it was busy with may have made the leg anew.
type failing struct {
	failed map[NextHop]struct{}
	legs   map[NextHop]uint32
	doomed map[uint32]struct{} // taken away, and not yet known to the reconciler
	count  atomic.Uint64       // of changes to failed
}

func newFailing() failing {
	return failing{legs: make(map[NextHop]uint32), doomed: make(map[uint32]struct{})}
}

// SetFailed replaces the set of legs that must carry nothing now. The kernel
// no longer uses those of them that it held when SetFailed returns; one that
// is just being made goes at once after that.
func (r *Reconciler) SetFailed(legs []NextHop) {
	failed := make(map[NextHop]struct{}, len(legs))
	for _, leg := range legs {
		failed[leg] = struct{}{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	f := &r.failing
	if maps.Equal(failed, f.failed) {
		return
	}
	var ops []Op
	for leg := range failed {
		id, exists := f.legs[leg]
		if _, already := f.failed[leg]; exists && !already {
			ops = append(ops, DeleteNextHop{ID: id})
			f.doomed[id] = struct{}{}
		}
	}
	f.failed = failed
	f.count.Add(1)
	if len(ops) > 0 {
		// What fails here is tried again, and reported, by the reconciler.
		r.target.Apply(context.Background(), ops)
	}
	r.wakeUp()
}

// isGone tells whether SetFailed has taken a leg out of the kernel.
func (f *failing) isGone(m member) bool {
	_, failed := f.failed[m.leg]
	_, doomed := f.doomed[m.id]
	return failed || doomed
}

// takeFailures makes the failed legs part of the intent and completes what
// SetFailed has begun. It returns the count that this is the truth of.
func (r *Reconciler) takeFailures() uint64 {
	r.mu.Lock()
	count := r.failing.count.Load()
	r.intent.failed = r.failing.failed
	var ops []Op
	for id := range r.failing.doomed {
		ops = append(ops, DeleteNextHop{ID: id})
	}
	clear(r.failing.doomed)
	r.mu.Unlock()
	if len(ops) > 0 {
		r.apply(context.Background(), ops)
	}
	return count
}

// expect notes the legs that are about to exist.
func (f *failing) expect(ops []Op) {
	for _, op := range ops {
		if add, ok := op.(SetNextHop); ok {
			f.legs[add.NextHop] = add.ID
		}
	}
}

// forget drops the legs that are gone.
func (f *failing) forget(ops []Op) {
	gone := make(map[uint32]bool)
	for _, op := range ops {
		if remove, ok := op.(DeleteNextHop); ok {
			gone[remove.ID] = true
		}
	}
	if len(gone) > 0 {
		maps.DeleteFunc(f.legs, func(_ NextHop, id uint32) bool { return gone[id] })
	}
}
