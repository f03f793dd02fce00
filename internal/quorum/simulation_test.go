package quorum

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"frond/internal/gateway"
)

// The election of dqlite's raft, as far as it matters: LXD's default timeouts,
// and a leader that does not look more often than that whether it is one yet.
const (
	electionTimeout   = 3 * time.Second
	heartbeatInterval = 300 * time.Millisecond
	simulatedStep     = 5 * time.Millisecond
)

// raft is a voter, and what it would answer to LEADER.
type raft struct {
	term     int
	voted    int // for whom in this term, -1: nobody
	leads    bool
	leader   int // -1: none is known
	votes    map[int]bool
	deadline time.Duration // of an election, or of a leader's look at its followers
	beat     time.Duration
	heard    map[int]bool // since that look
	frozen   bool
	inbox    []letter
}

// letter is on its way between voters, or between an agent and a voter.
type letter struct {
	at       time.Duration
	from, to int
	kind     string // vote, granted, append, appended, now; ask, answer; release, token
	term     int
	sent     time.Duration // ask and answer
	leader   int
	question question
	tokens   map[string]Token
}

// station is a node: its voter, its agent and its kernel.
type station struct {
	raft    raft
	agent   *agent
	words   map[string]word
	asksAt  time.Duration
	frozen  bool // agent
	inbox   []letter
	pending []letter      // questions to let go, not answered yet
	ends    time.Duration // when the kernel removes the address, 0: it has none
}

type simulation struct {
	t        *testing.T
	random   *rand.Rand
	now      time.Duration
	stations []*station
	members  []Member
	cut      map[[2]int]bool
	storm    time.Duration // until when leadership is handed over again and again
	moves    int
	last     int
	trail    []string
}

func addressOf(i int) string { return fmt.Sprintf("10.0.200.%d:8443", i+1) }

func newSimulation(t *testing.T, seed uint64, nodes int) *simulation {
	s := &simulation{t: t, random: rand.New(rand.NewPCG(seed, 7)), cut: make(map[[2]int]bool), last: -1}
	segment := gateway.Segment{Name: "blue"}
	for i := range nodes {
		segment.Nodes = append(segment.Nodes, fmt.Sprint("leaf", i+1))
		s.members = append(s.members, Member{ID: uint64(i + 1), Address: addressOf(i)})
	}
	for i := range nodes {
		a := newAgent(segment.Nodes[i], DefaultTiming, func() time.Time { return time.Unix(0, 0).Add(s.now) })
		a.self, a.segments = addressOf(i), []gateway.Segment{segment}
		st := &station{agent: a, words: make(map[string]word)}
		st.raft = raft{voted: -1, leader: -1, deadline: s.timeout()}
		s.stations = append(s.stations, st)
	}
	return s
}

func (s *simulation) timeout() time.Duration {
	return s.now + electionTimeout + time.Duration(s.random.Int64N(int64(electionTimeout)))
}

func (s *simulation) note(format string, args ...any) {
	s.trail = append(s.trail, fmt.Sprintf("%8.3f ", s.now.Seconds())+fmt.Sprintf(format, args...))
}

// send has a letter on its way for a moment, sometimes a long one.
func (s *simulation) send(l letter) {
	delay := time.Duration(s.random.Int64N(int64(4 * time.Millisecond)))
	switch late := s.random.IntN(50); {
	case late == 0, late < 8 && s.now < s.storm:
		delay = time.Duration(s.random.Int64N(int64(1500 * time.Millisecond)))
	}
	l.at = s.now + delay
	switch l.kind {
	case "answer", "release", "token":
		s.stations[l.to].inbox = append(s.stations[l.to].inbox, l)
	default:
		s.stations[l.to].raft.inbox = append(s.stations[l.to].raft.inbox, l)
	}
}

// due takes those letters out of an inbox that have come, in any order. What a
// cut is in the way of waits, as TCP has it, or is lost.
func (s *simulation) due(inbox *[]letter) []letter {
	var come, later []letter
	for _, l := range *inbox {
		switch {
		case l.at > s.now:
			later = append(later, l)
		case s.cut[[2]int{l.from, l.to}]:
			if s.random.IntN(200) > 0 {
				l.at = s.now + simulatedStep
				later = append(later, l)
			}
		default:
			come = append(come, l)
		}
	}
	*inbox = later
	s.random.Shuffle(len(come), func(i, j int) { come[i], come[j] = come[j], come[i] })
	return come
}

// vote lets a voter do what is due.
func (s *simulation) vote(i int) {
	r := &s.stations[i].raft
	if r.frozen {
		return
	}
	for _, l := range s.due(&r.inbox) {
		if l.kind != "ask" && l.kind != "now" && l.term > r.term {
			r.term, r.voted, r.leads, r.leader = l.term, -1, false, -1
			r.deadline = s.timeout()
		}
		switch {
		case l.kind == "ask":
			s.send(letter{from: i, to: l.from, kind: "answer", sent: l.sent, leader: r.leader})
		case l.kind == "now" && l.term == r.term && !r.leads:
			r.deadline = s.now
		case l.term < r.term:
		case l.kind == "vote" && (r.voted < 0 || r.voted == l.from) && !r.leads:
			r.voted, r.deadline = l.from, s.timeout()
			s.send(letter{from: i, to: l.from, kind: "granted", term: r.term})
		case l.kind == "granted" && r.voted == i && !r.leads:
			if r.votes[l.from] = true; len(r.votes) > len(s.members)/2 {
				r.leads, r.leader, r.heard, r.beat = true, i, make(map[int]bool), s.now
				r.deadline = s.now + electionTimeout
				s.note("leaf%d leads in term %d", i+1, r.term)
			}
		case l.kind == "append" && !r.leads:
			r.leader, r.deadline = l.from, s.timeout()
			s.send(letter{from: i, to: l.from, kind: "appended", term: r.term})
		case l.kind == "appended" && r.leads:
			r.heard[l.from] = true
		}
	}
	switch {
	case r.leads && s.now >= r.deadline:
		if len(r.heard)+1 <= len(s.members)/2 {
			r.leads, r.leader, r.deadline = false, -1, s.timeout()
			s.note("leaf%d leads no more", i+1)
			return
		}
		r.heard, r.deadline = make(map[int]bool), s.now+electionTimeout
	case !r.leads && s.now >= r.deadline:
		r.term, r.voted, r.leader, r.votes = r.term+1, i, -1, map[int]bool{i: true}
		r.deadline = s.timeout()
		s.tell(i, "vote")
		if len(s.members) == 1 {
			s.send(letter{from: i, to: i, kind: "granted", term: r.term})
		}
	}
	if r.leads && s.now >= r.beat {
		r.beat = s.now + heartbeatInterval
		s.tell(i, "append")
	}
}

func (s *simulation) tell(from int, kind string) {
	for to := range s.members {
		if to != from {
			s.send(letter{from: from, to: to, kind: kind, term: s.stations[from].raft.term})
		}
	}
}

// act lets an agent do what is due.
func (s *simulation) act(i int) {
	st := s.stations[i]
	if st.frozen {
		return
	}
	a := st.agent
	for _, l := range s.due(&st.inbox) {
		switch l.kind {
		case "answer":
			w := word{sent: l.sent}
			if l.leader >= 0 {
				w.leader = addressOf(l.leader)
			}
			if st.words[addressOf(l.from)].sent <= w.sent {
				st.words[addressOf(l.from)] = w
			}
			a.hear(tally(s.members, st.words), s.now)
		case "release":
			a.letGo(l.question.segments, s.now)
			st.pending = append(st.pending, l)
		case "token":
			a.inherit(l.question, l.tokens, s.now)
		}
	}
	if s.now >= st.asksAt {
		st.asksAt = s.now + a.timing.Renew
		for to := range s.members {
			s.send(letter{from: i, to: to, kind: "ask", sent: s.now})
		}
	}
	a.settle(s.now)
	if list, due := a.due(s.now); due {
		a.kernel.Acknowledge(list, s.install(i, list), s.now)
	}
	kept := st.pending[:0]
	for _, l := range st.pending {
		if tokens, ready := a.tokens(l.question.segments, s.now); ready {
			s.send(letter{from: i, to: l.from, kind: "token", question: l.question, tokens: tokens})
			continue
		}
		kept = append(kept, l)
	}
	st.pending = kept
	if q, ok := a.ask(s.now); ok {
		to := slices.IndexFunc(s.members, func(m Member) bool { return m.Address == q.to })
		s.send(letter{from: i, to: to, kind: "release", question: q})
	}
}

var errRefused = errors.New("refused")

// install is the kernel, which removes addresses as late as it may, and now and
// then refuses what it is asked for, before it was done or after.
func (s *simulation) install(i int, list []gateway.Holding) error {
	st := s.stations[i]
	refusal := s.random.IntN(30)
	if refusal == 0 {
		return errRefused
	}
	switch {
	case len(list) == 0:
		st.ends = 0
	case refusal == 1:
		return &gateway.NotAdded{Err: errRefused}
	case list[0].Lifetime > 0 && s.now <= list[0].Before:
		st.ends = s.now + list[0].Lifetime + time.Duration(s.random.Int64N(int64(DefaultTiming.Slack)))
	}
	if refusal == 2 {
		return errRefused
	}
	return nil
}

func (s *simulation) holders() (all []int) {
	for i, st := range s.stations {
		if st.ends > 0 && s.now >= st.ends {
			st.ends = 0
		}
		if st.ends > 0 {
			all = append(all, i)
		}
	}
	return all
}

// run lets time pass. It tells false after two have held the address.
func (s *simulation) run(d time.Duration) bool {
	for end := s.now + d; s.now < end; s.now += simulatedStep {
		if s.now < s.storm && s.random.IntN(160) == 0 {
			s.transfer(s.leader())
		}
		for _, i := range s.random.Perm(len(s.stations)) {
			s.vote(i)
			s.act(i)
			holders := s.holders()
			if len(holders) > 1 {
				for _, line := range s.trail[max(0, len(s.trail)-40):] {
					s.t.Log(line)
				}
				s.t.Errorf("after %s leaf%d and leaf%d hold the address", s.now, holders[0]+1, holders[1]+1)
				return false
			}
			if len(holders) == 1 && holders[0] != s.last {
				s.note("leaf%d holds the address", holders[0]+1)
				s.last, s.moves = holders[0], s.moves+1
			}
		}
	}
	return true
}

// disturb breaks something.
func (s *simulation) disturb() {
	i := s.random.IntN(len(s.stations))
	st := s.stations[i]
	if leader := s.leader(); leader >= 0 && s.random.IntN(2) == 0 {
		i, st = leader, s.stations[leader]
	}
	switch s.random.IntN(9) {
	case 0:
		st.raft.frozen = true
		s.note("leaf%d's voter stands still", i+1)
	case 1:
		st.frozen = true
		s.note("leaf%d's agent stands still", i+1)
	case 2:
		st.frozen, st.raft.frozen = true, true
		s.note("leaf%d stands still", i+1)
	case 3:
		oneWay := s.random.IntN(3) == 0
		for to := range s.members {
			if to != i && s.random.IntN(4) > 0 {
				s.cut[[2]int{i, to}] = true
				s.cut[[2]int{to, i}] = !oneWay
			}
		}
		s.note("leaf%d is cut off, one way: %t", i+1, oneWay)
	case 4:
		s.transfer(i)
	case 7, 8:
		s.storm = s.now + time.Duration(s.random.Int64N(int64(12*time.Second)))
		s.note("leadership is handed over again and again")
	case 5: // the voter starts again: what it said it does not know, its vote it does
		st.raft.leads, st.raft.leader, st.raft.inbox, st.raft.deadline = false, -1, nil, s.timeout()
		s.note("leaf%d's voter starts again", i+1)
	case 6: // the agent starts again
		old := st.agent
		st.agent = newAgent(old.node, old.timing, old.wall)
		st.agent.self, st.agent.segments = old.self, old.segments
		if s.random.IntN(2) == 0 {
			st.agent.resume(old.remember(), s.now) // else its directory was lost
		}
		st.pending = nil
		clear(st.words)
		s.note("leaf%d's agent starts again", i+1)
	}
}

// transfer has a leader hand over to any other voter.
func (s *simulation) transfer(leader int) {
	if leader < 0 || !s.stations[leader].raft.leads || len(s.members) == 1 {
		return
	}
	to := (leader + 1 + s.random.IntN(len(s.members)-1)) % len(s.members)
	s.send(letter{from: leader, to: to, kind: "now", term: s.stations[leader].raft.term})
	s.note("leaf%d hands over to leaf%d", leader+1, to+1)
}

func (s *simulation) leader() int {
	return slices.IndexFunc(s.stations, func(st *station) bool { return st.raft.leads })
}

func (s *simulation) mend() {
	clear(s.cut)
	for _, st := range s.stations {
		st.frozen, st.raft.frozen = false, false
	}
	s.note("all is mended")
}

// TestSimulation breaks whatever can be broken between voters and agents that
// decide by them: never do two hold the gateway, and one does when all is whole.
func TestSimulation(t *testing.T) {
	moves := 0
	for seed := range uint64(60) {
		s := newSimulation(t, seed, []int{1, 3, 3, 5}[seed%4])
		for range 25 {
			if !s.run(time.Duration(s.random.Int64N(int64(9 * time.Second)))) {
				t.Fatalf("seed %d", seed)
			}
			if s.random.IntN(3) > 0 {
				s.disturb()
			} else {
				s.mend()
			}
		}
		s.mend()
		if !s.run(25 * time.Second) {
			t.Fatalf("seed %d", seed)
		}
		if holders := s.holders(); len(holders) != 1 || holders[0] != s.leader() {
			for _, line := range s.trail[max(0, len(s.trail)-20):] {
				t.Log(line)
			}
			t.Fatalf("seed %d: all is whole, leaf%d leads, and %v hold the address", seed, s.leader()+1, holders)
		}
		moves += s.moves
	}
	if moves < 200 {
		t.Errorf("only %d moves: that proves nothing", moves)
	}
	t.Logf("%d moves", moves)
}
