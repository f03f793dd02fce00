package quorum

import (
	"context"
	"sync"
	"time"
)

// watched is what the agent beside the leader knows of the others, where gateways
// are spread over the members: who has no agent that is ready.
type watched struct {
	busy    bool
	next    time.Duration
	unready map[string]time.Duration // since when, by address
}

// noted is what has become of a look at the others.
type noted struct {
	unready map[string]bool // by address; nil: nobody was asked
	err     error           // why something is not noted
}

func (w *watched) answered(n noted, now time.Duration) {
	w.busy, w.next = false, now+transferPause
	if n.unready == nil {
		return
	}
	unready := make(map[string]time.Duration)
	for address := range n.unready {
		unready[address] = now
		if since, known := w.unready[address]; known {
			unready[address] = since
		}
	}
	w.unready = unready
}

// watchMembers has the database know which nodes are not to have gateways: each
// agent what is true of its own, and the one beside the leader who has none that
// is ready.
func (l *loop) watchMembers(ctx context.Context) {
	a, w, now := l.agent, &l.watched, l.config.Clock()
	r := l.council.proven
	if a.spread != ByHash || a.self == "" || w.busy || now < w.next || now >= r.sent+a.timing.Lease {
		return
	}
	wire := l.wire
	if n, ok := a.ownNote(r); ok {
		w.busy = true
		l.work.Go(func() { l.noted <- noted{err: noteDown(ctx, wire, n)} })
		return
	}
	if a.heard.leader != a.self {
		w.unready = nil
		return
	}
	var late []note
	var others []registered
	for _, m := range r.online() {
		since, unready := w.unready[m.address]
		switch {
		case m.address == a.self:
		case unready && now >= since+patience:
			late = append(late, note{m, markAway})
		default:
			others = append(others, m)
		}
	}
	w.busy = true
	l.work.Go(func() { l.noted <- look(ctx, wire, others, late) })
}

func noteDown(ctx context.Context, wire Wire, n note) error {
	ctx, cancel := context.WithTimeout(ctx, markTime)
	defer cancel()
	return wire.mark(ctx, n.member.name, n.text)
}

// look asks the agents beside members whether they are ready, once more those
// that have not been for long, which is noted down.
func look(ctx context.Context, wire Wire, others []registered, late []note) noted {
	result := noted{unready: make(map[string]bool)}
	for _, n := range late {
		others = append(others, n.member)
	}
	var mu sync.Mutex
	var asking sync.WaitGroup
	limited, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	for _, m := range others {
		asking.Go(func() {
			if wire.ready(limited, m.address) != nil {
				mu.Lock()
				defer mu.Unlock()
				result.unready[m.address] = true
			}
		})
	}
	asking.Wait()
	for _, n := range late {
		if result.unready[n.member.address] && result.err == nil {
			result.err = noteDown(ctx, wire, n)
		}
	}
	return result
}
