package quorum

import (
	"context"
	"time"
)

// member is a connection to a member of the database's cluster.
type member interface {
	// Leader is the address of whom the member takes for the leader, empty if it
	// knows none.
	Leader(context.Context) (string, error)
	// Members are all, as far as the member knows.
	Members(context.Context) ([]Member, error)
	// Transfer has the member, who has to be the leader, hand over to another.
	Transfer(ctx context.Context, to uint64) error
	// Registered is what the member, who has to be the leader, reads in the
	// database of the members.
	Registered(context.Context) ([]registered, error)
	Close() error
}

// reach is how members are asked.
type reach interface {
	// open connects to the member at an address.
	open(ctx context.Context, address string) (member, error)
	// find has the member at an address find out who leads.
	find(ctx context.Context, address string) (leader string, err error)
}

// inquiry is what a member is asked besides whom it takes for the leader.
type inquiry struct {
	members  bool // who has a vote, at the same moment
	register bool // what it reads of the members, if it leads
	search   bool // to find out who leads, if it knows none
}

// answer is what a member said, or why it did not.
type answer struct {
	address string
	word    word
	members []Member // nil: it was not asked for them
	// register is what it has read, if it is the leader and was asked for it.
	register register
	found    string // leader that it has found out
	err      error
}

const (
	// answerTime bounds how long a member may take for an answer.
	answerTime = time.Second
	// membersInterval is how often members are asked who the members are.
	membersInterval = 2 * time.Second
)

// voice asks one member, one question after the other, over a connection that
// is kept. It is only spoken to by its channels.
type voice struct {
	address   string
	questions chan inquiry // capacity 1
	quit      context.CancelFunc
}

// ask has the member asked, unless it owes an answer yet.
func (v *voice) ask(i inquiry) {
	select {
	case v.questions <- i:
	default:
	}
}

// run answers questions until ctx ends.
func (v *voice) run(ctx context.Context, wire reach, clock func() time.Duration, answers chan<- answer) {
	var m member
	drop := func() {
		if m != nil {
			_ = m.Close()
			m = nil
		}
	}
	defer func() { drop() }()
	told := time.Duration(never)
	for {
		var wanted inquiry
		select {
		case <-ctx.Done():
			return
		case wanted = <-v.questions:
		}
		a := answer{address: v.address}
		limited, cancel := context.WithTimeout(ctx, answerTime)
		if m == nil {
			m, a.err = wire.open(limited, v.address)
		}
		a.word.sent = clock()
		// Before the leader: what it says of the voters has then come from nobody
		// who was elected after whom it names.
		if a.err == nil && (wanted.members || a.word.sent >= told+membersInterval) {
			if a.members, a.err = m.Members(limited); a.err == nil {
				told, a.word.voters = a.word.sent, votersOf(a.members)
			}
		}
		if a.err == nil {
			a.word.leader, a.err = m.Leader(limited)
		}
		if a.err == nil && wanted.search && a.word.leader == "" {
			a.found, a.err = wire.find(limited, v.address)
		}
		if a.err == nil && wanted.register && a.word.leader == v.address {
			a.register = register{from: v.address, sent: clock()}
			a.register.members, a.err = m.Registered(limited)
			a.register.received = clock()
		}
		cancel()
		if a.err != nil {
			drop()
		}
		select {
		case answers <- a:
		case <-ctx.Done():
			return
		}
	}
}
