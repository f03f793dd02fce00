package gateway

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func ballot(segments, nodes int, seed uint64) Ballot {
	b := Ballot{Eligible: make(map[string]bool), Holders: make(map[string]string), Guests: make(map[string]map[string]int)}
	var names []string
	for i := range nodes {
		names = append(names, fmt.Sprintf("node%d-%d", seed, i+1))
		b.Eligible[names[i]] = true
	}
	for i := range segments {
		b.Segments = append(b.Segments, Segment{Name: fmt.Sprintf("s%d-%d", seed, i), Nodes: names})
	}
	return b
}

// settle carries an election out until nothing moves, and counts the moves.
func settle(t *testing.T, b Ballot) (moves map[string]int) {
	t.Helper()
	moves = make(map[string]int)
	for range 3 {
		changed := false
		for segment, choice := range Elect(b) {
			if b.Holders[segment] != choice.Node {
				b.Holders[segment], changed = choice.Node, true
				moves[segment]++
			}
		}
		if !changed {
			return moves
		}
	}
	t.Fatal("the election does not come to rest")
	return nil
}

func loads(b Ballot) map[string]int {
	n := make(map[string]int)
	for _, node := range b.Holders {
		n[node]++
	}
	return n
}

func checkSpread(t *testing.T, b Ballot, what string) {
	t.Helper()
	eligible := 0
	for _, ok := range b.Eligible {
		if ok {
			eligible++
		}
	}
	even := float64(len(b.Segments)) / float64(eligible)
	for node, n := range loads(b) {
		if math.Abs(float64(n)-even) > 0.15*even {
			t.Errorf("%s: %s holds %d, even would be %.0f", what, node, n, even)
		}
	}
}

func TestSpreadAndMoves(t *testing.T) {
	for seed := range uint64(60) {
		b := ballot(500, 5, seed)
		settle(t, b)
		checkSpread(t, b, "at first")

		before := maps.Clone(b.Holders)
		dead := b.Segments[0].Nodes[seed%5]
		b.Eligible[dead] = false
		settle(t, b)
		checkSpread(t, b, "after a death")
		for segment, node := range b.Holders {
			if before[segment] != dead && node != before[segment] {
				t.Errorf("seed %d: %s moved from %s to %s when %s died", seed, segment, before[segment], node, dead)
			}
		}
		b.Eligible[dead] = true
		moves := settle(t, b)
		checkSpread(t, b, "after the return")
		if len(moves) > 500/5 {
			t.Errorf("seed %d: %d moved when a node returned", seed, len(moves))
		}
		for segment, n := range moves {
			if n > 1 || b.Holders[segment] != dead {
				t.Errorf("seed %d: %s moved %d times, to %s", seed, segment, n, b.Holders[segment])
			}
		}
	}
}

// Whatever nodes die and return, and in whatever order their gateways then
// move: all comes to rest, evenly, and no gateway moves twice.
func TestElectionIsCarriedOutInAnyOrder(t *testing.T) {
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(seed, 1))
		b := ballot(100+random.IntN(300), 3+random.IntN(5), seed)
		nodes := b.Segments[0].Nodes
		settle(t, b)
		for range 12 {
			node := nodes[random.IntN(len(nodes))]
			b.Eligible[node] = !b.Eligible[node]
			if !slices.Contains(slices.Collect(maps.Values(b.Eligible)), true) {
				b.Eligible[node] = true
			}
			moves := make(map[string]int)
			for {
				now := Elect(b)
				var open []string
				for segment, choice := range now {
					if b.Holders[segment] != choice.Node {
						open = append(open, segment)
					}
				}
				if len(open) == 0 {
					break
				}
				slices.Sort(open)
				random.Shuffle(len(open), func(i, k int) { open[i], open[k] = open[k], open[i] })
				for _, segment := range open[:1+random.IntN(len(open))] {
					b.Holders[segment] = now[segment].Node
					moves[segment]++
				}
			}
			for segment, n := range moves {
				if n > 1 {
					t.Errorf("seed %d: %s moved %d times", seed, segment, n)
				}
			}
			checkSpread(t, b, fmt.Sprintf("seed %d", seed))
		}
	}
}

func TestFewSegmentsDoNotMoveForBalance(t *testing.T) {
	b := ballot(2, 3, 1)
	settle(t, b)
	before := maps.Clone(b.Holders)
	dead := b.Holders[b.Segments[0].Name]
	b.Eligible[dead] = false
	settle(t, b)
	after := maps.Clone(b.Holders)
	b.Eligible[dead] = true
	if moves := settle(t, b); len(moves) != 0 {
		t.Errorf("%v, then %v, and %v when %s returned", before, after, b.Holders, dead)
	}
}

func TestLocality(t *testing.T) {
	tests := []struct {
		name        string
		here, there int
		moves       bool
	}{
		{"nobody", 0, 0, false},
		{"as many", 5, 5, false},
		{"first guest", 0, 1, false},
		{"two more", 0, 2, false},
		{"three where none are", 0, 3, true},
		{"less than twice", 10, 19, false},
		{"twice", 10, 20, true},
		{"twice but few", 2, 4, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			b := Ballot{
				Segments: []Segment{{Name: "blue", Nodes: []string{"a", "b"}, Locality: true}},
				Eligible: map[string]bool{"a": true, "b": true},
				Holders:  map[string]string{"blue": "a"},
				Guests:   map[string]map[string]int{"a": {"blue": test.here}, "b": {"blue": test.there}},
			}
			if got := Elect(b)["blue"].Node; (got == "b") != test.moves {
				t.Errorf("the gateway is to be at %s", got)
			}
		})
	}
}

func TestElectionOfNobody(t *testing.T) {
	b := ballot(1, 2, 0)
	clear(b.Eligible)
	if c := Elect(b)[b.Segments[0].Name]; c.Node != "" || c.Why == "" {
		t.Errorf("%+v", c)
	}
	if got := Elect(Ballot{}); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// Weighted rendezvous: a node with three times the weight is chosen three
// times as often, and raising one weight only draws to that node.
func TestWeights(t *testing.T) {
	const n = 20000
	heavy, moved := 0, 0
	for i := range n {
		s := fmt.Sprint("s", i)
		if score(s, "a", 3) > score(s, "b", 1) {
			heavy++
		}
		if score(s, "a", 1) > score(s, "b", 1) && score(s, "a", 2) <= score(s, "b", 1) {
			moved++
		}
	}
	if share := float64(heavy) / n; math.Abs(share-0.75) > 0.01 || moved > 0 {
		t.Errorf("three times the weight: %.3f of all, want 0.75; %d moved away from what grew", share, moved)
	}
}

func BenchmarkElect(b *testing.B) {
	v := ballot(500, 5, 1)
	for segment, choice := range Elect(v) {
		v.Holders[segment] = choice.Node
	}
	for b.Loop() {
		Elect(v)
	}
}
