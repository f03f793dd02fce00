package quorum

import (
	"slices"
	"testing"
	"time"
)

// The election of dqlite's raft, as far as it matters: LXD's default timeouts,
// and a leader that does not look more often than that whether it is one yet.
const (
	electionTimeout   = 3 * time.Second
	heartbeatInterval = 300 * time.Millisecond
	simulatedStep     = 5 * time.Millisecond
)

// entry is one of a log: who votes from then on.
type entry struct {
	term   int
	voters []int
}

// raft is a member of the database's cluster, and what it would answer to LEADER
// and CLUSTER.
type raft struct {
	term      int
	voted     int // for whom in this term, -1: nobody
	log       []entry
	leads     bool
	leader    int // -1: none is known
	votes     map[int]bool
	match     map[int]int   // of a leader: how much of its log each has
	committed int           // of it, as far as a leader knows
	deadline  time.Duration // of an election, or of a leader's look at its followers
	beat      time.Duration
	heard     map[int]bool // since that look
	frozen    bool
	inbox     []letter
}

// voters are those of the last entry, whether it is committed or not.
func (r *raft) voters() []int { return r.log[len(r.log)-1].voters }

func (r *raft) hasVote(i int) bool { return slices.Contains(r.voters(), i) }

// most tells that something is true of a majority of the voters.
func (r *raft) most(ok func(i int) bool) bool {
	n := 0
	for _, i := range r.voters() {
		if ok(i) {
			n++
		}
	}
	return n > len(r.voters())/2
}

// precedes tells that a log has less than another (Raft §5.4.1).
func precedes(a, b []entry) bool {
	if last, other := a[len(a)-1].term, b[len(b)-1].term; last != other {
		return last < other
	}
	return len(a) < len(b)
}

// take brings a follower's log into line with the leader's.
func (r *raft) take(log []entry) {
	for i, e := range log {
		if i == len(r.log) || r.log[i].term != e.term {
			r.log = append(r.log[:i:i], log[i:]...)
			return
		}
	}
}

// commit looks how much of a leader's log most voters have. It does not count
// what is not of its own term (Raft §5.4.2).
func (r *raft) commit() {
	for n := len(r.log); n > r.committed && r.log[n-1].term == r.term; n-- {
		if r.most(func(i int) bool { return r.match[i] >= n }) {
			r.committed = n
		}
	}
}

func firstOf(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func (s *simulation) timeout() time.Duration {
	return s.now + electionTimeout + time.Duration(s.random.Int64N(int64(electionTimeout)))
}

// vote lets a member do what is due.
func (s *simulation) vote(i int) {
	r := &s.stations[i].raft
	if r.frozen {
		return
	}
	for _, l := range s.due(&r.inbox) {
		s.read(i, r, l)
	}
	switch {
	case r.leads && s.now >= r.deadline:
		if !r.most(func(v int) bool { return v == i || r.heard[v] }) {
			r.leads, r.leader, r.deadline = false, -1, s.timeout()
			s.note("leaf%d leads no more", i+1)
			return
		}
		r.heard, r.deadline = make(map[int]bool), s.now+electionTimeout
	case !r.leads && s.now >= r.deadline && r.hasVote(i):
		r.term, r.voted, r.leader, r.votes = r.term+1, i, -1, map[int]bool{i: true}
		r.deadline = s.timeout()
		s.tell(i, "vote")
		if len(r.voters()) == 1 {
			s.send(letter{from: i, to: i, kind: "granted", term: r.term})
		}
	}
	if r.leads {
		r.match[i] = len(r.log)
		r.commit()
	}
	if r.leads && s.now >= r.beat {
		r.beat = s.now + heartbeatInterval
		s.tell(i, "append")
	}
}

// read lets a member take in a letter.
func (s *simulation) read(i int, r *raft, l letter) {
	switch l.kind {
	case "ask": // CLUSTER, and some time later LEADER
		l.voters, l.kind = r.voters(), "then"
		s.send(l)
		return
	case "then":
		answer := letter{from: i, to: l.from, kind: "answer", sent: l.sent, voters: l.voters, leader: -1}
		if r.hasVote(i) {
			answer.leader = r.leader
		}
		s.send(answer)
		return
	case "now":
	default:
		if l.term > r.term {
			r.term, r.voted, r.leads, r.leader = l.term, -1, false, -1
			r.deadline = s.timeout()
		}
	}
	switch {
	case l.kind == "now" && l.term == r.term && !r.leads:
		r.deadline = s.now
	case l.term < r.term:
	case l.kind == "vote" && (r.voted < 0 || r.voted == l.from) && !r.leads && !precedes(l.log, r.log):
		r.voted, r.deadline = l.from, s.timeout()
		s.send(letter{from: i, to: l.from, kind: "granted", term: r.term})
	case l.kind == "granted" && r.voted == i && !r.leads && r.hasVote(i):
		r.votes[l.from] = true
		if r.most(func(v int) bool { return r.votes[v] }) {
			r.leads, r.leader, r.heard, r.beat = true, i, make(map[int]bool), s.now
			r.match, r.committed = make(map[int]int), 0
			r.log = append(r.log[:len(r.log):len(r.log)], entry{r.term, r.voters()})
			r.deadline = s.now + electionTimeout
			s.note("leaf%d leads in term %d", i+1, r.term)
		}
	case l.kind == "append" && !r.leads:
		r.leader, r.deadline = l.from, s.timeout()
		r.take(l.log)
		s.send(letter{from: i, to: l.from, kind: "appended", term: r.term, log: l.log})
	case l.kind == "appended" && r.leads:
		r.heard[l.from] = true
		r.match[l.from] = max(r.match[l.from], len(l.log))
	}
}

// tell has all others know: of an election the voters alone.
func (s *simulation) tell(from int, kind string) {
	r := &s.stations[from].raft
	for to := range s.members {
		if to != from && (kind != "vote" || r.hasVote(to)) {
			s.send(letter{from: from, to: to, kind: kind, term: r.term, log: r.log})
		}
	}
}

// transfer has a leader hand over to any other voter.
func (s *simulation) transfer(leader int) {
	if leader < 0 || !s.stations[leader].raft.leads {
		return
	}
	r := &s.stations[leader].raft
	to := r.voters()[s.random.IntN(len(r.voters()))]
	if to == leader {
		return
	}
	s.send(letter{from: leader, to: to, kind: "now", term: r.term})
	s.note("leaf%d hands over to leaf%d", leader+1, to+1)
}

// changeVoters has a leader give somebody a vote, or take one away: one at a
// time, when all that was before is committed, in its own term too.
func (s *simulation) changeVoters(leader int) {
	if leader < 0 {
		return
	}
	r := &s.stations[leader].raft
	if r.frozen || r.committed < len(r.log) {
		return
	}
	i := s.random.IntN(len(s.members))
	voters := slices.Clone(r.voters())
	switch n := len(voters); {
	case i == leader || r.hasVote(i) && n < 3 || !r.hasVote(i) && n > 3:
		return
	case r.hasVote(i):
		voters = slices.DeleteFunc(voters, func(v int) bool { return v == i })
	default:
		voters = append(voters, i)
	}
	r.log = append(r.log[:len(r.log):len(r.log)], entry{r.term, voters})
	r.match[leader], r.beat = len(r.log), s.now
	s.changes++
	s.note("leaf%d has %v vote", leader+1, voters)
}

func (s *simulation) leader() int {
	return slices.IndexFunc(s.stations, func(st *station) bool { return st.raft.leads })
}

// TestVotersLeftBehind has two members lose their votes without hearing of it:
// they go on to name one who leads no more, each with voters of its own time.
func TestVotersLeftBehind(t *testing.T) {
	const former, next = 2, 3
	s := newSimulation(t, 1, 5, 3)
	for s.leader() != former {
		if s.now > time.Minute {
			t.Fatal("it never leads")
		}
		s.transfer(s.leader())
		s.run(4 * time.Second)
	}
	r := &s.stations[former].raft
	var logs [][]entry
	for _, voters := range [][]int{{0, 1, 2}, {0, 1, 2, 3}, {1, 2, 3}, {1, 2, 3, 4}, {2, 3, 4}} {
		r.log = append(r.log[:len(r.log):len(r.log)], entry{r.term, voters})
		r.beat = s.now
		logs = append(logs, r.log)
		s.run(4 * time.Second)
	}
	term := r.term
	if holders := s.holders(); !slices.Equal(holders, []int{former}) || r.committed != len(r.log) {
		t.Fatalf("%v hold the address, %d of %d entries are committed", holders, r.committed, len(r.log))
	}
	s.send(letter{from: former, to: next, kind: "now", term: term})
	s.run(300 * time.Millisecond)
	for _, i := range []int{0, 1, former} {
		for _, other := range []int{next, 4} {
			s.cut[[2]int{i, other}], s.cut[[2]int{other, i}] = true, true
		}
	}
	for i := range 2 {
		s.stations[i].raft = raft{term: term, voted: former, leader: former, log: logs[i], deadline: s.now + 10*time.Second}
	}
	s.run(7 * time.Second)
	if holders := s.holders(); !slices.Equal(holders, []int{next}) {
		t.Errorf("%v hold the address", holders)
	}
}
