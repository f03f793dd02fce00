package quorum

import (
	"slices"
	"time"
)

// Role is what a member of the database's cluster does in it.
type Role int

// The roles, as dqlite numbers them.
const (
	Voter   Role = iota // has the log and a vote
	StandBy             // has the log
	Spare               // has neither
)

// Member is a member of the database's cluster.
type Member struct {
	ID      uint64
	Address string // host:port
	Role    Role
}

// word is what a member has said last: whom it takes for the leader.
type word struct {
	leader string        // its address; empty: it knows none
	sent   time.Duration // when the question was sent
}

// round is what follows from the last word of each voter.
type round struct {
	// leader is whom a majority of the voters names; empty: they do not agree,
	// or too few have answered.
	leader string
	// sent is the latest moment of which that majority proves that nobody had
	// been elected after this leader; see the package's documentation.
	sent time.Duration
}

// tally finds the majority; there is one at most, for each voter has one word.
func tally(members []Member, words map[string]word) round {
	voters := 0
	named := make(map[string][]time.Duration) // when those who name a leader were asked
	for _, m := range members {
		if m.Role != Voter {
			continue
		}
		voters++
		if w := words[m.Address]; w.leader != "" {
			named[w.leader] = append(named[w.leader], w.sent)
		}
	}
	majority := voters/2 + 1
	for leader, sent := range named {
		if len(sent) >= majority && hasVote(members, leader) {
			slices.Sort(sent)
			return round{leader, sent[len(sent)-majority]} // the latest that are a majority
		}
	}
	return round{}
}

func hasVote(members []Member, address string) bool {
	return slices.ContainsFunc(members, func(m Member) bool { return m.Address == address && m.Role == Voter })
}
