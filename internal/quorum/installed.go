package quorum

import (
	"errors"
	"maps"
	"slices"
	"time"

	"frond/internal/gateway"
)

// pause is how long after a refusal of the kernel to try again.
const pause = 50 * time.Millisecond

// installed is what the kernel may hold.
type installed struct {
	known   bool // it was brought into line at least once
	names   map[string]bool
	sent    time.Duration // the question that the lifetimes come from
	at      time.Duration // when they were given
	retryAt time.Duration
	failed  error
}

// holdings are what the kernel should hold now.
func (a *agent) holdings(now time.Duration) []gateway.Holding {
	var list []gateway.Holding
	for _, segment := range slices.Sorted(maps.Keys(a.claims)) {
		c := a.claims[segment]
		lifetime, before := a.timing.Lifetime(c.sent, now)
		if !c.held || lifetime == 0 && !a.kernel.names[segment] {
			continue // that one waits for the next answer
		}
		list = append(list, gateway.Holding{
			Segment: segment, Lifetime: lifetime, Before: before, Term: c.term, Since: c.since, Why: c.why,
		})
	}
	return list
}

// due returns the holdings if the kernel has to be told of them.
func (a *agent) due(now time.Duration) ([]gateway.Holding, bool) {
	k := &a.kernel
	if now < k.retryAt {
		return nil, false
	}
	list := a.holdings(now)
	if !k.known || k.failed != nil || len(list) != len(k.names) {
		return list, true
	}
	for _, h := range list {
		if !k.names[h.Segment] {
			return list, true
		}
	}
	if len(list) == 0 || list[0].Lifetime == 0 {
		return nil, false
	}
	last := a.lastMoment()
	return list, a.latest() > k.sent || k.at < last && now >= last
}

// lastMoment is when the kernel is told of lifetimes once more if nobody
// answers: so that they last as long as they may.
func (a *agent) lastMoment() time.Duration {
	return a.latest() + a.timing.Lease - a.timing.Slack - time.Second - pause
}

// latest is when the last question was sent by whose answer something is held.
func (a *agent) latest() time.Duration {
	latest := time.Duration(never)
	for _, c := range a.claims {
		if c.held {
			latest = max(latest, c.sent)
		}
	}
	return latest
}

// acknowledge takes in what became of the holdings.
func (a *agent) acknowledge(list []gateway.Holding, err error, now time.Duration) {
	k := &a.kernel
	k.failed = err
	var refused *gateway.NotAdded
	if err == nil || errors.As(err, &refused) { // all others are gone
		k.known, k.sent, k.at = true, a.latest(), now
		clear(k.names)
	}
	if err != nil {
		k.retryAt = now + pause
	}
	for _, h := range list {
		k.names[h.Segment] = true // of one that was refused some addresses may be there
	}
}

// wake is when to look again, if nothing happens before.
func (a *agent) wake(now time.Duration) time.Duration {
	at := now + a.timing.Renew
	sooner := func(t time.Duration) {
		if t > now {
			at = min(at, t)
		}
	}
	sooner(a.kernel.retryAt)
	sooner(a.lastMoment())
	for _, c := range a.claims {
		if c.held {
			sooner(c.sent + a.timing.Lease - a.timing.Margin)
		} else {
			sooner(c.first + a.timing.Lease)
		}
	}
	return at
}
