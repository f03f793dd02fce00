package gateway

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
)

// Segment is one whose gateway is elected, as the document has it.
type Segment struct {
	Name     string
	Nodes    []string // that take part
	Locality bool     // the node with most of the segment's guests is preferred
}

// TakesPart tells that one of the segments has this name, and the node in it.
func TakesPart(segments []Segment, name, node string) bool {
	i := slices.IndexFunc(segments, func(s Segment) bool { return s.Name == name })
	return i >= 0 && slices.Contains(segments[i].Nodes, node)
}

// TakesPartInAny tells that any of the segments has the node in it.
func TakesPartInAny(segments []Segment, node string) bool {
	return slices.ContainsFunc(segments, func(s Segment) bool { return slices.Contains(s.Nodes, node) })
}

func (s Segment) equal(o Segment) bool {
	return s.Name == o.Name && s.Locality == o.Locality && slices.Equal(s.Nodes, o.Nodes)
}

// Ballot is all that an election depends on. It is the same on every node: it
// comes from the document and from the store.
type Ballot struct {
	Segments []Segment
	Eligible map[string]bool           // nodes that are alive, not drained and not leaving
	Holders  map[string]string         // who has each segment now, dead or alive
	Guests   map[string]map[string]int // by node and segment
}

// Choice is who should hold a segment's gateway, and why.
type Choice struct {
	Node   string // empty: nobody can
	Why    string
	Score  float64 // the rendezvous hash of segment and node, weighted
	Weight float64
}

// A node holds between these parts of its fair share before gateways move to
// even it out. Ten in a hundred are moves that nobody needs.
const (
	fullest  = 1.10
	emptiest = 0.90
)

// Locality moves a gateway to a node with at least so many times the guests
// of the holder, and so many more: what guests come and go does not swing it.
const (
	manyTimesMore = 2
	manyMore      = 3
)

// Elect decides who should hold each segment's gateway.
//
//   - A gateway stays where it is while its holder is eligible and not too full.
//   - One without such a holder goes to the eligible node that rendezvous
//     hashing prefers, among those that are not full.
//   - A node that holds more than 110 % of its share gives some away, and one
//     with less than 90 % gets some: those first that prefer it.
//   - With locality, guests are the weight. The gateway moves only to a node
//     with twice as many guests as the holder has, and at least three more.
//
// So the loss of a node moves its own gateways only, the coming of one about
// the share that it gets, and the spread is bounded, which hashing alone does
// not do: 500 over 5 would have a standard deviation of 9.
func Elect(b Ballot) map[string]Choice {
	e := election{Ballot: b, load: make(map[string]int), share: make(map[string]float64), chosen: make(map[string]Choice)}
	e.count()
	e.keep()
	e.place()
	e.relieve()
	e.fill()
	return e.chosen
}

type election struct {
	Ballot
	order  []Segment // in the order of a hash, so that no name is favoured
	load   map[string]int
	share  map[string]float64 // what would be even
	chosen map[string]Choice
}

func (e *election) count() {
	e.order = slices.Clone(e.Segments)
	slices.SortFunc(e.order, func(a, b Segment) int {
		return cmp.Or(cmp.Compare(fraction(a.Name, ""), fraction(b.Name, "")), cmp.Compare(a.Name, b.Name))
	})
	for _, s := range e.order {
		candidates := e.candidates(s)
		for _, node := range candidates {
			e.share[node] += 1 / float64(len(candidates))
		}
	}
	for node, share := range e.share { // 6 × 1/3 is 2
		e.share[node] = math.Round(share*1e9) / 1e9
	}
}

func (e *election) candidates(s Segment) []string {
	var nodes []string
	for _, node := range s.Nodes {
		if e.Eligible[node] {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

func (e *election) weight(s Segment, node string) float64 {
	if !s.Locality {
		return 1
	}
	return 1 + float64(e.Guests[node][s.Name])
}

func (e *election) choose(s Segment, node, why string) {
	if before := e.chosen[s.Name].Node; before != "" {
		e.load[before]--
	}
	e.load[node]++
	w := e.weight(s, node)
	e.chosen[s.Name] = Choice{Node: node, Why: why, Score: score(s.Name, node, w), Weight: w}
}

// keep leaves gateways where they are, but for locality.
func (e *election) keep() {
	for _, s := range e.order {
		holder := e.Holders[s.Name]
		if !slices.Contains(e.candidates(s), holder) {
			continue
		}
		if node, ok := e.closer(s, holder); ok {
			e.choose(s, node, e.reason(s, node))
			continue
		}
		e.choose(s, holder, e.reason(s, holder))
	}
}

// closer returns the node that a segment's guests should draw the gateway to.
func (e *election) closer(s Segment, holder string) (string, bool) {
	if !s.Locality {
		return "", false
	}
	here := e.Guests[holder][s.Name]
	best := slices.MaxFunc(e.candidates(s), func(a, b string) int {
		return cmp.Or(cmp.Compare(e.Guests[a][s.Name], e.Guests[b][s.Name]), e.compare(s, a, b))
	})
	there := e.Guests[best][s.Name]
	return best, there >= manyTimesMore*here && there >= here+manyMore
}

// compare orders nodes by how much a segment prefers them.
func (e *election) compare(s Segment, a, b string) int {
	return cmp.Or(
		cmp.Compare(score(s.Name, a, e.weight(s, a)), score(s.Name, b, e.weight(s, b))),
		cmp.Compare(b, a))
}

// place finds nodes for gateways that have none.
func (e *election) place() {
	for _, s := range e.order {
		if e.chosen[s.Name].Node != "" {
			continue
		}
		candidates := e.candidates(s)
		if len(candidates) == 0 {
			e.chosen[s.Name] = Choice{Why: "no eligible node"}
			continue
		}
		if !s.Locality {
			free := slices.DeleteFunc(slices.Clone(candidates), e.isFull)
			if len(free) > 0 {
				candidates = free
			}
		}
		node := slices.MaxFunc(candidates, func(a, b string) int { return e.compare(s, a, b) })
		e.choose(s, node, e.reason(s, node))
	}
}

// isFull tells that the node has its share. Gateways that must move go to
// those that have not, so that none need move once more.
func (e *election) isFull(node string) bool { return float64(e.load[node]) >= e.share[node] }

func (e *election) upper(node string) int {
	return max(int(math.Floor(e.share[node]*fullest)), int(math.Ceil(e.share[node])))
}

func (e *election) lower(node string) int { return int(math.Floor(e.share[node] * emptiest)) }

// relieve takes from nodes that hold too much what nodes with less than
// their share can take.
func (e *election) relieve() {
	for _, s := range e.order {
		holder := e.chosen[s.Name].Node
		if s.Locality || holder == "" || e.load[holder] <= e.upper(holder) {
			continue
		}
		others := slices.DeleteFunc(e.candidates(s), func(node string) bool {
			return float64(e.load[node]+1) > e.share[node]
		})
		if len(others) > 0 {
			node := slices.MaxFunc(others, func(a, b string) int { return e.compare(s, a, b) })
			e.choose(s, node, "evens out: "+holder+" holds too many")
		}
	}
}

// fill gives to nodes that hold too little: first of all what prefers them.
func (e *election) fill() {
	for _, node := range slices.Sorted(maps.Keys(e.share)) {
		if e.load[node] >= e.lower(node) {
			continue
		}
		var mine []Segment
		for _, s := range e.order {
			if !s.Locality && e.chosen[s.Name].Node != node && slices.Contains(e.candidates(s), node) {
				mine = append(mine, s)
			}
		}
		slices.SortStableFunc(mine, func(a, b Segment) int {
			return cmp.Compare(score(b.Name, node, 1), score(a.Name, node, 1))
		})
		for _, s := range mine {
			if e.load[node] >= e.lower(node) {
				break
			}
			if holder := e.chosen[s.Name].Node; float64(e.load[holder]) > e.share[holder] {
				e.choose(s, node, "evens out: "+node+" holds too few")
			}
		}
	}
}

func (e *election) reason(s Segment, node string) string {
	candidates := e.candidates(s)
	if len(candidates) == 1 {
		return "the only eligible node"
	}
	first := slices.MaxFunc(candidates, func(a, b string) int { return e.compare(s, a, b) })
	switch {
	case s.Locality:
		return fmt.Sprintf("%d guests here", e.Guests[node][s.Name])
	case first == node:
		return "first by hash"
	case e.Holders[s.Name] == node:
		return "stays where it is"
	}
	return "next by hash: " + first + " holds its share"
}
