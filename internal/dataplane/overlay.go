package dataplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Overlay keeps the kernel's segments as desired: their devices, where MACs
// are, what the bridges answer, and whom broadcasts go to. Its state belongs
// to the goroutine of Run; everybody else leaves wishes in the inbox.
type Overlay struct {
	target OverlayTarget
	log    *slog.Logger
	wake   chan struct{} // capacity 1
	inbox  overlayInbox

	work      sync.Mutex // held while the kernel is looked at or changed; guards what follows
	withdrawn bool
	known     bool // the kernel was looked at, and since the last change of segments
	told      bool // what segments there are: others' devices may go
	intent    overlayIntent
	state     *OverlayState
	refused   map[OverlayOp]error // since the kernel was last looked at
	done      []func()
	nextLook  time.Time
	looked    time.Time // when it was last
	notYet    time.Time // no look before
	pause     time.Duration

	mu     sync.RWMutex // guards what follows
	report OverlayReport
}

// quietTime is how long nothing has to change until a look that nothing has
// called for.
const quietTime = time.Second

// lookOp stands for looking at the kernel among what was refused.
type lookOp struct{ Op }

func (lookOp) String() string { return "read the segments' state" }

// NewOverlay returns an overlay that does nothing before Run.
func NewOverlay(target OverlayTarget, log *slog.Logger) *Overlay {
	return &Overlay{
		target:  target,
		log:     log,
		wake:    make(chan struct{}, 1),
		intent:  newOverlayIntent(),
		state:   &OverlayState{},
		refused: make(map[OverlayOp]error),
		pause:   resyncFirst,
	}
}

// Run adopts what the kernel holds once SetSegments has told what is to be
// there, and keeps it as desired until ctx ends. It leaves everything in
// place: frames are forwarded on.
func (o *Overlay) Run(ctx context.Context) error {
	for {
		timer := time.NewTimer(o.step(ctx))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-o.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// step does what is due and returns how long nothing else is.
func (o *Overlay) step(ctx context.Context) time.Duration {
	o.work.Lock()
	defer o.work.Unlock()
	o.takeInbox()
	if o.withdrawn || ctx.Err() != nil || !o.told {
		return resyncLast
	}
	if !o.lookDue().After(time.Now()) {
		o.look(ctx)
	}
	if o.known {
		o.reconcile(ctx)
	}
	o.noteReport()
	if ctx.Err() == nil && o.known && !o.nextLook.IsZero() {
		for _, done := range o.done {
			done()
		}
		o.done = nil
	}
	return max(time.Until(o.lookDue()), 0)
}

func (o *Overlay) lookDue() time.Time {
	if o.nextLook.Before(o.notYet) {
		return o.notYet
	}
	return o.nextLook
}

func (o *Overlay) lookSoon() {
	o.nextLook = time.Time{}
	o.pause = resyncFirst
}

// look compares memory with the kernel, which is always right.
func (o *Overlay) look(ctx context.Context) {
	started := time.Now()
	state, err := o.target.DumpOverlay(ctx, o.intent.segments)
	o.looked = time.Now()
	o.notYet = time.Now().Add(dumpShare * time.Since(started))
	o.nextLook = time.Now().Add(o.pause)
	o.pause = min(4*o.pause, resyncLast)
	if ctx.Err() != nil {
		return
	}
	clear(o.refused)
	if err != nil {
		o.refused[lookOp{}] = err
		return
	}
	state.whole()
	o.state = &state
	o.intent.compare(o.state)
	o.known = true
}

// reconcile changes the kernel until it is as desired, but for what it refused.
func (o *Overlay) reconcile(ctx context.Context) {
	for ctx.Err() == nil {
		o.takeInbox()
		if !o.known {
			return // of segments that are new nothing is known
		}
		devices := diffDevices(o.state.Devices, o.intent.segments)
		if ops := o.willing(devices.set); len(ops) > 0 {
			o.apply(ctx, ops)
			continue // entries are another matter with other devices
		}
		if ops := o.willing(o.state.diffAddresses(o.intent.segments)); len(ops) > 0 {
			o.apply(ctx, ops)
			continue
		}
		changes := o.diffEntries()
		if len(changes.adds)+len(changes.deletes) > 0 {
			o.applyAll(ctx, changes)
			continue
		}
		if ops := o.nextRemoval(devices); len(ops) > 0 {
			o.apply(ctx, ops) // and look for what is more urgent before the next
			continue
		}
		for op, err := range devices.foreign {
			o.refused[op] = err
		}
		return
	}
}

// willing leaves out what the kernel has refused.
func (o *Overlay) willing(ops []OverlayOp) []OverlayOp {
	if len(o.refused) == 0 {
		return ops
	}
	return slices.DeleteFunc(ops, func(op OverlayOp) bool {
		_, refused := o.refused[op]
		return refused
	})
}

// nextRemoval returns the first run of devices to be removed that the kernel
// has not refused.
func (o *Overlay) nextRemoval(devices deviceChanges) []OverlayOp {
	for _, run := range devices.deletes {
		if ops := o.willing(run); len(ops) > 0 {
			return ops
		}
	}
	return nil
}

// diffEntries computes what has to happen to the entries of all segments
// whose devices are there.
func (o *Overlay) diffEntries() overlayChanges {
	var all overlayChanges
	for _, segment := range o.intent.segments {
		if !o.state.ready(segment) {
			continue
		}
		c := o.intent.of(segment.VNI).diff(segment, o.state.of(segment.VNI))
		all.adds = append(all.adds, o.willing(c.adds)...)
		all.deletes = append(all.deletes, o.willing(c.deletes)...)
	}
	return all
}

// ready tells that a segment's devices are such that entries find their place.
func (s *OverlayState) ready(segment Segment) bool {
	bridge, vxlan := s.Devices[segment.Bridge], s.Devices[segment.VXLAN]
	return bridge.Owned && vxlan.Owned && vxlan.Kind == KindVXLAN &&
		vxlan.VNI == segment.VNI && vxlan.Bridge == segment.Bridge
}

func (o *Overlay) applyAll(ctx context.Context, c overlayChanges) {
	for _, ops := range [][]OverlayOp{c.adds, c.deletes} {
		for chunk := range slices.Chunk(ops, batch) {
			if ctx.Err() != nil {
				return
			}
			o.apply(ctx, chunk)
		}
	}
}

// lookLater has a look that nothing has called for wait until changes are over:
// to read a large table takes the kernel longer the more of it there is, and
// nothing else is done meanwhile.
func (o *Overlay) lookLater() {
	if o.nextLook.IsZero() {
		return
	}
	quiet, last := time.Now().Add(quietTime), o.looked.Add(resyncLast)
	if quiet.After(last) {
		quiet = last
	}
	if o.nextLook.Before(quiet) {
		o.nextLook = quiet
	}
}

// apply carries out operations and remembers what came of them.
func (o *Overlay) apply(ctx context.Context, ops []OverlayOp) {
	o.lookLater()
	failed := make(map[int]error)
	for _, f := range o.target.ApplyOverlay(ctx, ops) {
		failed[f.Index] = f.Err
	}
	for i, op := range ops {
		if err, refused := failed[i]; refused {
			if ctx.Err() == nil {
				o.refused[op] = err
			}
			continue
		}
		if o.state.record(op) {
			o.intent.compare(o.state)
		}
	}
}

// takeInbox turns what was asked for since the last time into intent.
func (o *Overlay) takeInbox() {
	wishes := o.inbox.take()
	if wishes.segments != nil {
		o.setSegments(*wishes.segments)
	}
	for key := range wishes.taken {
		o.state.take(key)
	}
	o.intent.update(wishes.update)
	if wishes.complete && !o.intent.complete {
		o.intent.complete = true
		if o.known {
			o.intent.compare(o.state)
		}
	}
	o.done = append(o.done, wishes.done...)
	if wishes.resync {
		o.lookSoon()
	}
}

func (o *Overlay) setSegments(segments []Segment) {
	if o.told && slices.Equal(segments, o.intent.segments) {
		return
	}
	o.intent.segments = segments
	o.told, o.known = true, false
	o.lookSoon()
}

// Withdraw removes all devices that are frond's from the kernel, with all
// their entries. Nothing is added any more afterwards.
func (o *Overlay) Withdraw(ctx context.Context) error {
	o.work.Lock()
	defer o.work.Unlock()
	o.withdrawn = true
	state, err := o.target.DumpOverlay(ctx, nil)
	if err != nil {
		return fmt.Errorf("read the segments' state to withdraw it: %w", err)
	}
	var problems []error
	for _, run := range diffDevices(state.Devices, nil).deletes {
		for _, failed := range o.target.ApplyOverlay(ctx, run) {
			problems = append(problems, failed)
		}
	}
	return errors.Join(problems...)
}
