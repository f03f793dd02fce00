package gateway

import (
	"maps"
	"time"
)

// lease is this node's session in the store, and the beats that keep it.
type lease struct {
	id        int64         // create revision of nodes/NODE, 0: none
	over      int64         // the last one that ended
	confirmed time.Duration // when the last beat was sent that is known to be stored
	beat      int64
	sent      map[int64]time.Duration // beats of which nothing is known yet
	next      time.Duration           // when the next one is due
	pending   int                     // transactions under way
}

const (
	// remembered bounds the beats that may still turn out to be stored.
	remembered = 16
	// pendingBeats bounds how many wait for a slow store at once.
	pendingBeats = 3
)

// send counts a beat. Its time is taken before anything of it leaves.
func (l *lease) send(now, renew time.Duration) int64 {
	l.beat++
	l.sent[l.beat] = now
	maps.DeleteFunc(l.sent, func(beat int64, _ time.Duration) bool { return beat <= l.beat-remembered })
	l.next = now + renew
	l.pending++
	return l.beat
}

// confirm notes that a beat is stored, by whatever way that became known.
func (l *lease) confirm(beat int64) {
	at, ok := l.sent[beat]
	if !ok {
		return
	}
	l.confirmed = max(l.confirmed, at)
	maps.DeleteFunc(l.sent, func(b int64, _ time.Duration) bool { return b <= beat })
}

// begins tells that a session of this agent is the one that it has, or a new one.
func (l *lease) begins(id int64) bool { return id == l.id || l.id == 0 && id > l.over }

func (l *lease) end() {
	l.over = max(l.over, l.id)
	l.id, l.confirmed = 0, never
	clear(l.sent)
}
