package lab

import "strings"

// State is what was done to a cable; the zero value is a good one.
type State struct {
	Cut bool // no carrier at either end
	// MutedAB and MutedBA tell the direction in which packets vanish.
	MutedAB, MutedBA bool
}

// States are the states of cables by ID; an absent one is good.
type States map[int]State

func (s State) or(other State) State {
	return State{s.Cut || other.Cut, s.MutedAB || other.MutedAB, s.MutedBA || other.MutedBA}
}

// String says it in words; an arrow goes along the cable as it is written.
func (s State) String() string {
	var words []string
	if s.Cut {
		words = append(words, "cut")
	}
	switch {
	case s.MutedAB && s.MutedBA:
		words = append(words, "muted")
	case s.MutedAB:
		words = append(words, "muted →")
	case s.MutedBA:
		words = append(words, "muted ←")
	}
	if len(words) == 0 {
		return "good"
	}
	return strings.Join(words, ", ")
}

// Whole is the topology without the cables that are cut or muted: what routes
// can be expected over once everybody has noticed.
func (t Topology) Whole(states States) Topology {
	whole := Topology{Nodes: t.Nodes}
	for _, c := range t.Cables {
		if states[c.ID] == (State{}) {
			whole.Cables = append(whole.Cables, c)
		}
	}
	return whole
}
