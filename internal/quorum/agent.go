package quorum

import (
	"maps"
	"slices"
	"time"

	"frond/internal/gateway"
)

// claim is how far this node is with a gateway that should be its own.
type claim struct {
	// first is when the answer came by which the gateway was this node's, with
	// no gap since in which it can have been another's.
	first time.Duration
	// sent is when the last question was sent that was answered so. Until a
	// lease after that, no other node holds the gateway.
	sent time.Duration
	// held tells that no lease of another node can last: this one may act.
	held bool
	// named is when the last question was sent that was answered so, though it
	// prolongs nothing yet, and again the first of these where another may have
	// been named before it; never: none can have been.
	named, again time.Duration
	asked        time.Duration // when the holder before was last asked to let go
	term         uint64
	since        time.Time
	why          string
}

// agent decides for one node. It has no clock, no goroutine and no effects:
// what happens is told to it, and it says what to do.
type agent struct {
	node     string
	timing   gateway.Timing
	wall     func() time.Time
	segments []gateway.Segment
	self     string // address of this node's member; empty: it is not known yet
	removed  bool   // that member is in its cluster no more
	drained  bool
	leaving  bool

	spread Spread
	owners map[string]string // by hash: members by segment, of heard
	heard  round
	claims map[string]*claim
	former map[string]string // who should have had a segment's gateway before this node
	going  map[string]*claim // given up, and may be in the kernel yet
	kernel gateway.Installed
}

// never is long before the clock began.
const never = -1 << 60

func newAgent(node string, timing gateway.Timing, wall func() time.Time) *agent {
	return &agent{
		node: node, timing: timing, wall: wall,
		claims: make(map[string]*claim), former: make(map[string]string), going: make(map[string]*claim),
	}
}

// longestGap is how long after a question another node can have been elected,
// and this one again, without any effect: none acts before its claim is as old.
func (a *agent) longestGap() time.Duration { return 2*a.timing.Renew + a.timing.Margin }

// shortestTenure is how long a node has to be the leader at least before the
// kernel takes an address from it, if it has to wait for the lease of another.
func (a *agent) shortestTenure() time.Duration { return time.Second + a.timing.Slack }

// hear takes in what the voters say now.
func (a *agent) hear(r round, now time.Duration) {
	a.heard = r
	if r.leader == "" || now >= r.sent+a.timing.Lease {
		return // nothing is known, which changes nothing
	}
	for _, s := range a.segments {
		owner := a.owner(s.Name)
		if owner == a.self && slices.Contains(s.Nodes, a.node) {
			a.strengthen(s.Name, r.sent, now)
			continue
		}
		if owner != a.self && owner != "" {
			a.former[s.Name] = owner
		}
		switch c := a.claims[s.Name]; {
		case c == nil:
		case !c.held:
			delete(a.claims, s.Name)
		case owner != "":
			c.named = never // whatever comes next comes after another
		}
	}
}

// owner is the address of the member whose node should have a segment's gateway.
func (a *agent) owner(segment string) string {
	if a.spread == ByHash {
		return a.owners[segment]
	}
	return a.heard.leader
}

// why is what that follows from.
func (a *agent) why() string {
	if a.spread == ByHash {
		return "first by hash"
	}
	return "database leader"
}

// strengthen takes in an answer by which a segment's gateway is this node's.
func (a *agent) strengthen(segment string, sent, now time.Duration) {
	c := a.claims[segment]
	if c != nil && sent <= max(c.sent, c.named) {
		return // was known
	}
	if c != nil && (c.held && a.goesOn(c, sent, now) || !c.held && now < c.sent+a.longestGap()) {
		if c.named = sent; c.again == never || sent >= c.again+a.longestGap() {
			c.sent, c.again = sent, never
		}
		return
	}
	if c != nil && c.held {
		a.going[segment] = c
	}
	delete(a.claims, segment)
	if !a.retires() {
		a.claims[segment] = &claim{first: now, sent: sent, named: sent, again: never, asked: never}
	}
}

// goesOn tells that who holds a gateway may go on when it is named again. Another
// one that was named between waits from then on, unless it notices that it was
// not all the time: so this one has to be named for longestGap before that
// prolongs anything.
func (a *agent) goesOn(c *claim, sent, now time.Duration) bool {
	gap := now >= c.named+a.longestGap()
	if gap && now >= c.sent+a.shortestTenure() {
		return false
	}
	if gap {
		c.again = sent
	}
	return true
}

// retires tells that nothing more is to come here.
func (a *agent) retires() bool { return a.drained || a.leaving }

// settle begins and ends what is due.
func (a *agent) settle(now time.Duration) {
	for segment, c := range a.claims {
		switch {
		case c.held && (!a.timing.Lasts(c.sent, now) || !a.takesPart(segment)):
			a.giveUp(segment)
		case !c.held && (now >= c.sent+a.longestGap() || a.retires() || !a.takesPart(segment)):
			delete(a.claims, segment)
		case !c.held && now >= c.first+a.timing.Lease && a.isFresh(c, now):
			a.take(c, 0)
		}
	}
}

func (a *agent) giveUp(segment string) {
	a.going[segment] = a.claims[segment]
	delete(a.claims, segment)
}

// isFresh tells that the kernel can be given an address by the claim.
func (a *agent) isFresh(c *claim, now time.Duration) bool {
	lifetime, _ := a.timing.Lifetime(c.sent, now)
	return lifetime > 0
}

// take makes a gateway this node's. Its term is a time, as package gateway's
// is, but higher than the one before where that is known.
func (a *agent) take(c *claim, before uint64) {
	now := a.wall()
	c.held, c.since, c.why = true, now, a.why()
	c.term = max(before+1, uint64(max(now.Unix(), 0)))
}

func (a *agent) takesPart(segment string) bool {
	return gateway.TakesPart(a.segments, segment, a.node)
}

func (a *agent) takesPartInAny() bool { return gateway.TakesPartInAny(a.segments, a.node) }

// holds tells that any gateway is this node's.
func (a *agent) holds() bool {
	for _, c := range a.claims {
		if c.held {
			return true
		}
	}
	return false
}

// question is a request to let go of gateways.
type question struct {
	to       string // member
	segments []string
	asked    time.Duration
}

// questionPause is how long after one question the next may be sent.
const questionPause = 400 * time.Millisecond

// ask has the holder before let go, where its lease may last yet.
func (a *agent) ask(now time.Duration) (question, bool) {
	q := question{asked: now}
	for _, segment := range slices.Sorted(maps.Keys(a.claims)) {
		c, former := a.claims[segment], a.former[segment]
		if c.held || former == "" || c.sent < c.first+a.longestGap() || now < c.asked+questionPause || q.to != "" && q.to != former {
			continue
		}
		c.asked, q.to = now, former
		q.segments = append(q.segments, segment)
	}
	return q, q.to != ""
}

// Token is what a node says that has let go of a gateway: nobody else hears it.
type Token struct {
	// Age is how long ago the last question was sent by whose answer it held.
	Age  time.Duration `json:"age"`
	Term uint64        `json:"term"`
}

// inherit takes in the answer to a question.
func (a *agent) inherit(q question, tokens map[string]Token, now time.Duration) {
	for _, segment := range q.segments {
		t, ok := tokens[segment]
		c := a.claims[segment]
		// What it held ended before it said so, and nobody who was elected after
		// that can hold anything before shortestTenure has passed.
		if ok && c != nil && !c.held && !a.retires() && c.first+a.longestGap() <= q.asked && c.sent >= c.first+a.longestGap() &&
			t.Age >= 0 && now < q.asked-t.Age+a.shortestTenure() && a.isFresh(c, now) {
			a.take(c, t.Term)
		}
	}
}

// letGo gives up gateways of which another node says that they are its own.
func (a *agent) letGo(segments []string, now time.Duration) {
	for _, segment := range segments {
		if c := a.claims[segment]; c != nil && c.held && a.timing.Lasts(c.sent, now) {
			a.giveUp(segment)
		}
	}
}

// tokens are for those of the segments that were given up, once the kernel has
// let go of all. Each is given once.
func (a *agent) tokens(segments []string, now time.Duration) (all map[string]Token, ready bool) {
	all = make(map[string]Token)
	for _, segment := range segments {
		if !a.kernel.Gone(segment) {
			return nil, false
		}
		if c := a.going[segment]; c != nil {
			all[segment] = Token{Age: now - c.sent, Term: c.term}
		}
	}
	for segment := range all {
		delete(a.going, segment)
	}
	return all, true
}

// hasLeft tells that nothing is left to hand over.
func (a *agent) hasLeft() bool {
	return !a.holds() && a.kernel.Empty() && (a.self == "" || a.spread == ByHash || a.heard.leader != a.self)
}

// unready tells why no gateway is to come here, if none is.
func (a *agent) unready() error {
	switch {
	case a.self == "":
		return errNotYet
	case a.removed:
		return errRemoved
	case a.leaving:
		return errEnded
	case a.drained:
		return errDrained
	case !a.takesPartInAny():
		return errNoPart
	}
	return nil
}
