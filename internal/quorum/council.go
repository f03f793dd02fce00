package quorum

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// maxMembers bounds the members that are kept in touch with. A cluster of LXD
// or Incus has fifty at most.
const maxMembers = 128

// council is what is known of the database's cluster, and the connections to
// its members. It belongs to one goroutine.
type council struct {
	wire    reach
	clock   func() time.Duration
	answers chan answer

	self    string
	members []Member
	words   map[string]word
	read    register          // last, and not proven yet
	proven  register          // last
	trouble map[string]string // why a member did not answer last
	voices  map[string]*voice
	work    sync.WaitGroup
	first   string // who is asked where one answer will do

	heardAt    time.Duration // when somebody was asked last who named a leader
	searchedAt time.Duration // when this node's own member was last to find one
}

func newCouncil(clock func() time.Duration) *council {
	return &council{
		clock: clock, answers: make(chan answer),
		words: make(map[string]word), trouble: make(map[string]string), voices: make(map[string]*voice),
	}
}

// setSelf begins anew with this node's own member; the empty address ends all.
func (c *council) setSelf(address string, wire reach) {
	for _, v := range c.voices {
		v.quit()
	}
	clear(c.voices)
	clear(c.words)
	clear(c.trouble)
	c.self, c.first, c.members, c.wire = address, address, nil, wire
	c.read, c.proven = register{}, register{}
	c.heardAt, c.searchedAt = never, never
}

// close ends all connections.
func (c *council) close() {
	c.setSelf("", nil)
	c.work.Wait()
}

// ask asks all voters, or only one if that is enough to know whether there is
// anything to be proved: this node's own member, or another that knows more.
func (c *council) ask(ctx context.Context, all bool) {
	if c.self == "" {
		return
	}
	others := []string{c.first}
	if all {
		for _, m := range votersOf(c.members) {
			others = append(others, m.Address)
		}
	}
	c.voice(ctx, c.self).ask(inquiry{members: all, search: c.lost()})
	slices.Sort(others)
	for _, address := range slices.Compact(others) {
		if address != c.self {
			c.voice(ctx, address).ask(inquiry{members: all})
		}
	}
}

// lost tells, once in a while, that nobody who is asked names a leader: this
// node's own member has to find one.
func (c *council) lost() bool {
	now := c.clock()
	if now < max(c.heardAt, c.searchedAt)+membersInterval {
		return false
	}
	c.searchedAt = now
	return true
}

// askRegister asks the leader for the register, or all voters for the leader.
func (c *council) askRegister(ctx context.Context) {
	leader := tally(c.words).leader
	if leader == "" {
		c.ask(ctx, true)
		return
	}
	c.voice(ctx, leader).ask(inquiry{members: true, register: true})
}

// register is the last that is proven.
func (c *council) register() register {
	if c.read.proven(tally(c.words)) {
		c.proven, c.read = c.read, register{}
	}
	return c.proven
}

// round is what follows from what was heard: a proof if all were asked,
// otherwise what the one says who was.
func (c *council) round(all bool) round {
	if w := c.words[c.first]; !all && w.leader != c.self {
		return round{w.leader, w.sent}
	}
	return tally(c.words)
}

// names tells that somebody takes this node's member for the leader.
func (c *council) names() bool {
	for _, w := range c.words {
		if w.leader == c.self && c.self != "" && c.clock() < w.sent+answerTime {
			return true
		}
	}
	return false
}

func (c *council) voice(ctx context.Context, address string) *voice {
	if v, ok := c.voices[address]; ok {
		return v
	}
	ctx, quit := context.WithCancel(ctx)
	v := &voice{address: address, questions: make(chan inquiry, 1), quit: quit}
	c.voices[address] = v
	wire := c.wire
	c.work.Go(func() { v.run(ctx, wire, c.clock, c.answers) })
	return v
}

// hear takes in an answer.
func (c *council) hear(a answer) {
	if _, asked := c.voices[a.address]; !asked {
		return // of a cluster that it is not about any more
	}
	if a.err != nil {
		c.trouble[a.address] = a.err.Error()
		c.another(a.address)
		return
	}
	delete(c.trouble, a.address)
	if a.register.from != "" {
		c.read = a.register
	}
	c.words[a.address] = a.word
	if a.word.leader != "" {
		c.heardAt = max(c.heardAt, a.word.sent)
	}
	// One that has no vote hears of no changes.
	if len(a.members) > 0 && (a.address == c.first && a.word.leader != "" || a.address == c.self && len(c.members) == 0) {
		c.setMembers(a.members)
	}
	switch {
	case a.found != "":
		c.first = a.found
	case a.word.leader == "":
		c.another(a.address)
	case a.address == c.self:
		c.first = c.self
	}
}

// setMembers forgets those that are none any more.
func (c *council) setMembers(members []Member) {
	if len(members) > maxMembers {
		members = members[:maxMembers]
	}
	c.members = members
	isMember := func(address string) bool {
		return slices.ContainsFunc(members, func(m Member) bool { return m.Address == address })
	}
	for address, v := range c.voices {
		if !isMember(address) && address != c.self {
			v.quit()
			delete(c.voices, address)
			delete(c.words, address)
			delete(c.trouble, address)
		}
	}
	if !isMember(c.first) {
		c.first = c.self
	}
}

// removed tells that this node's own member is none of those that the others name.
func (c *council) removed() bool {
	return len(c.members) > 0 && !slices.ContainsFunc(c.members, func(m Member) bool { return m.Address == c.self })
}

// another has the next question where one answer will do go to another voter.
func (c *council) another(silent string) {
	if silent != c.first {
		return
	}
	voters := votersOf(c.members)
	if len(voters) == 0 {
		c.first = c.self
		return
	}
	i := slices.IndexFunc(voters, func(m Member) bool { return m.Address == silent })
	c.first = voters[(i+1)%len(voters)].Address
}

// troubles says what is wrong with whom, in words.
func (c *council) troubles() string {
	text := ""
	for _, address := range slices.Sorted(maps.Keys(c.trouble)) {
		if text != "" {
			text += "; "
		}
		text += fmt.Sprintf("%s: %s", address, c.trouble[address])
	}
	return text
}
