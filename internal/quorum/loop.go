package quorum

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"sync"
	"time"
)

// loop is what only the goroutine of Run touches.
type loop struct {
	*Quorum
	agent   *agent
	council *council
	work    sync.WaitGroup

	wire     Wire
	placed   Place
	deaf     context.CancelFunc // ends serving other agents
	called   map[string]string
	former   map[string]tenancy // what the agent before held; nil: resumed
	saved    memory
	asksAt   time.Duration
	asking   bool // another agent is asked to let go
	pending  []releasing
	handover handover
	watched  watched
}

func (l *loop) run(ctx context.Context) error {
	clock := l.config.Clock
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		l.takeIn(ctx)
		at := l.act(ctx)
		timer.Reset(at - clock())
		select {
		case <-ctx.Done():
			return l.finish()
		case <-l.wishes:
		case <-timer.C:
		case a := <-l.council.answers:
			l.hear(ctx, a)
		case r := <-l.releases:
			l.agent.letGo(r.segments, clock())
			l.pending = append(l.pending, r)
		case i := <-l.inherited:
			l.asking = false
			if i.err != nil {
				l.log.Debug("the node that held gateways does not say that it has let go", "member", i.question.to, "error", i.err)
			}
			l.agent.inherit(i.question, i.tokens, clock())
		case n := <-l.noted:
			l.watched.answered(n, clock())
			l.complain("others do not know which nodes are to have no elected gateways", n.err)
		case c := <-l.checked:
			l.handover.answered(c, clock())
			if c.moved {
				l.complain("the hypervisors' database keeps its leader", c.err)
			}
		}
	}
}

// takeIn takes what was asked for.
func (l *loop) takeIn(ctx context.Context) {
	l.mu.Lock()
	place, segments := l.place, l.segments
	l.called = l.names
	l.agent.drained, l.agent.leaving, l.agent.spread = l.drained, l.leaving, l.spread
	l.mu.Unlock()
	l.agent.segments = segments
	if len(segments) == 0 {
		place = Place{} // nobody is asked for nothing
	}
	if l.former != nil && len(segments) > 0 {
		l.agent.resume(l.former, l.config.Clock())
		l.former = nil
	}
	if place == l.placed {
		return
	}
	l.placed = place
	if l.deaf != nil {
		l.deaf()
	}
	l.wire = l.config.Wire(place)
	l.council.setSelf(place.Address, l.wire)
	l.agent.self, l.agent.removed = place.Address, false
	if place.Address == "" {
		return
	}
	wire := l.wire
	var serving context.Context
	serving, l.deaf = context.WithCancel(ctx)
	l.work.Go(func() {
		if err := wire.serve(serving, place.Address, l.Quorum); err != nil {
			l.log.Warn("other nodes cannot ask for this one's elected gateways, they wait for their leases", "error", err)
		}
	})
}

// proves tells that a majority of the voters has to be asked.
func (l *loop) proves() bool {
	return l.agent.spread == ByHash || len(l.agent.claims) > 0 || l.council.names()
}

func (l *loop) hear(ctx context.Context, a answer) {
	before := l.proves()
	l.council.hear(a)
	l.agent.removed = l.council.removed()
	if l.agent.spread == ByHash {
		l.hearRegister(ctx, a)
		return
	}
	l.agent.hear(l.council.round(before), l.config.Clock())
	if !before && l.proves() {
		l.council.ask(ctx, true) // at once
	}
}

// hearRegister takes in what the leader has read, once the voters have named it
// after that.
func (l *loop) hearRegister(ctx context.Context, a answer) {
	if a.register.from != "" {
		l.council.ask(ctx, true)
	}
	read := l.council.register()
	l.agent.owners = read.owners(l.agent.segments, l.called)
	l.agent.hear(round{read.from, read.sent}, l.config.Clock())
}

// act does what is due, and returns when to look again.
func (l *loop) act(ctx context.Context) time.Duration {
	clock, a := l.config.Clock, l.agent
	if now := clock(); now >= l.asksAt {
		// Where the leader reads its register, all are asked when it has; it is
		// enough to ask them otherwise if it does not.
		silent := now >= l.council.proven.received+2*l.config.Timing.Renew
		if a.spread == ByHash {
			l.council.askRegister(ctx)
		}
		if a.spread != ByHash || silent {
			l.council.ask(ctx, l.proves())
		}
		l.asksAt = now + l.config.Timing.Renew
	}
	a.settle(clock())
	if list, due := a.due(clock()); due && (a.kernel.Known() || len(a.segments) > 0) {
		err := l.config.Addresses.Set(ctx, list)
		a.kernel.Acknowledge(list, err, clock())
		l.note(err)
	}
	if l.save() == nil {
		l.answerReleases()
	}
	if !l.asking {
		if q, ok := a.ask(clock()); ok {
			l.asking = true
			l.work.Go(func() { l.inherit(ctx, q) })
		}
	}
	l.transfer(ctx)
	l.watchMembers(ctx)
	l.publish()
	return min(a.wake(clock()), l.asksAt)
}

// save leaves to the next agent what is held, before anybody is told that
// something is not.
func (l *loop) save() error {
	if l.former != nil || len(l.agent.segments) == 0 && l.saved.Held == nil {
		return nil // nothing is known yet
	}
	m := memory{Machine: l.config.Machine, Place: l.placed, Held: l.agent.remember()}
	if reflect.DeepEqual(m, l.saved) {
		return nil
	}
	err := m.save(memoryPath(l.config.Dir))
	if err == nil {
		l.saved = m
	} else if l.refused == "" {
		l.log.Warn("elected gateways are not handed over", "error", err)
	}
	return err
}

// answerReleases tells other agents of what the kernel has let go.
func (l *loop) answerReleases() {
	kept := l.pending[:0]
	for _, r := range l.pending {
		if tokens, ready := l.agent.tokens(r.segments, l.config.Clock()); ready {
			r.answer <- tokens
			continue
		}
		kept = append(kept, r)
	}
	l.pending = kept
}

// inherit asks the agent that held gateways to let go.
func (l *loop) inherit(ctx context.Context, q question) {
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	tokens, err := l.wire.release(ctx, q.to, q.segments)
	l.inherited <- inherited{q, tokens, err}
}

// publish brings up to date what others may ask for.
func (l *loop) publish() {
	report := l.agent.report(l.config.Clock(), l.name, l.council.troubles())
	unready := l.agent.unready()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.report, l.unready = report, unready
	if l.agent.leaving && l.agent.hasLeft() {
		select {
		case <-l.left:
		default:
			close(l.left)
		}
	}
}

// name is what a member's node is called.
func (l *loop) name(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	if name, ok := l.called[host]; ok {
		return name
	}
	return host
}

// complain logs why the database was not told something, each thing once.
func (l *loop) complain(what string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != l.failed {
		l.log.Warn(what, "error", text)
	}
	l.failed = text
}

// note logs what the kernel has refused, each thing once.
func (l *loop) note(err error) {
	text := ""
	if err != nil && !errors.Is(err, context.Canceled) {
		text = err.Error()
	}
	if text != "" && text != l.refused {
		l.log.Warn("the addresses of elected gateways cannot be set, trying again", "error", text)
	}
	l.refused = text
}

// finish leaves nothing in the kernel of a node that has left.
func (l *loop) finish() error {
	if !l.agent.leaving || !l.agent.kernel.Known() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), handOverTime)
	defer cancel()
	if err := l.config.Addresses.Set(ctx, nil); err != nil {
		return fmt.Errorf("let go of elected gateways: %w", err)
	}
	return nil
}
