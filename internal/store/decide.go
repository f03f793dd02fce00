package store

import (
	"fmt"
	"slices"
	"strings"
)

// local is what a member's directory says.
type local struct {
	data      bool // there is a write-ahead log
	removed   bool // the cluster told this member that it is none any more
	rejoining bool // its data was lost, and it is on its way back in
}

// move is what a member does next.
type move int

const (
	wait        move = iota // and ask again
	resume                  // start with the data that is there
	form                    // begin the cluster that the document describes, together
	join                    // start as the learner that the cluster has a place for
	leaveFirst              // have the cluster forget what this member was
	askForPlace             // have the cluster make a place for a learner
)

// decision is a move and what goes with it.
type decision struct {
	move    move
	text    string // wait: for what
	trouble Trouble
	roster  []entry // join: the cluster
	old     uint64  // leaveFirst: the ID that this member had
}

// decide is how a member begins.
//
// With data it goes on. Without, it must not vote as if it had never voted: a
// write that it confirmed and then lost could be undone. So it forms a cluster
// only if all members say that they have no data either, or if one that runs
// knows that this one never did. One that lost its data has the others forget
// it, which takes a majority of them, and comes back as a learner, which has
// no vote until it has caught up.
func decide(self Peer, others []Peer, have local, answers map[string]answer) decision {
	if have.data && !have.removed {
		return decision{move: resume}
	}
	roster, found, running := choose(self, others, answers)
	mine, placed := found, found.ID != 0
	switch {
	case running && placed && mine.Name == "":
		return decision{move: join, roster: roster}
	case have.removed:
		return decision{move: wait, trouble: Removed, text: fmt.Sprintf(
			"%s was removed from the store: \"frond store add %s\" makes it a member again, or name other members in the document", self.Name, self.Name)}
	case running && placed && len(mine.ClientURLs) == 0:
		return decision{move: form}
	case running && placed:
		return decision{move: leaveFirst, old: mine.ID, roster: roster}
	case running && have.rejoining:
		return decision{move: askForPlace, roster: roster}
	case running:
		return decision{move: wait, trouble: Stranger, text: fmt.Sprintf(
			"the store has no member %s yet: \"frond store add %s\" makes it one", self.Name, self.Name)}
	}
	if silent := silentOf(others, answers); len(silent) > 0 {
		return decision{move: wait, text: "there is no data here: to be sure that nowhere else is either, all members must answer once; missing " +
			strings.Join(silent, " and ")}
	}
	return decision{move: form}
}

// choose is the newest of the rosters: one that has a place for this member
// that it never used, else one that knows it, else any.
func choose(self Peer, others []Peer, answers map[string]answer) (roster []entry, mine entry, running bool) {
	rank := func(e entry, known bool) int {
		switch {
		case known && e.Name == "":
			return 2
		case known:
			return 1
		}
		return 0
	}
	best := -1
	for _, p := range others {
		a := answers[p.Name]
		if a.err != nil || a.fresh || len(a.roster) == 0 {
			continue
		}
		e, known := find(a.roster, self)
		if r := rank(e, known); r > best {
			best, roster, mine, running = r, a.roster, e, true
		}
	}
	return roster, mine, running
}

func silentOf(others []Peer, answers map[string]answer) []string {
	var silent []string
	for _, p := range others {
		if a, asked := answers[p.Name]; !asked || a.err != nil {
			silent = append(silent, p.Name)
		}
	}
	slices.Sort(silent)
	return silent
}

// clusterOf is the roster as etcd's initial-cluster: NAME=URL,…; those without
// a name yet go by their ID.
func clusterOf(self Peer, roster []entry) string {
	var parts []string
	for _, e := range roster {
		name := e.Name
		switch {
		case slices.Contains(e.PeerURLs, self.peerURL()):
			name = self.Name
		case name == "":
			name = hexID(e.ID)
		}
		for _, u := range e.PeerURLs {
			parts = append(parts, name+"="+u)
		}
	}
	return strings.Join(parts, ",")
}
