package store

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// How often each member is asked how it is, and how long it has for that.
const (
	lookEvery  = 500 * time.Millisecond
	lookWithin = 400 * time.Millisecond
)

// Health is how the store is, as seen from here.
type Health struct {
	Majority bool   // some member that answers knows a leader
	Leader   string // its name; empty if there is none, or none of ours
	Members  []MemberHealth
}

// MemberHealth is how one member is.
type MemberHealth struct {
	Endpoint
	Answers  bool
	Problem  string // why it does not answer, or what it complains of
	ID       uint64
	Leader   bool
	Learner  bool
	Version  string
	Bytes    int64 // of its database
	Index    uint64
	Duration time.Duration // of its answer

	leads uint64 // whom it takes for the leader
}

// Look asks all members at once.
func (c *Client) Look(ctx context.Context) Health {
	h := Health{Members: make([]MemberHealth, len(c.clients))}
	var asked sync.WaitGroup
	for i := range c.clients {
		asked.Go(func() { h.Members[i] = c.lookAt(ctx, i) })
	}
	asked.Wait()
	for _, m := range h.Members {
		if m.leads == 0 {
			continue
		}
		h.Majority = true
		leader := slices.IndexFunc(h.Members, func(o MemberHealth) bool { return o.Answers && o.ID == m.leads })
		if leader >= 0 {
			h.Leader = h.Members[leader].Name
			h.Members[leader].Leader = true
		}
	}
	return h
}

func (c *Client) lookAt(ctx context.Context, i int) MemberHealth {
	m := MemberHealth{Endpoint: c.endpoints[i]}
	ctx, cancel := context.WithTimeout(ctx, lookWithin)
	defer cancel()
	began := time.Now()
	got, err := c.clients[i].Status(ctx, m.URL)
	m.Duration = time.Since(began)
	if err != nil {
		m.Problem = reason(err)
		return m
	}
	m.Answers, m.ID, m.Learner, m.Version = true, got.Header.MemberId, got.IsLearner, got.Version
	m.Bytes, m.Index, m.leads = got.DbSize, got.RaftAppliedIndex, got.Leader
	if m.leads == 0 {
		m.Problem = "sees no majority"
	}
	for _, e := range got.Errors {
		switch e {
		case "etcdserver: no leader":
		default:
			m.Problem = alarm(e)
		}
	}
	return m
}

// alarm is what a member complains of, in words.
func alarm(text string) string {
	for _, of := range []struct {
		kind pb.AlarmType
		text string
	}{
		{pb.AlarmType_NOSPACE, "is full: it takes deletions only"},
		{pb.AlarmType_CORRUPT, "has other data than the others"},
	} {
		if strings.Contains(text, of.kind.String()) {
			return of.text
		}
	}
	return text
}

// Run looks at the members until ctx ends, so that one that does not answer is
// not asked first, by requests nor by watches.
func (c *Client) Run(ctx context.Context) error {
	for {
		h := c.Look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		c.note(h)
		if !pause(ctx, lookEvery) {
			return nil
		}
	}
}

// note keeps what was seen and moves away from a member that is of no use.
func (c *Client) note(h Health) {
	c.mu.Lock()
	defer c.mu.Unlock()
	useful := func(m MemberHealth) bool { return m.Answers && m.leads != 0 && !m.Learner }
	if !useful(h.Members[c.current]) {
		if better := slices.IndexFunc(h.Members, useful); better >= 0 {
			c.move(better)
		}
	}
	if h.Majority != c.health.Majority || h.Leader != c.health.Leader {
		c.log.Info("store", "majority", h.Majority, "leader", h.Leader)
		select {
		case c.changed <- struct{}{}:
		default:
		}
	}
	c.health = h
}

// Health is what Run saw last.
func (c *Client) Health() Health {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.health
}

// Changed delivers after the leader has changed or the majority has come or
// gone, while Run runs.
func (c *Client) Changed() <-chan struct{} { return c.changed }
