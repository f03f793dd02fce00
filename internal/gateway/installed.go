package gateway

import (
	"errors"
	"slices"
	"time"
)

// pause is how long after a refusal of store or kernel to try again, and how
// long before a lifetime can be given no more it is given once again.
const pause = 50 * time.Millisecond

// Installed is what the kernel may hold of a node's gateways, and so when it is
// to be told of them. What it may hold, no other node may: it takes a gateway
// for gone only when the kernel has said so. The zero value is a kernel of which
// nothing is known.
type Installed struct {
	known   bool            // it was brought into line at least once
	names   map[string]bool // segments of which an address may be there
	failed  error
	retryAt time.Duration // not told anything before
	at      time.Duration // when it was told last
	until   time.Duration // the latest end of what it was told then
	last    time.Duration // when it is told the same once more
}

// end is when the lifetime ends, if it is given at the last moment: it follows
// from when that was sent by which the gateway is held, and from nothing else.
func (h Holding) end() time.Duration { return h.Before + h.Lifetime }

// freshest is the holding whose lifetime ends last, the zero one if none can be
// given a lifetime.
func freshest(list []Holding) Holding {
	var best Holding
	for _, h := range list {
		if h.Lifetime > 0 && h.end() > best.end() {
			best = h
		}
	}
	return best
}

// Due tells that the kernel has to be told of the holdings: it has others, or
// they can be given longer lifetimes than they have. If nothing new comes, they
// are given once more at the last moment, so that they last as long as they may.
func (k *Installed) Due(list []Holding, now time.Duration) bool {
	fresh := freshest(list)
	k.last = fresh.Before - pause
	if now < k.retryAt {
		return false
	}
	if !k.known || k.failed != nil || len(list) != len(k.names) ||
		slices.ContainsFunc(list, func(h Holding) bool { return !k.names[h.Segment] }) {
		return true
	}
	return fresh.Lifetime > 0 && (fresh.end() > k.until || k.at < k.last && now >= k.last)
}

// Acknowledge takes in what Addresses.Set has answered.
func (k *Installed) Acknowledge(list []Holding, err error, now time.Duration) {
	k.failed = err
	var some *NotAdded
	if err == nil || errors.As(err, &some) { // all others are gone
		k.known, k.at, k.until = true, now, freshest(list).end()
		clear(k.names)
	}
	if err != nil {
		k.retryAt = now + pause
	}
	for _, h := range list {
		k.Expect(h.Segment) // of one that was refused some addresses may be there
	}
}

// Expect notes that the kernel may hold a gateway, which an agent before this
// one has put there.
func (k *Installed) Expect(segment string) {
	if k.names == nil {
		k.names = make(map[string]bool)
	}
	k.names[segment] = true
}

// Known tells that the kernel holds what it was told, and nothing else.
func (k *Installed) Known() bool { return k.known }

// May tells that the kernel is known to hold a gateway, or may.
func (k *Installed) May(segment string) bool { return k.names[segment] }

// Gone tells that the kernel surely does not hold a gateway: it can be
// another node's.
func (k *Installed) Gone(segment string) bool { return k.known && !k.names[segment] }

// Empty tells that no gateway is known that the kernel may hold.
func (k *Installed) Empty() bool { return len(k.names) == 0 }

// Failed is why the kernel does not hold what it should, nil if it does.
func (k *Installed) Failed() error { return k.failed }

// Wake is when it may be due next though nothing happens; in the past if never.
func (k *Installed) Wake(now time.Duration) time.Duration {
	if now < k.retryAt {
		return k.retryAt
	}
	return k.last
}
