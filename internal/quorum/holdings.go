package quorum

import (
	"maps"
	"slices"
	"time"

	"frond/internal/gateway"
)

// holdings are what the kernel should hold now.
func (a *agent) holdings(now time.Duration) []gateway.Holding {
	var list []gateway.Holding
	for _, segment := range slices.Sorted(maps.Keys(a.claims)) {
		c := a.claims[segment]
		lifetime, before := a.timing.Lifetime(c.sent, now)
		if !c.held || lifetime == 0 && !a.kernel.May(segment) {
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
	list := a.holdings(now)
	return list, a.kernel.Due(list, now)
}

// wake is when to look again, if nothing happens before.
func (a *agent) wake(now time.Duration) time.Duration {
	at := now + a.timing.Renew
	sooner := func(t time.Duration) {
		if t > now {
			at = min(at, t)
		}
	}
	sooner(a.kernel.Wake(now))
	for _, c := range a.claims {
		if c.held {
			sooner(c.sent + a.timing.Lease - a.timing.Margin)
		} else {
			sooner(c.first + a.timing.Lease)
		}
	}
	return at
}
