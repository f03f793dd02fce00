package gateway

import (
	"container/heap"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"frond/internal/kv"
)

// world is a fabric in virtual time: nodes that run agents, kernels that count
// lifetimes, and a store that messages take time to.
type world struct {
	failure   string
	random    *rand.Rand
	now       time.Duration
	timing    Timing
	store     *kv.Records
	away      bool // the store answers nobody
	nodes     []*machine
	segments  []Segment
	events    events // messages under way
	order     int
	whole     time.Duration // since when everything works
	trace     []string
	moves     int
	lateness  time.Duration // of the kernel's clock, at most
	careless  bool          // Set does not look at the clock
	slow      time.Duration // longest way of a message
	stumble   time.Duration // how long an agent may stand still before a system call
	forgetful bool          // agents forget what they have given up
	gaps      map[string]time.Duration
	free      map[string]time.Duration
}

type event struct {
	at    time.Duration
	order int
	run   func()
}

// events are a heap, the next first.
type events []event

func (e events) Len() int      { return len(e) }
func (e events) Swap(i, k int) { e[i], e[k] = e[k], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e events) Less(i, k int) bool {
	return e[i].at < e[k].at || e[i].at == e[k].at && e[i].order < e[k].order
}

func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// machine is a node.
type machine struct {
	w        *world
	name     string
	agent    *agent
	runs     int
	alive    bool
	on       bool // the machine itself: its kernel too
	frozen   time.Duration
	refusing time.Duration // until when its kernel removes nothing
	isolated bool
	inbox    []func()                 // what the agent has not looked at yet
	kernel   map[string]time.Duration // addresses, and when the kernel removes them
	wake     time.Duration
	rate     float64 // of its clock
	offset   time.Duration
	wallStep time.Duration
	watching int // counts watches: what an older one brings is void
	lastWay  time.Duration
}

func newWorld(seed uint64, nodes, segments int) *world {
	w := &world{
		random: rand.New(rand.NewPCG(seed, 7)), timing: DefaultTiming,
		store: kv.NewRecords(), lateness: DefaultTiming.Slack, stumble: time.Second, slow: 15 * time.Millisecond,
		gaps: make(map[string]time.Duration), free: make(map[string]time.Duration),
	}
	var names []string
	for i := range nodes {
		names = append(names, fmt.Sprintf("n%d", i+1))
	}
	for i := range segments {
		w.segments = append(w.segments, Segment{Name: fmt.Sprintf("s%d", i+1), Nodes: names, Locality: i%3 == 2})
	}
	for _, name := range names {
		m := &machine{
			w: w, name: name, kernel: make(map[string]time.Duration), on: true,
			rate: 1 + (w.random.Float64()-0.5)*400e-6, offset: time.Duration(w.random.Int64N(int64(time.Hour))),
		}
		w.nodes = append(w.nodes, m)
		m.start()
	}
	w.store.Follow(w.tell)
	return w
}

func (w *world) logf(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%8.3f ", w.now.Seconds())+fmt.Sprintf(format, args...))
}

func (w *world) later(d time.Duration, run func()) {
	w.order++
	heap.Push(&w.events, event{w.now + d, w.order, run})
}

func (w *world) delay() time.Duration {
	d := time.Millisecond + time.Duration(w.random.Int64N(int64(w.slow)))
	if w.random.IntN(300) == 0 {
		d += time.Duration(w.random.Int64N(int64(time.Second)))
	}
	return d
}

// clock is a machine's own: never set, and never quite right.
func (m *machine) clock() time.Duration {
	return m.offset + time.Duration(float64(m.w.now)*m.rate)
}

func (m *machine) reachable() bool { return m.on && !m.isolated && !m.w.away }

func (m *machine) start() {
	m.runs++
	m.alive, m.on, m.inbox, m.frozen, m.wake = true, true, nil, 0, 0
	wall := func() time.Time { return time.Unix(0, 0).Add(m.w.now + m.wallStep) }
	m.agent = newAgent(m.name, m.name, fmt.Sprintf("%s-%d", m.name, m.runs), m.w.timing, wall)
	m.agent.setSegments(m.w.segments)
	m.watch()
}

func (m *machine) kill() {
	m.alive, m.inbox = false, nil
	m.watching++
}

// watch begins a watch: the whole first, and what comes after in its order.
func (m *machine) watch() {
	m.watching++
	watching := m.watching
	m.w.later(m.w.delay(), func() {
		if m.watching != watching || !m.alive {
			return
		}
		if !m.reachable() {
			m.w.later(100*time.Millisecond, m.watch)
			return
		}
		m.lastWay = m.w.now
		m.deliver(m.w.store.Whole(), watching)
	})
}

func (m *machine) deliver(c kv.Change, watching int) {
	m.lastWay = max(m.lastWay+1, m.w.now+m.w.delay())
	m.w.later(m.lastWay-m.w.now, func() {
		if m.watching != watching {
			return
		}
		if !m.reachable() { // the stream is broken: once more from the start
			m.watch()
			return
		}
		m.receive(func() { m.agent.changed(c, m.clock()) })
	})
}

// tell hands a change to all that watch.
func (w *world) tell(c kv.Change) {
	for _, m := range w.nodes {
		if m.alive && m.lastWay > 0 {
			m.deliver(c, m.watching)
		}
	}
}

// receive has the agent look at something, when it runs next.
func (m *machine) receive(what func()) {
	if m.alive {
		m.inbox = append(m.inbox, what)
	}
}

var errLost = errors.New("no answer")

// send carries a request to the store and the answer back; either may be lost.
func (m *machine) send(r request) {
	w, a := m.w, m.agent
	answered := false
	answer := func(o kv.Outcome, err error) {
		if !answered && m.agent == a {
			answered = true
			m.receive(func() { a.answered(r, o, err, m.clock()) })
		}
	}
	w.later(w.delay(), func() {
		if !m.reachable() {
			return
		}
		o := w.store.Commit(r.txn)
		if o.Done && r.kind != beats {
			w.logf("%s: %s %v → %d", m.name, r.kind, r.segments, o.Revision)
		}
		w.later(w.delay(), func() {
			if m.reachable() {
				answer(o, nil)
			}
		})
	})
	w.later(2*w.timing.Renew, func() { answer(kv.Outcome{}, errLost) })
}

// run lets the agent look at what has come, and do what it wants.
func (m *machine) run() {
	if !m.alive || m.w.now < m.frozen || len(m.inbox) == 0 && m.clock() < m.wake {
		return
	}
	inbox := m.inbox
	m.inbox = nil
	for _, what := range inbox {
		what()
	}
	a := m.agent
	a.decide(m.clock())
	if list, due := a.due(m.clock()); due {
		if m.w.stumble > 0 && m.w.random.IntN(40) == 0 {
			m.freezeFor(time.Duration(m.w.random.Int64N(int64(m.w.stumble))))
			m.inbox = append(m.inbox, func() { a.kernel.Acknowledge(list, m.set(list), m.clock()) })
			return
		}
		a.kernel.Acknowledge(list, m.set(list), m.clock())
	}
	if m.w.forgetful && len(a.handing) == 0 {
		clear(a.released)
	}
	for _, r := range a.requests(m.clock()) {
		m.send(r)
	}
	m.wake = a.wake(m.clock())
}

func (m *machine) freezeFor(d time.Duration) { m.frozen = max(m.frozen, m.w.now+d) }

var errRefused = errors.New("refused")

// set is the kernel's part. Now and then it refuses something: before it was
// done, after, or what was to come.
func (m *machine) set(list []Holding) error {
	refusal := m.w.random.IntN(100)
	if refusal == 0 {
		return errRefused
	}
	var result error
	if refusal == 1 {
		result = errRefused
	}
	named := make(map[string]bool)
	for _, h := range list {
		named[h.Segment] = true
		if _, held := m.kernel[h.Segment]; refusal == 2 && !held {
			result = &NotAdded{errRefused}
			continue
		}
		if h.Lifetime > 0 && (m.w.careless || m.clock() <= h.Before) {
			late := time.Duration(m.w.random.Int64N(int64(m.w.lateness)))
			if _, held := m.kernel[h.Segment]; !held {
				m.w.moves++
				m.w.logf("%s: has %s", m.name, h.Segment)
			}
			m.kernel[h.Segment] = m.w.now + h.Lifetime + late
		}
	}
	if m.w.now < m.refusing {
		return errRefused
	}
	for segment := range m.kernel {
		if !named[segment] {
			m.w.logf("%s: has no longer %s", m.name, segment)
			delete(m.kernel, segment)
		}
	}
	return result
}

const tick = time.Millisecond * 2

func (w *world) step() {
	w.now += tick
	for len(w.events) > 0 && w.events[0].at <= w.now {
		heap.Pop(&w.events).(event).run()
	}
	for _, m := range w.nodes {
		for segment, until := range m.kernel {
			if w.now >= until {
				w.logf("%s: the kernel removes %s", m.name, segment)
				delete(m.kernel, segment)
			}
		}
		m.run()
	}
	w.check()
}

func (w *world) advance(d time.Duration) {
	for end := w.now + d; w.now < end && w.failure == ""; {
		w.step()
	}
}

func (w *world) holders(segment string) []string {
	var list []string
	for _, m := range w.nodes {
		if _, ok := m.kernel[segment]; ok && m.on {
			list = append(list, m.name)
		}
	}
	return list
}

// check asserts what has to hold at every moment.
func (w *world) check() {
	for _, m := range w.nodes {
		if !m.alive || m.isolated || w.now < m.frozen || w.now < m.refusing || w.away {
			w.whole = w.now
		}
	}
	for _, s := range w.segments {
		holders := w.holders(s.Name)
		switch {
		case len(holders) > 1:
			w.fail("%s has two holders: %v", s.Name, holders)
		case len(holders) == 1:
			if since, free := w.free[s.Name]; free {
				w.gaps[s.Name] = max(w.gaps[s.Name], w.now-since)
				delete(w.free, s.Name)
			}
		default:
			if _, free := w.free[s.Name]; !free {
				w.free[s.Name] = w.now
			}
			if w.now-w.whole > 5*time.Second && w.now-w.free[s.Name] > 1500*time.Millisecond {
				w.fail("all is well for 5 s, and nobody has %s", s.Name)
			}
		}
	}
}

func (w *world) fail(format string, args ...any) {
	if w.failure == "" {
		w.failure = fmt.Sprintf("%.3f: "+format, append([]any{w.now.Seconds()}, args...)...)
	}
}

// fault does something to the fabric, and mends it a while later.
func (w *world) fault() {
	m := w.nodes[w.random.IntN(len(w.nodes))]
	span := time.Duration(w.random.Int64N(int64(6 * time.Second)))
	switch w.random.IntN(10) {
	case 0:
		w.logf("kill %s", m.name)
		m.kill()
		w.later(span, m.restart)
	case 1:
		w.logf("restart %s", m.name)
		m.kill()
		if w.random.IntN(2) == 0 { // whoever comes next is ready when it is back
			w.drain(m)
		}
		w.later(span/20, m.restart)
	case 2:
		w.logf("freeze %s for %s", m.name, span)
		m.freezeFor(span)
	case 3:
		w.logf("isolate %s for %s", m.name, span)
		m.isolated = true
		w.later(span, func() { m.isolated = false; w.logf("mend %s", m.name) })
	case 4:
		w.logf("power off %s for %s", m.name, span)
		m.kill()
		m.on = false
		clear(m.kernel)
		w.later(span, m.restart)
	case 5:
		w.logf("the store is away for %s", span)
		w.away = true
		w.later(span, func() { w.away = false; w.logf("the store is back") })
	case 6:
		m.wallStep += time.Duration(w.random.Int64N(int64(2*time.Hour))) - time.Hour
	case 7:
		if _, drained := w.store.Get(drainedPrefix + m.name); drained {
			w.logf("undrain %s", m.name)
			w.store.Commit(Drain(m.name, false))
			return
		}
		w.drain(m)
	case 8:
		m.agent.guests = map[string]int{"s3": w.random.IntN(20)}
	case 9:
		w.logf("the kernel of %s refuses for %s", m.name, span/2)
		m.refusing = w.now + span/2
		w.store.Commit(Drain(m.name, false)) // so that something comes, and goes
		w.later(span/4, func() { w.drain(m) })
	}
}

// drain drains a node, if another one is left.
func (w *world) drain(m *machine) {
	if w.drained() < len(w.nodes)-1 {
		w.logf("drain %s", m.name)
		w.store.Commit(Drain(m.name, true))
	}
}

func (w *world) drained() (n int) {
	for _, m := range w.nodes {
		if _, drained := w.store.Get(drainedPrefix + m.name); drained {
			n++
		}
	}
	return n
}

func (m *machine) restart() {
	if !m.alive {
		m.w.logf("start %s", m.name)
		m.start()
	}
}

// history is a number of faults in a random order.
func (w *world) history() {
	w.advance(4 * time.Second)
	for range 12 {
		w.fault()
		w.advance(time.Duration(w.random.Int64N(int64(4 * time.Second))))
	}
	w.advance(14 * time.Second)
}

func simulations() int {
	if n, err := strconv.Atoi(os.Getenv("FROND_SIMULATIONS")); err == nil {
		return n
	}
	return 40
}

// TestNeverTwoAlwaysOne is many short histories of faults, each from a seed.
func TestNeverTwoAlwaysOne(t *testing.T) {
	for seed := range simulations() {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(uint64(seed), 3+seed%3, 1+seed%8)
			w.history()
			if w.failure != "" {
				for _, line := range w.trace[max(0, len(w.trace)-60):] {
					t.Log(line)
				}
				t.Error(w.failure)
			}
		})
	}
}

// TestTheSimulationFinds breaks what keeps holders apart, one thing at a time.
func TestTheSimulationFinds(t *testing.T) {
	tests := []struct {
		name    string
		disturb func(w *world)
	}{
		{"a kernel that is later than the slack", func(w *world) { w.lateness = w.timing.Slack + 600*time.Millisecond }},
		{"a lifetime without slack", func(w *world) { w.timing.Slack = 0 }},
		{"addresses set without a look at the clock", func(w *world) { w.careless = true; w.stumble = 2 * time.Second }},
		{"what was handed over is held again", func(w *world) { w.forgetful = true }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(300) {
				w := newWorld(seed, 3, 6)
				test.disturb(w)
				for _, m := range w.nodes {
					m.agent.timing = w.timing
				}
				w.history()
				if w.failure != "" {
					t.Log("seed", seed, w.failure)
					return
				}
			}
			t.Error("nothing is found")
		})
	}
}

// outages returns how long each segment of one node was without a holder
// after something happened to that node.
func outages(w *world, what func(m *machine)) []time.Duration {
	w.advance(8 * time.Second)
	victim := w.nodes[0]
	for len(victim.kernel) == 0 {
		victim = w.nodes[w.random.IntN(len(w.nodes))]
	}
	w.advance(time.Duration(w.random.Int64N(int64(w.timing.Renew))))
	clear(w.gaps)
	what(victim)
	w.advance(6 * time.Second)
	return slices.Collect(maps.Values(w.gaps))
}

// In virtual time, how long something takes is no matter of the machine.
func TestOutages(t *testing.T) {
	tests := []struct {
		name   string
		median time.Duration
		what   func(m *machine)
	}{
		{"isolated", 2 * time.Second, func(m *machine) { m.isolated = true }},
		{"killed", 2 * time.Second, (*machine).kill},
		{"frozen", 2 * time.Second, func(m *machine) { m.freezeFor(time.Hour) }},
		{"powered off", 2 * time.Second, func(m *machine) { m.kill(); m.on = false; clear(m.kernel) }},
		{"drained", 50 * time.Millisecond, func(m *machine) {
			m.w.store.Commit(Drain(m.name, true))
		}},
		{"leaving", 50 * time.Millisecond, func(m *machine) { m.agent.leave() }},
		{"restarted", 100 * time.Millisecond, func(m *machine) { m.kill(); m.w.later(300*time.Millisecond, m.restart) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var all []time.Duration
			for seed := range uint64(9) {
				w := newWorld(seed, 5, 40)
				w.slow = 5 * time.Millisecond // a data centre's way to a disk and back
				all = append(all, outages(w, test.what)...)
				if w.failure != "" && test.name != "isolated" {
					t.Error(seed, w.failure)
				}
			}
			slices.Sort(all)
			median := time.Duration(0) // of none: nobody noticed
			if len(all) > 0 {
				median = all[len(all)/2]
				t.Logf("%d outages: median %s, longest %s", len(all), median, all[len(all)-1])
			}
			if median > test.median {
				t.Errorf("median outage %s, want at most %s", median, test.median)
			}
		})
	}
}
