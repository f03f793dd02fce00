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

// letter is on its way between voters, or between an agent and a voter.
type letter struct {
	at       time.Duration
	from, to int
	kind     string // vote, granted, append, appended, now; ask, then, answer; release, token
	term     int
	log      []entry       // of who sends it
	sent     time.Duration // ask, then and answer
	leader   int
	voters   []int
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
	churn    time.Duration // until when voters are chosen again and again
	changes  int
	moves    int
	last     int
	trail    []string
}

func addressOf(i int) string { return fmt.Sprintf("10.0.200.%d:8443", i+1) }

// newSimulation has the first of the nodes vote.
func newSimulation(t *testing.T, seed uint64, nodes, voters int) *simulation {
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
		st.raft = raft{voted: -1, leader: -1, log: []entry{{voters: firstOf(voters)}}, deadline: s.timeout()}
		s.stations = append(s.stations, st)
	}
	return s
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
			for _, v := range l.voters {
				w.voters = append(w.voters, s.members[v])
			}
			if st.words[addressOf(l.from)].sent <= w.sent {
				st.words[addressOf(l.from)] = w
			}
			a.hear(tally(st.words), s.now)
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
		if s.now < s.churn && s.random.IntN(10) == 0 {
			s.changeVoters(s.leader())
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
	switch s.random.IntN(12) {
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
	case 9, 10, 11:
		s.churn = s.now + time.Duration(s.random.Int64N(int64(12*time.Second)))
		s.note("voters are chosen again and again")
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

func (s *simulation) mend() {
	clear(s.cut)
	s.storm, s.churn = 0, 0
	for _, st := range s.stations {
		st.frozen, st.raft.frozen = false, false
	}
	s.note("all is mended")
}

// TestSimulation breaks whatever can be broken between voters and agents that
// decide by them, while it is others that vote again and again: never do two
// hold the gateway, and one does when all is whole.
func TestSimulation(t *testing.T) {
	moves, changes := 0, 0
	for seed := range uint64(30) {
		shape := [][2]int{{1, 1}, {3, 3}, {5, 5}, {5, 3}, {6, 3}}[seed%5]
		s := newSimulation(t, seed, shape[0], shape[1])
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
		if !s.run(40 * time.Second) {
			t.Fatalf("seed %d", seed)
		}
		if holders := s.holders(); len(holders) != 1 || holders[0] != s.leader() {
			for _, line := range s.trail[max(0, len(s.trail)-20):] {
				t.Log(line)
			}
			t.Fatalf("seed %d: all is whole, leaf%d leads, and %v hold the address", seed, s.leader()+1, holders)
		}
		moves, changes = moves+s.moves, changes+s.changes
	}
	if moves < 90 || changes < 500 {
		t.Errorf("only %d moves and %d changes of voters: that proves nothing", moves, changes)
	}
	t.Logf("%d moves, %d changes of voters", moves, changes)
}
