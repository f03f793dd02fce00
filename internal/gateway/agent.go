package gateway

import (
	"maps"
	"slices"
	"time"

	"frond/internal/kv"
)

const (
	// batchSize bounds the gateways of one transaction, and with it how long
	// one that is handed over waits for the others. etcd takes 128 operations.
	batchSize = 32
	// dwell is how long guests have to be where they are before the gateway
	// follows them.
	dwell = 10 * time.Second
	// idleInterval is how often it is looked where no gateway is elected at all.
	idleInterval = time.Minute
	// adoption bounds how long an agent that was restarted leaves addresses as
	// it finds them while it makes sure that they are its own.
	adoption = time.Second
)

// agent decides for one node. It has no clock, no goroutine and no effects:
// what happens is told to it, and it says what to do.
type agent struct {
	node     string
	machine  string
	run      string
	timing   Timing
	wall     func() time.Time
	segments []Segment
	guests   map[string]int // own
	leaving  bool

	view   *view
	synced bool
	choice map[string]Choice
	chosen map[string]time.Duration // since when the choice is this node
	stale  bool                     // choice has to be made again

	session lease
	// released are holdings that were given up, by the revision of their
	// tenure. One is held again only at a later revision: whatever is still
	// under way to the store for the earlier one can then do nothing.
	released map[string]int64
	handing  []string // released, to be handed over once out of the kernel
	adopted  time.Duration

	busy    bool          // a transaction is under way
	behind  int64         // what the view has to show before the next one
	retryAt time.Duration // no transaction before

	kernel Installed
	guestsAt,
	visible, steady time.Duration // last own beat seen in the view; since when they come steadily
	vacant map[string]time.Duration // gateways that nobody has, since when
}

func newAgent(node, machine, run string, timing Timing, wall func() time.Time) *agent {
	return &agent{
		node: node, machine: machine, run: run, timing: timing, wall: wall,
		view: newView(), chosen: make(map[string]time.Duration),
		released: make(map[string]int64),
		session:  lease{confirmed: never, sent: make(map[int64]time.Duration)},
		adopted:  never,
		visible:  never,
	}
}

// never is long before the clock began.
const never = -1 << 60

func (a *agent) setSegments(segments []Segment) {
	if !slices.EqualFunc(a.segments, segments, Segment.equal) {
		a.segments, a.stale = segments, true
	}
}

// leave has the others take over what this node holds.
func (a *agent) leave() {
	a.leaving = true
	a.session.next = 0
}

// hasLeft tells that all others know, and that nothing is left to hand over.
func (a *agent) hasLeft() bool {
	if !a.synced || a.session.id == 0 {
		return true
	}
	if !a.view.beats[a.node].value.Leaving || a.busy || len(a.handing) > 0 {
		return false
	}
	for segment, t := range a.view.tenures {
		if a.isMine(t) && a.choice[segment].Node != "" {
			return false
		}
	}
	return true
}

// farewell ends the session. A beat that is still under way then fails.
func (a *agent) farewell() kv.Txn {
	key := nodesPrefix + a.node
	return kv.Txn{If: []kv.Condition{kv.Same(key, a.session.id)}, Then: []kv.Operation{kv.Delete(key)}}
}

// changed takes in what the store tells.
func (a *agent) changed(c kv.Change, now time.Duration) {
	before := a.view.seen[a.node].modified
	if a.view.apply(c, now) {
		a.stale = true
	}
	if c.Whole {
		a.synced, a.behind = true, min(a.behind, c.Revision)
	}
	own, there := a.view.beats[a.node]
	if there && own.modified != before {
		if !a.isVisible(now) {
			a.steady = now
		}
		a.visible = now
	}
	switch {
	case there && own.value.Run == a.run && a.session.begins(own.created):
		if a.session.id == 0 {
			a.session.id = own.created
			a.adopt(now)
		}
		a.session.confirm(own.value.Beat)
	case a.session.id != 0 && a.view.revision >= a.session.id && own.created != a.session.id:
		a.lose()
	case a.session.id != 0 && own.value.Machine != a.machine:
		a.lose()
	}
	a.forgetReleased()
}

// isVisible tells that the store's watch shows what comes: own beats, and so
// others'.
func (a *agent) isVisible(now time.Duration) bool { return now-a.visible <= 3*a.timing.Renew }

// lose is the end of the session: nothing is held any more.
func (a *agent) lose() {
	a.session.end()
	a.handing = nil
}

func (a *agent) forgetReleased() {
	for segment, revision := range a.released {
		if t, ok := a.view.tenures[segment]; !ok || t.modified > revision {
			delete(a.released, segment)
		}
	}
}

// decide brings up to date who should hold what, and picks what to hand over.
func (a *agent) decide(now time.Duration) {
	if !a.synced {
		return
	}
	if a.stale {
		a.stale = false
		a.choice = Elect(a.view.ballot(a.segments))
		for segment, choice := range a.choice {
			if _, known := a.chosen[segment]; choice.Node == a.node && !known {
				a.chosen[segment] = now
			}
		}
		maps.DeleteFunc(a.chosen, func(segment string, _ time.Duration) bool {
			return a.choice[segment].Node != a.node
		})
	}
	if a.mayCommit(now) && len(a.handing) == 0 {
		a.release()
	}
}

// release gives up a batch of gateways that another node is ready for.
func (a *agent) release() {
	var to wish
	for _, segment := range slices.Sorted(maps.Keys(a.view.tenures)) {
		tenure := a.view.tenures[segment]
		w, ok := a.heir(segment)
		if !a.isMine(tenure) || !ok || len(a.handing) > 0 && w != to {
			continue
		}
		to = w
		a.released[segment] = tenure.modified
		if a.handing = append(a.handing, segment); len(a.handing) == batchSize {
			return
		}
	}
}

// heir returns who should have a segment instead of this node, and is ready.
func (a *agent) heir(segment string) (wish, bool) {
	w := a.view.wishes[segment].value
	wanted := w.Node != a.node && w.Node == a.choice[segment].Node
	return w, w.Node != "" && wanted && a.view.alive(w.Node, w.Session)
}

func (a *agent) isMine(t entry[tenure]) bool {
	return a.session.id != 0 && t.value.Node == a.node && t.value.Session == a.session.id
}

// mayCommit tells that a transaction can be begun: one after the other, each
// knowing what the one before has brought.
func (a *agent) mayCommit(now time.Duration) bool {
	return !a.busy && a.synced && now >= a.retryAt && a.view.revision >= a.behind && a.session.id != 0 && a.holds(now)
}

// holds tells that the lease lasts: that no other node can have ended it.
func (a *agent) holds(now time.Duration) bool {
	return a.session.id != 0 && a.timing.Lasts(a.session.confirmed, now)
}

// takesPart tells that the document has this node hold a segment's gateway.
func (a *agent) takesPart(segment string) bool { return TakesPart(a.segments, segment, a.node) }

// takesPartInAny tells that there is anything that this node may hold.
func (a *agent) takesPartInAny() bool { return TakesPartInAny(a.segments, a.node) }

// hasAny tells that some tenure is this node's.
func (a *agent) hasAny() bool {
	for _, t := range a.view.tenures {
		if a.isMine(t) {
			return true
		}
	}
	return false
}

// isDoubled tells that another machine goes by this node's name, and lives.
func (a *agent) isDoubled(now time.Duration) bool {
	own, there := a.view.beats[a.node]
	return there && own.value.Machine != a.machine && now < a.view.seen[a.node].at+a.timing.Lease
}

// holdings are what the kernel should hold now.
func (a *agent) holdings(now time.Duration) []Holding {
	if !a.holds(now) {
		return nil
	}
	lifetime, before := a.timing.Lifetime(a.session.confirmed, now)
	var list []Holding
	for segment, tenure := range a.view.tenures {
		revision, released := a.released[segment]
		if !a.isMine(tenure) || released && revision == tenure.modified || !a.takesPart(segment) {
			continue
		}
		if lifetime == 0 && !a.kernel.May(segment) {
			continue // waits for the next beat
		}
		list = append(list, Holding{
			Segment: segment, Lifetime: lifetime, Before: before,
			Term: tenure.value.Term, Since: tenure.value.Since, Why: tenure.value.Why,
		})
	}
	slices.SortFunc(list, func(x, y Holding) int {
		if x.Segment < y.Segment {
			return -1
		}
		return 1
	})
	return list
}

// due returns the holdings if the kernel has to be told of them.
func (a *agent) due(now time.Duration) ([]Holding, bool) {
	if !a.synced || !a.kernel.Known() && a.waitsForOwn(now) {
		return nil, false
	}
	list := a.holdings(now)
	return list, a.kernel.Due(list, now)
}

// waitsForOwn tells that an agent that was just started does not know yet
// which of the addresses that it has found it may keep.
func (a *agent) waitsForOwn(now time.Duration) bool {
	if a.session.id == 0 {
		_, found := a.view.beats[a.node]
		return found
	}
	return now < a.adopted+adoption && len(a.released) > 0
}

// wake is when to look again, if nothing happens before.
func (a *agent) wake(now time.Duration) time.Duration {
	at := now + a.timing.Renew
	if len(a.segments) == 0 && a.session.id == 0 {
		at = now + idleInterval
	}
	sooner := func(t time.Duration) {
		if t > now {
			at = min(at, t)
		}
	}
	sooner(a.session.next)
	sooner(a.retryAt)
	sooner(a.kernel.Wake(now))
	sooner(a.session.confirmed + a.timing.Lease - a.timing.Margin)
	for _, s := range a.view.seen {
		sooner(s.at + a.timing.Lease)
	}
	sooner(a.steady + 2*a.timing.Renew)
	return at
}
