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
	open    connect
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
}

func newCouncil(clock func() time.Duration) *council {
	return &council{
		clock: clock, answers: make(chan answer),
		words: make(map[string]word), trouble: make(map[string]string), voices: make(map[string]*voice),
	}
}

// setSelf begins anew with this node's own member; the empty address ends all.
func (c *council) setSelf(address string, open connect) {
	for _, v := range c.voices {
		v.quit()
	}
	clear(c.voices)
	clear(c.words)
	clear(c.trouble)
	c.self, c.first, c.members, c.open = address, address, nil, open
	c.read, c.proven = register{}, register{}
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
	c.voice(ctx, c.self).ask(false)
	c.voice(ctx, c.first).ask(false)
	for _, m := range c.members {
		if all && m.Role == Voter {
			c.voice(ctx, m.Address).ask(false)
		}
	}
}

// askRegister asks the leader for the register, or all voters for the leader.
func (c *council) askRegister(ctx context.Context) {
	leader := tally(c.members, c.words).leader
	if leader == "" {
		c.ask(ctx, true)
		return
	}
	c.voice(ctx, leader).ask(true)
}

// register is the last that is proven.
func (c *council) register() register {
	if c.read.proven(tally(c.members, c.words)) {
		c.proven, c.read = c.read, register{}
	}
	return c.proven
}

// round is what follows from what was heard: a proof if all were asked,
// otherwise what the one says who was.
func (c *council) round(all bool) round {
	if w := c.words[c.first]; !all && w.leader != c.self {
		return round(w)
	}
	return tally(c.members, c.words)
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
	v := &voice{address: address, questions: make(chan bool, 1), quit: quit}
	c.voices[address] = v
	open := c.open
	c.work.Go(func() { v.run(ctx, open, c.clock, c.answers) })
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
	if len(a.members) > 0 && (a.address == c.self || c.words[c.self].sent < a.word.sent-2*membersInterval) {
		c.setMembers(a.members)
	}
	switch {
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

// another has the next question where one answer will do go to another voter.
func (c *council) another(silent string) {
	if silent != c.first {
		return
	}
	var voters []string
	for _, m := range c.members {
		if m.Role == Voter {
			voters = append(voters, m.Address)
		}
	}
	if len(voters) == 0 {
		c.first = c.self
		return
	}
	c.first = voters[(slices.Index(voters, silent)+1)%len(voters)]
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
