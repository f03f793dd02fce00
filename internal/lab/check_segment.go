package lab

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"frond/internal/fabric"
	"frond/internal/netns"
	"frond/internal/probe"
)

// SegmentProof is what a check found of the guests of one segment.
type SegmentProof struct {
	Segment string `json:"segment"`
	Guests  int    `json:"guests"`
	// Sampled: there are too many guests for each to ask every other, or for
	// all to broadcast.
	Sampled bool `json:"sampled"`

	Rounds   int `json:"rounds"`   // pairs of guests, each way
	Answered int `json:"answered"` // of these

	Broadcasts int `json:"broadcasts"` // guests that sent one
	Copies     int `json:"copies"`     // that other guests should have seen: each one of each
	Once       int `json:"once"`       // of these, that were seen exactly once

	// ARP is nil where guests do not reach each other, Bandwidth also where
	// there are no two guests on different nodes.
	ARP       *ARPProof         `json:"arp,omitempty"`
	Gateway   *GatewayProof     `json:"gateway,omitempty"` // nil also where the segment has none
	Bandwidth *SegmentBandwidth `json:"bandwidth,omitempty"`
}

const (
	// mostRounds bounds the pairs of guests that ask each other, and the
	// copies of broadcasts.
	mostRounds = 2000
	// broadcastTime is how long one attempt waits for copies.
	broadcastTime = time.Second
	// mostNames are named of those that share a failure.
	mostNames = 8
)

// segmentChecker holds what the parts of a check of one segment share.
type segmentChecker struct {
	*checker
	segment fabric.Segment
	guests  []Guest      // such that the first are on different nodes
	hosts   []probe.Host // the same
	found   SegmentProof
}

// segments checks each segment's guests, apart where no way leads between
// their nodes.
func (c *checker) segments(ctx context.Context, progress Progress) error {
	populated, err := c.populated()
	if err != nil {
		return err
	}
	for i, s := range populated {
		defer s.close()
		if err := s.open(); err != nil {
			return err
		}
		progress("checking segments", i, len(populated))
		if err := s.check(ctx, progress); err != nil {
			return err
		}
		c.proof.Segments = append(c.proof.Segments, s.found)
	}
	return nil
}

// populated are the segments with two guests or more.
func (c *checker) populated() ([]*segmentChecker, error) {
	f, err := c.lab.Fabric()
	if err != nil {
		return nil, err
	}
	var populated []*segmentChecker
	for _, s := range f.Segments {
		byIsland := map[string]*segmentChecker{}
		for _, g := range interleave(c.lab.Topology.Guests) {
			if g.Segment != s.Name {
				continue
			}
			island := c.island(g.Node)
			part := byIsland[island]
			if part == nil {
				part = &segmentChecker{checker: c, segment: s}
				byIsland[island] = part
				populated = append(populated, part)
			}
			part.guests = append(part.guests, g)
		}
	}
	return slices.DeleteFunc(populated, func(s *segmentChecker) bool { return len(s.guests) < 2 }), nil
}

// interleave puts the first guest of each node before the second of any.
func interleave(guests []Guest) []Guest {
	rank := map[string]int{}
	ranks := map[Guest]int{}
	for _, g := range guests {
		ranks[g] = rank[g.Node]
		rank[g.Node]++
	}
	return slices.SortedStableFunc(slices.Values(guests), func(a, b Guest) int { return cmp.Compare(ranks[a], ranks[b]) })
}

func (s *segmentChecker) open() error {
	for _, g := range s.guests {
		ns, err := netns.Open(namespace(s.lab.Name, g.Name))
		if err != nil {
			return err
		}
		s.hosts = append(s.hosts, probe.Host{Name: g.Name, NS: ns, Addr: g.Address.Addr()})
	}
	return nil
}

func (s *segmentChecker) close() {
	for _, h := range s.hosts {
		_ = h.NS.Close()
	}
}

func (s *segmentChecker) check(ctx context.Context, progress Progress) error {
	s.found = SegmentProof{Segment: s.segment.Name, Guests: len(s.guests), Sampled: len(s.guests)*(len(s.guests)-1) > mostRounds}
	s.echoes(ctx)
	if err := s.broadcasts(ctx); err != nil {
		return err
	}
	// Guests that do not reach each other have to ask for each other, and
	// nothing to send.
	if s.found.Answered < s.found.Rounds {
		return nil
	}
	if err := s.arp(ctx); err != nil {
		return err
	}
	if err := s.gateway(ctx); err != nil {
		return err
	}
	if s.cfg.Duration > 0 {
		return s.bandwidth(ctx, progress)
	}
	return nil
}

// asks tells who asks whom: each guest every other, or as many of those that
// come after it as there may be in all.
func (s *segmentChecker) asks(from, to int) bool {
	n := len(s.guests)
	return !s.found.Sampled || (to-from+n)%n <= max(1, mostRounds/n)
}

func (s *segmentChecker) echoes(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	for _, round := range probe.ReachSome(ctx, s.hosts, s.asks) {
		s.found.Rounds++
		switch {
		case round.Answered:
			s.found.Answered++
		case round.Err != nil:
			s.fail("guest %s cannot ask: %v", round.From.Name, round.Err)
		default:
			s.fail("on segment %s, %s (%s) gets no answer from %s (%s)", s.segment.Name, round.From.Name, round.From.Addr, round.To.Name, round.To.Addr)
		}
	}
}

// broadcasts has guests broadcast, at least one on each node. What is missing
// may come at the next attempt, when all nodes have heard of each other; what
// comes too often is wrong at once.
func (s *segmentChecker) broadcasts(ctx context.Context) error {
	senders := s.senders()
	deadline, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	for {
		attempt, cancel := context.WithTimeout(ctx, broadcastTime)
		copies, err := probe.Broadcast(attempt, s.hosts, senders)
		cancel()
		if err != nil {
			return err
		}
		wrong, patience := s.judge(copies)
		if len(wrong) == 0 || !patience || s.found.Answered < s.found.Rounds || deadline.Err() != nil {
			s.proof.Failures = append(s.proof.Failures, wrong...)
			return ctx.Err()
		}
	}
}

func (s *segmentChecker) senders() []int {
	n := len(s.guests)
	if s.found.Sampled {
		nodes := map[string]bool{}
		for _, g := range s.guests {
			nodes[g.Node] = true
		}
		n = max(len(nodes), mostRounds/n)
	}
	senders := make([]int, n)
	for i := range senders {
		senders[i] = i
	}
	return senders
}

// judge counts the copies and names what is wrong with them. Patience might
// help where none came too often.
func (s *segmentChecker) judge(all []probe.Copies) (wrong []string, patience bool) {
	s.found.Broadcasts, s.found.Copies, s.found.Once = len(all), len(all)*(len(s.hosts)-1), 0
	patience = true
	for _, c := range all {
		var none, several []string
		for to, n := range c.Seen {
			name := s.guests[to].Name
			switch {
			case to == c.From && n > 0:
				several = append(several, fmt.Sprintf("%s itself gets it back", name))
			case to == c.From:
			case n == 0:
				none = append(none, name)
			case n == 1:
				s.found.Once++
			default:
				several = append(several, fmt.Sprintf("%s sees %d copies", name, n))
			}
		}
		if len(none) > 0 {
			wrong = append(wrong, fmt.Sprintf("on segment %s, a broadcast of %s is not seen by %s", s.segment.Name, s.guests[c.From].Name, names(none)))
		}
		if len(several) > 0 {
			patience = false
			wrong = append(wrong, fmt.Sprintf("on segment %s, a broadcast of %s is seen too often: %s", s.segment.Name, s.guests[c.From].Name, names(several)))
		}
	}
	return wrong, patience
}

// names lists the first of many.
func names(all []string) string {
	if len(all) <= mostNames {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:mostNames], ", "), len(all)-mostNames)
}
