package quorum

import (
	"cmp"
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

// word is what a member has said last: whom it takes for the leader, and who
// has a vote.
type word struct {
	leader string        // its address; empty: it knows none
	voters []Member      // in the order of their identities; nil: it was not asked
	sent   time.Duration // when the first of the questions was sent
}

// votersOf are those of the members that have a vote, in the order of their
// identities.
func votersOf(members []Member) []Member {
	voters := slices.DeleteFunc(slices.Clone(members), func(m Member) bool { return m.Role != Voter })
	slices.SortFunc(voters, func(a, b Member) int { return cmp.Compare(a.ID, b.ID) })
	return voters
}

// round is what follows from the last word of each member.
type round struct {
	// leader is whom a majority of the voters names; empty: they do not agree,
	// or too few have answered.
	leader string
	// sent is the latest moment of which that majority proves that nobody had
	// been elected after this leader; see the package's documentation.
	sent time.Duration
}

// tally finds a majority of voters that name one leader and have one opinion on
// who the voters are. Who asks need not have any. Of two majorities, each of the
// voters that it knows, the one that was asked later counts.
func tally(words map[string]word) round {
	var latest round
	for address, w := range words {
		if !hasVote(w.voters, address) || !hasVote(w.voters, w.leader) {
			continue
		}
		var sent []time.Duration // to those who say the same
		for other, o := range words {
			if o.leader == w.leader && hasVote(w.voters, other) && slices.Equal(o.voters, w.voters) {
				sent = append(sent, o.sent)
			}
		}
		majority := len(w.voters)/2 + 1
		if len(sent) < majority {
			continue
		}
		slices.Sort(sent)
		// the latest that are a majority
		if s := sent[len(sent)-majority]; latest.leader == "" || s > latest.sent {
			latest = round{w.leader, s}
		}
	}
	return latest
}

func hasVote(voters []Member, address string) bool {
	return slices.ContainsFunc(voters, func(m Member) bool { return m.Address == address })
}
