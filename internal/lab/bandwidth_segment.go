package lab

import (
	"context"
	"slices"

	"frond/internal/probe"
)

// SegmentBandwidth compares TCP between two guests of a segment, on different
// nodes, with TCP between their nodes' loopbacks, measured in turns.
type SegmentBandwidth struct {
	From     string  `json:"from"`
	To       string  `json:"to"`
	FromNode string  `json:"fromNode"`
	ToNode   string  `json:"toNode"`
	Streams  int     `json:"streams"`
	VXLAN    float64 `json:"vxlanBitsPerSecond"`
	Routed   float64 `json:"routedBitsPerSecond"`
	Ratio    float64 `json:"ratio"` // VXLAN ÷ Routed
}

// mostMeasured are the segments whose bandwidth is measured, which takes time.
const mostMeasured = 4

func (s *segmentChecker) bandwidth(ctx context.Context, progress Progress) error {
	from, to, ok := s.farApart()
	if !ok || len(s.proof.Segments) >= mostMeasured {
		return nil
	}
	b := &SegmentBandwidth{From: s.guests[from].Name, To: s.guests[to].Name, FromNode: s.guests[from].Node, ToNode: s.guests[to].Node}
	b.Streams = streamsOver(s.want[b.FromNode][b.ToNode])
	guests := [2]probe.Host{s.hosts[from], s.hosts[to]}
	rates, err := s.inTurns(ctx, progress, b.Streams, guests, loopbacksOf(s.node(b.FromNode), s.node(b.ToNode)))
	if err != nil {
		s.fail("no TCP on segment %s: %v", s.segment.Name, err)
		return nil
	}
	b.VXLAN, b.Routed = rates[0], rates[1]
	b.Ratio = b.VXLAN / max(b.Routed, 1)
	s.found.Bandwidth = b
	return nil
}

// farApart are the places of two guests on nodes that reach each other.
func (s *segmentChecker) farApart() (from, to int, ok bool) {
	for from, g := range s.guests {
		for i := range s.guests {
			to := len(s.guests) - 1 - i
			far := s.guests[to]
			_, reachable := s.want[g.Node][far.Node]
			if reachable && !sameAS(s.node(g.Node).Node, s.node(far.Node).Node) {
				return from, to, true
			}
		}
	}
	return 0, 0, false
}

func (c *checker) node(name string) checked {
	return c.nodes[slices.IndexFunc(c.nodes, func(n checked) bool { return n.Name == name })]
}
