package dhcp

import (
	"container/heap"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"frond/internal/dataplane"
	"frond/internal/kv"
)

// world is a fabric in virtual time: nodes with agents, clients that move
// between them, and a store that messages take time to. Probes find nobody, so
// that only the store keeps clients apart.
type world struct {
	t       *testing.T
	failure string
	random  *rand.Rand
	now     time.Duration
	store   *kv.Records
	away    bool
	nodes   []*machine
	clients []*client
	segment Segment
	speech  speech
	events  events
	order   int
	trace   []string
	leases  int // acknowledged

	// What is broken on purpose.
	unconditional bool // the store does not look at conditions
	forgetful     bool // agents forget what they have given up
	unmoved       bool // agents forget that another node had the lease
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
	a        *agent
	runs     int
	alive    bool
	isolated bool
	frozen   time.Duration
	inbox    []func()
	rate     float64 // of its clock
	offset   time.Duration
	watching int
	lastWay  time.Duration
	wake     time.Duration
}

// client is a guest. It counts its lease from when it sent the request
// (RFC 2131 §4.4.1), by its own clock.
type client struct {
	w       *world
	number  int
	node    *machine
	rate    float64
	address netip.Addr
	until   time.Duration // of its lease
	xid     uint32
	sent    time.Duration
	trying  bool
}

const simulatedLease = time.Minute

func newWorld(t *testing.T, speech speech, seed uint64, nodes, clients, addresses int) *world {
	w := &world{t: t, random: rand.New(rand.NewPCG(seed, 11)), store: kv.NewRecords(), speech: speech, segment: speech.segment}
	first := w.segment.Ranges[0].First
	w.segment.Ranges = []Range{{first, plus(first, uint64(addresses)-1)}}
	w.segment.Lease, w.segment.Grace = simulatedLease, simulatedLease
	for i := range nodes {
		m := &machine{w: w, name: fmt.Sprint("n", i+1), rate: w.drift()}
		w.nodes = append(w.nodes, m)
		m.start()
	}
	for i := range clients {
		c := &client{w: w, number: i, node: w.nodes[i%nodes], rate: w.drift()}
		w.clients = append(w.clients, c)
		w.later(w.upTo(20*time.Second), c.act)
	}
	w.store.Follow(func(c kv.Change) {
		for _, m := range w.nodes {
			if m.alive && m.lastWay > 0 {
				m.tell(c, m.watching)
			}
		}
	})
	return w
}

func (w *world) drift() float64                     { return 1 + (w.random.Float64()-0.5)*400e-6 }
func (w *world) upTo(d time.Duration) time.Duration { return time.Duration(w.random.Int64N(int64(d))) }

func (w *world) logf(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%9.3f ", w.now.Seconds())+fmt.Sprintf(format, args...))
}

func (w *world) later(d time.Duration, run func()) {
	w.order++
	heap.Push(&w.events, event{w.now + d, w.order, run})
}

// delay is the way of a message: seldom a very long one.
func (w *world) delay() time.Duration {
	switch w.random.IntN(200) {
	case 0:
		return w.upTo(2 * time.Minute)
	case 1, 2, 3:
		return w.upTo(3 * time.Second)
	}
	return time.Millisecond + w.upTo(20*time.Millisecond)
}

func (m *machine) clock() time.Duration {
	return m.offset + time.Duration(float64(m.w.now)*m.rate)
}

func (m *machine) reachable() bool { return m.alive && !m.isolated && !m.w.away }

func (m *machine) start() {
	m.runs++
	m.alive, m.inbox, m.frozen, m.wake = true, nil, 0, 0
	m.a = newAgent(m.name, fmt.Sprintf("%s-%d", m.name, m.runs), func() time.Time { return time.Unix(0, 0).Add(m.w.now) })
	m.a.setSegments([]Segment{m.w.segment}, m.clock())
	m.watch()
}

func (m *machine) watch() {
	m.watching++
	m.lastWay = 0
	watching := m.watching
	m.w.later(m.w.delay(), func() {
		switch {
		case m.watching != watching || !m.alive:
		case !m.reachable():
			m.w.later(200*time.Millisecond, func() {
				if m.watching == watching {
					m.watch()
				}
			})
		default:
			m.lastWay = m.w.now
			m.tell(m.w.store.Whole(), watching)
		}
	})
}

func (m *machine) tell(c kv.Change, watching int) {
	m.lastWay = max(m.lastWay+1, m.w.now+m.w.delay())
	m.w.later(m.lastWay-m.w.now, func() {
		switch {
		case m.watching != watching:
		case !m.reachable():
			m.watch() // the stream is broken
		default:
			m.receive(func() { m.a.changed(c, m.clock()) })
		}
	})
}

// receive has the agent look at something, at once or when it runs again.
func (m *machine) receive(what func()) {
	if !m.alive {
		return
	}
	m.inbox = append(m.inbox, what)
	m.run()
}

func (m *machine) run() {
	if !m.alive || m.w.now < m.frozen {
		return
	}
	inbox := m.inbox
	m.inbox = nil
	for _, what := range inbox {
		what()
	}
	m.sabotage()
	m.a.tick(m.clock())
	if b, ok := m.a.commit(m.clock()); ok {
		m.send(b)
	}
	for _, f := range m.a.take().frames {
		if f.Port.Port != "" {
			m.w.deliver(f)
		}
	}
	if at := m.a.wake(m.clock()); m.wake <= m.clock() || at < m.wake {
		m.wake = at
		a := m.a
		m.w.later(max(time.Millisecond, at-m.clock()), func() {
			if m.a == a {
				m.run()
			}
		})
	}
}

// sabotage undoes what keeps clients apart, in tests that want to find that.
func (m *machine) sabotage() {
	for _, e := range m.a.book.entries {
		if m.w.forgetful {
			e.surrendered = false
		}
		if m.w.unmoved && m.a.writes.pending[e.address] == nil {
			e.Moved, e.Node = false, m.name
		}
	}
}

var errLost = errors.New("no answer")

func (m *machine) send(b batch) {
	w, a := m.w, m.a
	answered := false
	answer := func(o kv.Outcome, err error) {
		if !answered && m.a == a {
			answered = true
			m.receive(func() { a.answered(b, o, err, m.clock()) })
		}
	}
	w.later(w.delay(), func() {
		if m.isolated || w.away {
			return // a node that was killed may still have sent it
		}
		if w.unconditional {
			b.txn.If = nil
		}
		o := w.store.Commit(b.txn)
		if o.Done {
			for i, x := range b.writes {
				w.logf("%s: %s of %s is %s (delete %t), hold %s → %d", m.a.run, x.address, x.lease.Client, x.lease.Kind, x.delete, b.leases[i].Hold, o.Revision)
			}
		}
		w.later(w.delay(), func() {
			if m.reachable() && w.random.IntN(30) > 0 {
				answer(o, nil)
			}
		})
	})
	w.later(commitTime, func() { answer(kv.Outcome{}, errLost) })
}

// act is what a client does next.
func (c *client) act() {
	w := c.w
	defer func() { w.later(time.Second+w.upTo(simulatedLease/2), c.act) }()
	holds := c.address.IsValid() && c.clock() < c.until
	switch n := w.random.IntN(20); {
	case n == 0:
		c.move()
	case n == 1 && holds:
		c.ask(releases, c.address)
		w.logf("client %d releases %s", c.number, c.address)
		c.until, c.trying = 0, false
		if w.random.IntN(2) == 0 { // and regrets it elsewhere, as none should
			w.later(w.upTo(time.Minute), c.move)
		}
	case n == 2: // it is off, and its lease runs out
	case n == 3:
		c.ask(looks, netip.Addr{})
	case holds && n < 8:
		c.ask(returns, c.address)
	case holds:
		c.ask(renews, c.address)
	default:
		c.ask(looks, netip.Addr{})
	}
}

// move has a client be on another node, and ask for the address that it had.
func (c *client) move() {
	c.node = c.w.nodes[c.w.random.IntN(len(c.w.nodes))]
	c.w.logf("client %d moves to %s", c.number, c.node.name)
	c.ask(returns, c.address)
}

func (c *client) clock() time.Duration { return time.Duration(float64(c.w.now) * c.rate) }

// ask has a client say something about an address.
func (c *client) ask(what saying, about netip.Addr) {
	c.w.order++
	c.xid = uint32(c.w.order) & 0xffffff
	c.sent, c.trying = c.clock(), true
	node, frame := c.node, c.w.speech.say(c.w, c, what, about)
	c.w.later(c.w.upTo(5*time.Millisecond), func() {
		node.receive(func() {
			node.a.heard(dataplane.LocalPort{VNI: 100, Port: fmt.Sprint("g", c.number)}, frame, node.clock())
		})
	})
}

// deliver brings an answer to its client.
func (w *world) deliver(f Sending) {
	r := w.speech.hear(w, f)
	c := w.clients[r.client]
	w.later(w.upTo(5*time.Millisecond), func() {
		if !c.trying || r.xid != c.xid {
			return
		}
		switch {
		case r.offer:
			c.ask(chooses, r.address)
		case !r.address.IsValid():
			c.until, c.trying = 0, false
		default:
			c.trying = false
			c.address, c.until = r.address, c.sent+r.term
			w.leases++
			w.logf("client %d has %s from %s for %s", c.number, c.address, c.node.name, r.term)
			w.check(c)
		}
	})
}

// check asserts that nobody else may use the address that a client has got.
func (w *world) check(c *client) {
	for _, other := range w.clients {
		if other != c && other.address == c.address && other.clock() < other.until && c.clock() < c.until && w.failure == "" {
			w.failure = fmt.Sprintf("%.3f: clients %d and %d both have %s", w.now.Seconds(), c.number, other.number, c.address)
		}
	}
}

func (w *world) advance(d time.Duration) {
	end := w.now + d
	for w.failure == "" && len(w.events) > 0 && w.events[0].at <= end {
		e := heap.Pop(&w.events).(event)
		w.now = max(w.now, e.at)
		e.run()
	}
	w.now = max(w.now, end)
}

// fault does something to the fabric, and mends it a while later.
func (w *world) fault() {
	m := w.nodes[w.random.IntN(len(w.nodes))]
	span := w.upTo(4 * simulatedLease)
	switch w.random.IntN(5) {
	case 0, 1:
		w.logf("kill %s for %s", m.name, span)
		m.alive, m.inbox = false, nil
		m.watching++
		if w.random.IntN(2) == 0 {
			m.offset = w.upTo(time.Hour) // the machine, too
		}
		w.later(span/20, func() {
			if !m.alive {
				m.start()
			}
		})
	case 2:
		w.logf("freeze %s for %s", m.name, span)
		m.frozen = w.now + span
		w.later(span+time.Millisecond, m.run)
	case 3:
		w.logf("isolate %s for %s", m.name, span)
		m.isolated = true
		w.later(span, func() { m.isolated = false })
	case 4:
		w.logf("the store is away for %s", span)
		w.away = true
		w.later(span, func() { w.away = false })
	}
}

func (w *world) history() {
	w.advance(time.Minute)
	for range 15 {
		w.fault()
		w.advance(w.upTo(2 * simulatedLease))
	}
	w.advance(5 * time.Minute)
}

func simulations() int {
	if n, err := strconv.Atoi(os.Getenv("FROND_SIMULATIONS")); err == nil {
		return n
	}
	return 90
}

// TestNeverOneAddressForTwo is many histories of faults, each from a seed.
func TestNeverOneAddressForTwo(t *testing.T) {
	for seed := range simulations() {
		speech := speeches[seed%len(speeches)]
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, speech, uint64(seed), 2+seed%3, 12, 8+seed%8)
			w.history()
			if w.failure != "" {
				for _, line := range w.trace[max(0, len(w.trace)-60):] {
					t.Log(line)
				}
				t.Fatal(w.failure)
			}
			if before := w.leases; before < 100 {
				t.Errorf("only %d leases were given: that proves nothing", before)
			}
		})
	}
}

// TestTheSimulationFinds breaks what keeps clients apart, one thing at a time.
func TestTheSimulationFinds(t *testing.T) {
	for name, disturb := range map[string]func(w *world){
		"a store without conditions":                 func(w *world) { w.unconditional = true },
		"a clock that is faster than the margin":     func(w *world) { w.nodes[0].rate = 1.3 },
		"promises of what is given up":               func(w *world) { w.forgetful = true },
		"releases of what another node has promised": func(w *world) { w.unmoved = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(400) {
				w := newWorld(t, speeches[seed%2], seed, 2, 12, 8)
				disturb(w)
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
