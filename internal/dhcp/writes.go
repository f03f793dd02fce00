package dhcp

import (
	"net/netip"
	"time"

	"frond/internal/kv"
)

// writes are the changes of leases on their way to the store. There is one
// transaction at a time, for all that has come together meanwhile.
type writes struct {
	pending map[netip.Addr]*write
	urgent  []*write // somebody waits for them
	rest    []*write // what was promised already
	busy    bool
	behind  int64 // what the book has to show before the next one
	retryAt time.Duration
	failing bool // the last one got no answer
	// size is how many go into one transaction: fewer after one was refused,
	// as one that somebody else was faster for has all refused.
	size int
}

func newWrites() writes { return writes{pending: make(map[netip.Addr]*write), size: batchSize} }

// waits tells that something is to be written.
func (w *writes) waits() bool { return len(w.urgent)+len(w.rest) > 0 }

// write is one change of one lease.
type write struct {
	address netip.Addr
	expect  int64 // revision that it changes
	lease   lease
	delete  bool
	job     *job // nil: nobody waits
	urgent  bool
}

// batch is a transaction and what it is made of.
type batch struct {
	txn    kv.Txn
	writes []*write
	leases []lease
}

// write has a record changed. before is what is known of it; nil: it is new.
func (a *agent) write(address netip.Addr, before *entry, l lease, j *job, now time.Duration) *write {
	w := &write{address: address, lease: l, job: j, urgent: j != nil}
	if before != nil {
		w.expect = before.modified
	}
	a.writes.pending[address] = w
	a.enqueue(w)
	a.place(address, now)
	return w
}

func (a *agent) enqueue(w *write) {
	if w.urgent {
		a.writes.urgent = append(a.writes.urgent, w)
	} else {
		a.writes.rest = append(a.writes.rest, w)
	}
}

// commit is the transaction to begin now.
func (a *agent) commit(now time.Duration) (batch, bool) {
	w := &a.writes
	if !a.synced || w.busy || now < w.retryAt || a.book.revision < w.behind {
		return batch{}, false
	}
	var b batch
	for len(b.writes) < w.size && w.waits() {
		from := &w.urgent
		if len(*from) == 0 {
			from = &w.rest
		}
		next := (*from)[0]
		*from = (*from)[1:]
		a.add(&b, next, now)
	}
	if len(b.writes) == 0 {
		return batch{}, false
	}
	w.busy = true
	return b, true
}

// add puts a write into a transaction, unless the store has changed so that
// it is done already, or cannot be done any more.
func (a *agent) add(b *batch, w *write, now time.Duration) {
	if a.writes.pending[w.address] != w {
		return
	}
	e := a.book.entries[w.address]
	if revisionOf(e) != w.expect {
		// Its answer may have been lost, or somebody else was faster.
		a.settle(w, a.isDone(w, e), now)
		return
	}
	l := w.lease
	l.Run, l.Node, l.Sent = a.run, a.node, now
	key := leasesPrefix + w.address.String()
	operation := kv.Delete(key)
	if !w.delete {
		operation = kv.Put(key, l.encode())
	}
	b.txn.If = append(b.txn.If, kv.Unchanged(key, w.expect))
	b.txn.Then = append(b.txn.Then, operation)
	b.writes = append(b.writes, w)
	b.leases = append(b.leases, l)
}

func revisionOf(e *entry) int64 {
	if e == nil {
		return 0
	}
	return e.modified
}

// isDone tells that a record is what the write would have made it.
func (a *agent) isDone(w *write, e *entry) bool {
	if w.delete || e == nil {
		return w.delete && e == nil
	}
	return e.Run == a.run && e.Client == w.lease.Client && e.Kind == w.lease.Kind && e.Hold == w.lease.Hold
}

// settle ends a write.
func (a *agent) settle(w *write, done bool, now time.Duration) {
	delete(a.writes.pending, w.address)
	a.place(w.address, now)
	switch {
	case w.job == nil:
	case done:
		a.stored(w.job, now)
	default:
		a.refused(w.job, now)
	}
}

// answered takes in what became of a transaction.
func (a *agent) answered(b batch, o kv.Outcome, err error, now time.Duration) {
	w := &a.writes
	w.busy, w.failing = false, err != nil
	switch {
	case err != nil:
		w.retryAt = now + pause
		a.requeue(b)
		for _, failed := range b.writes {
			a.answerWithout(failed, now)
		}
	case !o.Done:
		w.behind = o.Revision
		w.size = max(1, len(b.writes)/2)
		a.requeue(b)
	default:
		w.size = min(batchSize, 2*w.size)
		a.carriedOut(b, o.Revision, now)
	}
}

// requeue puts the writes of a transaction back to where they were.
func (a *agent) requeue(b batch) {
	var urgent, rest []*write
	for _, w := range b.writes {
		if w.urgent {
			urgent = append(urgent, w)
		} else {
			rest = append(rest, w)
		}
	}
	a.writes.urgent = append(urgent, a.writes.urgent...)
	a.writes.rest = append(rest, a.writes.rest...)
}

func (a *agent) carriedOut(b batch, revision int64, now time.Duration) {
	for i, w := range b.writes {
		// That a record is gone, the watch tells: what it has yet to tell of the
		// time before would bring it back otherwise.
		if !w.delete {
			a.book.put(w.address, b.leases[i], revision, now)
		}
	}
	a.placeChanged(now)
	for _, w := range b.writes {
		if a.writes.pending[w.address] == w {
			a.settle(w, true, now)
		}
	}
}

// answerWithout gives a client what can be promised without the store.
func (a *agent) answerWithout(w *write, now time.Duration) {
	j := w.job
	if j == nil || a.jobs[j.key] != j || j.kind != leased || j.probe {
		return
	}
	if e := a.book.entries[w.address]; e.promised(a.run, now) >= leastPromise && e.Client == j.request.client {
		a.reply(j, now)
	}
}
