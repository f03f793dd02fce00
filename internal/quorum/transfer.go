package quorum

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	// transferPause is how long after an attempt the next one may be made, and
	// how often the leader's agent is asked whether it is ready.
	transferPause = time.Second
	// patience is how long that agent may not be ready before another member is
	// to lead; each of the voters has turn more of it than the one before.
	patience = 3 * time.Second
	turn     = 2 * time.Second
)

// handover is what is known of the leader's agent, and the attempt to have
// another member lead.
type handover struct {
	busy    bool
	next    time.Duration
	leader  string        // that the rest is of
	unready time.Duration // since when its agent is not ready; never: it is
}

// checked is what has become of an attempt.
type checked struct {
	leader string
	err    error // why its agent is not ready, or the database has not changed its leader
	moved  bool  // another member was to lead
}

func (h *handover) answered(c checked, now time.Duration) {
	h.busy, h.next = false, now+transferPause
	switch {
	case c.moved || c.err == nil || h.leader != c.leader:
		h.leader, h.unready = c.leader, never
	case h.unready == never:
		h.unready = now
	}
}

// transfer has the database led by another member where its leader's node does
// not hold the gateways: this node because it does not want to, or another one
// whose agent is not there.
func (l *loop) transfer(ctx context.Context) {
	a, h, now := l.agent, &l.handover, l.config.Clock()
	if a.spread == ByHash || a.self == "" || h.busy || now < h.next || now >= a.heard.sent+a.timing.Lease {
		return
	}
	wire, self, leader := l.wire, a.self, a.heard.leader
	voters := l.voters(now)
	own := slices.IndexFunc(voters, func(m Member) bool { return m.Address == self })
	switch {
	case leader == self && a.retires():
		h.busy = true
		others := slices.DeleteFunc(voters, func(m Member) bool { return m.Address == self })
		l.work.Go(func() { l.checked <- checked{self, handTo(ctx, wire, self, others), true} })
	case leader == "" || leader == self || own < 0 || a.unready() != nil:
	default:
		h.busy = true
		late := h.leader == leader && h.unready != never && now >= h.unready+patience+time.Duration(own)*turn
		l.work.Go(func() { l.checked <- l.check(ctx, wire, leader, voters[own], late) })
	}
}

// check asks whether the leader's agent is ready. If it has not been for long,
// this node's own member is to lead.
func (l *loop) check(ctx context.Context, wire Wire, leader string, own Member, late bool) checked {
	limited, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	err := wire.ready(limited, leader)
	if err == nil || !late {
		return checked{leader: leader, err: err}
	}
	l.log.Warn("the database's leader is to be here, since its node holds no elected gateways", "leader", leader, "why", err)
	return checked{leader, lead(ctx, wire, leader, own), true}
}

// voters are the database's, those that are known to be away left out.
func (l *loop) voters(now time.Duration) []Member {
	return slices.DeleteFunc(slices.Clone(l.council.members), func(m Member) bool {
		w, said := l.council.words[m.Address]
		return m.Role != Voter || said && now >= w.sent+l.config.Timing.Lease && l.council.trouble[m.Address] != ""
	})
}

// lead has the leader hand over to a member.
func lead(ctx context.Context, wire Wire, leader string, to Member) error {
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	m, err := wire.open(ctx, leader)
	if err != nil {
		return err
	}
	defer func() { _ = m.Close() }()
	if err := m.Transfer(ctx, to.ID); err != nil {
		return fmt.Errorf("transfer to %s: %w", to.Address, err)
	}
	return nil
}

// handTo has the leader hand over to the first of the others beside which an
// agent is ready.
func handTo(ctx context.Context, wire Wire, leader string, others []Member) error {
	ctx, cancel := context.WithTimeout(ctx, handOverTime)
	defer cancel()
	i := slices.IndexFunc(others, func(m Member) bool { return wire.ready(ctx, m.Address) == nil })
	if i < 0 {
		return errors.New("no other voter's node is ready for elected gateways")
	}
	return lead(ctx, wire, leader, others[i])
}
