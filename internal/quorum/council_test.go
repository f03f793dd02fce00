package quorum

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// asked is who was asked, and what besides the leader.
func (c *council) asked(t *testing.T) map[string]inquiry {
	t.Helper()
	all := make(map[string]inquiry)
	for address, v := range c.voices {
		select {
		case all[address] = <-v.questions:
		default:
		}
	}
	return all
}

// TestCouncil asks another voter where its own member does not know, and its own
// again as soon as that does.
func TestCouncil(t *testing.T) {
	c := newCouncil(func() time.Duration { return 0 })
	c.setSelf("a", nil)
	known := func(addresses ...string) {
		for _, address := range addresses {
			c.voices[address] = &voice{address: address, questions: make(chan inquiry, 1), quit: func() {}}
		}
	}
	known("a", "b", "c", "d", "e", "f")
	named := func(leader string, sent time.Duration) word {
		return word{leader: leader, voters: votersOf(c.members), sent: sent}
	}
	check := func(what, first string, want round) {
		t.Helper()
		if c.first != first {
			t.Errorf("%s: %s is asked, want %s", what, c.first, first)
		}
		if got := c.round(false); got != want {
			t.Errorf("%s: %+v, want %+v", what, got, want)
		}
	}
	check("nobody has said anything", "a", round{})
	c.hear(answer{address: "a", word: word{leader: "b", voters: votersOf(three()), sent: 1}, members: three()})
	check("its own member knows", "a", round{"b", 1})
	c.hear(answer{address: "f", word: named("f", 9)})
	if _, kept := c.words["f"]; kept || len(c.voices) != 5 {
		t.Errorf("one that is no member is heard: %v", c.words)
	}
	c.hear(answer{address: "a", err: errors.New("it is away")})
	check("its own member is away", "b", round{})
	if got := c.troubles(); got != "a: it is away" {
		t.Errorf("troubles %q", got)
	}
	c.hear(answer{address: "b", word: named("c", 3)})
	check("another knows", "b", round{"c", 3})
	c.hear(answer{address: "b", word: named("", 4)})
	check("that one knows no more", "c", round{})
	c.hear(answer{address: "a", word: named("c", 5)})
	check("its own member is back", "a", round{"c", 5})
	c.hear(answer{address: "c", word: named("a", 6)})
	c.hear(answer{address: "b", word: named("a", 6)})
	if got := c.round(true); got != (round{"a", 6}) {
		t.Errorf("all say %+v", got)
	}
	c.hear(answer{address: "a", word: named("a", 7)})
	if got := c.round(false); got != (round{"a", 6}) {
		t.Errorf("its own member alone proves %+v", got)
	}
	for all, want := range map[bool]map[string]inquiry{
		false: {"a": {}},
		true:  {"a": {members: true}, "b": {members: true}, "c": {members: true}},
	} {
		c.ask(t.Context(), all)
		if diff := cmp.Diff(want, c.asked(t), cmp.AllowUnexported(inquiry{})); diff != "" {
			t.Errorf("all: %t: asked (-want +got):\n%s", all, diff)
		}
	}
	c.setSelf("b", nil)
	check("another member is its own", "b", round{})
	if len(c.members)+len(c.words)+len(c.voices) > 0 {
		t.Errorf("what is known of another cluster is kept: %+v", c)
	}
}

// TestCouncilWithoutVote has a member without a vote, which hears of no changes,
// find those who have one, and follow them when these are others.
func TestCouncilWithoutVote(t *testing.T) {
	now := 10 * time.Second
	c := newCouncil(func() time.Duration { return now })
	c.setSelf("e", nil)
	known := func(addresses ...string) {
		for _, address := range addresses {
			c.voices[address] = &voice{address: address, questions: make(chan inquiry, 1), quit: func() {}}
		}
	}
	wants := func(what string, want map[string]inquiry) {
		t.Helper()
		c.ask(t.Context(), false)
		if diff := cmp.Diff(want, c.asked(t), cmp.AllowUnexported(inquiry{})); diff != "" {
			t.Errorf("%s: asked (-want +got):\n%s", what, diff)
		}
	}
	known("a", "b", "c", "d", "e")
	wants("in the beginning", map[string]inquiry{"e": {search: true}})
	c.hear(answer{address: "e", word: word{sent: now}, found: "c"})
	wants("the leader is found", map[string]inquiry{"e": {}, "c": {}})
	c.hear(answer{address: "c", word: word{leader: "c", sent: now}, members: three()})
	c.hear(answer{address: "e", word: word{sent: now}, members: []Member{{9, "e", Spare}}})
	wants("who knows is asked", map[string]inquiry{"e": {}, "c": {}})
	moved := []Member{{2, "b", Voter}, {3, "c", Voter}, {4, "d", Voter}, {5, "e", Spare}}
	c.hear(answer{address: "c", word: word{leader: "c", sent: now}, members: moved})
	c.hear(answer{address: "e", word: word{sent: now}, members: three()})
	if diff := cmp.Diff(moved, c.members); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	if c.removed() {
		t.Error("it is taken for removed")
	}
	c.hear(answer{address: "c", err: errors.New("it is away")})
	wants("the next voter is asked", map[string]inquiry{"e": {}, "d": {}})
	now += membersInterval
	wants("nobody has named a leader for long", map[string]inquiry{"e": {search: true}, "d": {}})
	wants("at once after that", map[string]inquiry{"e": {}, "d": {}})
	known("x")
	c.hear(answer{address: "e", word: word{sent: now}, found: "x"})
	wants("one that is in no list", map[string]inquiry{"e": {}, "x": {}})
	c.hear(answer{address: "x", word: word{leader: "x", sent: now}, members: []Member{{7, "x", Voter}}})
	if !c.removed() {
		t.Error("it does not know that it is no member any more")
	}
}
