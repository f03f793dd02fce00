package gateway

import (
	"maps"
	"slices"
	"time"

	"frond/internal/kv"
)

// request is a transaction that the agent wants, and what it is for.
type request struct {
	kind     kind
	txn      kv.Txn
	beat     int64
	session  int64
	adopts   bool
	segments []string
}

type kind string

const (
	beats     kind = "beat"
	registers kind = "register"
	hands     kind = "hand over"
	surrender kind = "surrender"
	ends      kind = "end the session of a dead node"
	takes     kind = "take"
	reclaims  kind = "reclaim"
	wants     kind = "wish"
	unwants   kind = "take back a wish"
	counts    kind = "tell guests"
)

// requests are the transactions to begin now. Beats never wait for others.
func (a *agent) requests(now time.Duration) []request {
	var list []request
	if r, ok := a.keepAlive(now); ok {
		list = append(list, r)
	}
	if !a.mayCommit(now) {
		return list
	}
	for _, next := range []func(time.Duration) (request, bool){
		a.handOver, a.surrender, a.endDead, a.take, a.reclaim, a.wish, a.unwish, a.countGuests,
	} {
		if r, ok := next(now); ok {
			a.busy = true
			return append(list, r)
		}
	}
	return list
}

// keepAlive sends the next beat, or begins a session with it.
func (a *agent) keepAlive(now time.Duration) (request, bool) {
	s := &a.session
	if !a.synced || now < s.next || s.pending >= pendingBeats || !a.takesPartInAny() && !a.hasAny() {
		return request{}, false
	}
	key := nodesPrefix + a.node
	r := request{kind: beats, session: s.id}
	condition := kv.Same(key, s.id)
	if s.id == 0 {
		if a.kernel.Known() && !a.kernel.Empty() || s.pending > 0 {
			return request{}, false // what the last session held has to go first
		}
		own, there := a.view.beats[a.node]
		if there && own.value.Machine != a.machine {
			return a.endOther(own, now)
		}
		r.kind, r.adopts, r.session = registers, own.modified != 0, own.created
		condition = kv.Unchanged(key, own.modified)
	}
	r.beat = s.send(now, a.timing.Renew)
	r.txn = kv.Txn{
		If:   []kv.Condition{condition},
		Then: []kv.Operation{kv.Put(key, encode(beat{Run: a.run, Machine: a.machine, Beat: r.beat, Leaving: a.leaving}))},
	}
	return r, true
}

// endOther ends the session that a machine of the same name has, when its last
// beat was seen a lease ago: what it held is over then, as with any other node.
func (a *agent) endOther(own entry[beat], now time.Duration) (request, bool) {
	if now < a.view.seen[a.node].at+a.timing.Lease || a.busy {
		return request{}, false
	}
	a.busy = true
	return request{kind: ends, txn: kv.Txn{
		If:   []kv.Condition{kv.Unchanged(nodesPrefix+a.node, own.modified)},
		Then: []kv.Operation{kv.Delete(nodesPrefix + a.node)},
	}}, true
}

// handOver gives a batch to its heir, once the kernel has let go of it.
func (a *agent) handOver(time.Duration) (request, bool) {
	r := request{kind: hands}
	for _, segment := range a.handing {
		if !a.kernel.Gone(segment) {
			return request{}, false
		}
	}
	for _, segment := range a.handing {
		t := a.view.tenures[segment]
		heir, ok := a.heir(segment)
		if !ok || !a.isMine(t) || a.released[segment] != t.modified {
			continue
		}
		r.segments = append(r.segments, segment)
		r.txn.If = append(r.txn.If,
			kv.Unchanged(gatewaysPrefix+segment, t.modified), kv.Same(nodesPrefix+heir.Node, heir.Session))
		r.txn.Then = append(r.txn.Then,
			kv.Put(gatewaysPrefix+segment, encode(a.succeed(t, heir.Node, heir.Session, a.choice[segment].Why))),
			kv.Delete(wishesPrefix+segment))
	}
	a.handing = nil
	return r, len(r.segments) > 0
}

// succeed is the next tenure. Its term is a time, so that it grows also where a
// store has been lost or brought back from a backup: routes to the holder are
// ordered by it. Nothing else depends on the time being right.
func (a *agent) succeed(t entry[tenure], node string, session int64, why string) tenure {
	now := a.wall()
	return tenure{Node: node, Session: session, Term: max(t.value.Term+1, uint64(max(now.Unix(), 0))), Since: now, Why: why}
}

// surrender gives back what the document no longer has this node hold.
func (a *agent) surrender(time.Duration) (request, bool) {
	return a.batch(surrender, func(segment string, t entry[tenure]) bool {
		return a.isMine(t) && !a.takesPart(segment) && a.kernel.Gone(segment)
	}, func(r *request, segment string, t entry[tenure]) {
		a.released[segment] = t.modified
		r.txn.If = append(r.txn.If, kv.Unchanged(gatewaysPrefix+segment, t.modified))
		// The term stays, so that the next one's is higher.
		r.txn.Then = append(r.txn.Then, kv.Put(gatewaysPrefix+segment, encode(tenure{Term: t.value.Term, Since: a.wall()})))
	})
}

// endDead ends the sessions of nodes whose last beat was seen a lease ago.
// Each began that beat before it was seen here, so it has let go by now; and
// had it sent another one that was stored, this transaction would fail.
//
// Who has not seen its own beats of late knows nothing of others': after the
// store was away, everybody gets the time for a beat.
func (a *agent) endDead(now time.Duration) (request, bool) {
	if !a.isVisible(now) || now < a.steady+2*a.timing.Renew {
		return request{}, false
	}
	for _, node := range slices.Sorted(maps.Keys(a.view.seen)) {
		s := a.view.seen[node]
		if node == a.node || now < s.at+a.timing.Lease {
			continue
		}
		return request{kind: ends, txn: kv.Txn{
			If:   []kv.Condition{kv.Unchanged(nodesPrefix+node, s.modified)},
			Then: []kv.Operation{kv.Delete(nodesPrefix + node)},
		}}, true
	}
	return request{}, false
}

// take takes what nobody holds and this node should.
func (a *agent) take(now time.Duration) (request, bool) {
	if lifetime, _ := a.timing.Lifetime(a.session.confirmed, now); lifetime == 0 {
		return request{}, false
	}
	r := request{kind: takes}
	for _, segment := range slices.Sorted(maps.Keys(a.chosen)) {
		t := a.view.tenures[segment]
		if a.view.alive(t.value.Node, t.value.Session) {
			continue
		}
		r.segments = append(r.segments, segment)
		r.txn.If = append(r.txn.If, kv.Unchanged(gatewaysPrefix+segment, t.modified))
		r.txn.Then = append(r.txn.Then, kv.Put(gatewaysPrefix+segment, encode(a.succeed(t, a.node, a.session.id, a.choice[segment].Why))))
		if len(r.segments) == batchSize {
			break
		}
	}
	r.txn.If = append(r.txn.If, kv.Same(nodesPrefix+a.node, a.session.id))
	return r, len(r.segments) > 0
}

// reclaim makes sure of what was given up, or found after a restart, and is
// to be held after all: whatever was under way for it fails from then on.
func (a *agent) reclaim(time.Duration) (request, bool) {
	return a.batch(reclaims, func(segment string, t entry[tenure]) bool {
		revision, released := a.released[segment]
		return a.isMine(t) && released && revision == t.modified &&
			a.takesPart(segment) && !slices.Contains(a.handing, segment)
	}, func(r *request, segment string, t entry[tenure]) {
		r.txn.If = append(r.txn.If, kv.Unchanged(gatewaysPrefix+segment, t.modified))
		r.txn.Then = append(r.txn.Then, kv.Put(gatewaysPrefix+segment, encode(t.value)))
	})
}

// batch is a transaction on some of the gateways that there are.
func (a *agent) batch(k kind, which func(string, entry[tenure]) bool, add func(*request, string, entry[tenure])) (request, bool) {
	r := request{kind: k}
	for _, segment := range slices.Sorted(maps.Keys(a.view.tenures)) {
		if t := a.view.tenures[segment]; which(segment, t) {
			r.segments = append(r.segments, segment)
			add(&r, segment, t)
		}
		if len(r.segments) == batchSize {
			break
		}
	}
	return r, len(r.segments) > 0
}

// wish tells holders that this node is ready for what it should have.
func (a *agent) wish(now time.Duration) (request, bool) {
	if lifetime, _ := a.timing.Lifetime(a.session.confirmed, now); lifetime == 0 {
		return request{}, false
	}
	mine := encode(wish{Node: a.node, Session: a.session.id})
	r := request{kind: wants}
	for _, segment := range slices.Sorted(maps.Keys(a.chosen)) {
		t, w := a.view.tenures[segment], a.view.wishes[segment].value
		if a.isMine(t) || !a.view.alive(t.value.Node, t.value.Session) ||
			w == (wish{a.node, a.session.id}) || now < a.ripe(segment) {
			continue
		}
		r.segments = append(r.segments, segment)
		r.txn.If = append(r.txn.If, kv.Unchanged(gatewaysPrefix+segment, t.modified))
		r.txn.Then = append(r.txn.Then, kv.Put(wishesPrefix+segment, mine))
		if len(r.segments) == batchSize {
			break
		}
	}
	r.txn.If = append(r.txn.If, kv.Same(nodesPrefix+a.node, a.session.id))
	return r, len(r.segments) > 0
}

// ripe is when a gateway may follow its guests: at once if it has to move anyway.
func (a *agent) ripe(segment string) time.Duration {
	i := slices.IndexFunc(a.segments, func(s Segment) bool { return s.Name == segment })
	holder := a.view.tenures[segment].value.Node
	if i < 0 || !a.segments[i].Locality || a.view.drained[holder] || a.view.beats[holder].value.Leaving {
		return never
	}
	return a.chosen[segment] + dwell
}

// unwish takes back wishes that have been fulfilled or are no more.
func (a *agent) unwish(time.Duration) (request, bool) {
	r := request{kind: unwants}
	for _, segment := range slices.Sorted(maps.Keys(a.view.wishes)) {
		w := a.view.wishes[segment]
		_, chosen := a.chosen[segment]
		if w.value.Node != a.node || w.value.Session == a.session.id && chosen && !a.isMine(a.view.tenures[segment]) {
			continue
		}
		r.segments = append(r.segments, segment)
		r.txn.If = append(r.txn.If, kv.Unchanged(wishesPrefix+segment, w.modified))
		r.txn.Then = append(r.txn.Then, kv.Delete(wishesPrefix+segment))
		if len(r.segments) == batchSize {
			break
		}
	}
	return r, len(r.segments) > 0
}

// countGuests tells how many guests the node has, once in a second at most.
func (a *agent) countGuests(now time.Duration) (request, bool) {
	told := a.view.guests[a.node]
	if maps.Equal(told.value, a.guests) || now < a.guestsAt+time.Second {
		return request{}, false
	}
	a.guestsAt = now
	return request{kind: counts, txn: kv.Txn{
		If:   []kv.Condition{kv.Same(nodesPrefix+a.node, a.session.id)},
		Then: []kv.Operation{kv.Put(guestsPrefix+a.node, encode(a.guests))},
	}}, true
}

// answered takes in what became of a request.
func (a *agent) answered(r request, o kv.Outcome, err error, now time.Duration) {
	if r.kind == beats || r.kind == registers {
		a.session.pending--
		a.answeredBeat(r, o, err, now)
		return
	}
	a.busy = false
	if err != nil {
		a.retryAt = now + pause
		return
	}
	a.behind = o.Revision
}

func (a *agent) answeredBeat(r request, o kv.Outcome, err error, now time.Duration) {
	s := &a.session
	if err != nil {
		return // a later beat, or the watch, tells
	}
	if r.kind == beats {
		switch {
		case r.session != s.id:
		case o.Done:
			s.confirm(r.beat)
		default:
			a.lose()
		}
		return
	}
	if !o.Done || s.id != 0 {
		return // the watch tells who was faster
	}
	s.id = o.Revision
	if r.adopts {
		s.id = r.session
		a.adopt(now)
	}
	s.confirm(r.beat)
}

// adopt goes on with the session of the agent that was here before. What that
// one had under way to the store is not known, so that all is reclaimed first.
func (a *agent) adopt(now time.Duration) {
	a.adopted = now
	for segment, t := range a.view.tenures {
		if a.isMine(t) {
			a.released[segment] = t.modified
		}
	}
}
