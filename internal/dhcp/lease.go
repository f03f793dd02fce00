package dhcp

import (
	"encoding/json"
	"net/netip"
	"time"

	"frond/internal/dataplane"
)

// leasesPrefix is what keys begin with, below the prefix that the store is
// opened with. The rest is the address: no two segments share one, so that a
// lease survives its segment's new name.
const leasesPrefix = "leases/"

// kind is what an address is to its client.
type kind string

const (
	offered  kind = "offered"  // it has not asked for it yet
	leased   kind = "leased"   // it may use it
	released kind = "released" // it has given it back, but another node may have promised it
	declined kind = "declined" // it has found somebody else there (RFC 2131 §4.3.3)
)

// How long an offer is kept for its client, which asks for it within seconds,
// and how long a declined address is set aside.
const (
	offerHold   = time.Minute
	declineHold = 30 * time.Minute
)

// lease is the value of leases/ADDRESS.
type lease struct {
	Segment string        `json:"segment"`
	Client  Client        `json:"client"`
	MAC     dataplane.MAC `json:"mac"`
	Kind    kind          `json:"kind"`
	// Hold is how long after its last change the record is its client's,
	// whoever counts, in nanoseconds.
	Hold time.Duration `json:"hold"`
	// Run and Sent are when the writer began to send this, by the clock of
	// that run of its agent: only that run can promise anything by them.
	Run  string        `json:"run"`
	Sent time.Duration `json:"sent"`
	// Moved tells that another node than Node may have promised the address.
	Moved bool `json:"moved,omitempty"`

	// What follows is for people and for answers: no promise depends on it.
	Node     string    `json:"node"`
	Port     string    `json:"port,omitempty"`
	Circuit  string    `json:"circuit,omitempty"` // RFC 3046 §3.1
	Hostname string    `json:"hostname,omitempty"`
	Since    time.Time `json:"since"`
	Named    time.Time `json:"named,omitzero"` // since when the client has Hostname
	Ends     time.Time `json:"ends"`
}

// named is since when the client has its name. Who has had the address for long
// may have taken it just now.
func (l lease) named() time.Time {
	if l.Named.IsZero() { // written by a release that did not say
		return l.Since
	}
	return l.Named
}

func (l lease) encode() []byte {
	data, err := json.Marshal(l)
	if err != nil { // nothing in it can fail
		return []byte("{}")
	}
	return data
}

// entry is a record as this node has seen it.
type entry struct {
	lease
	address  netip.Addr
	modified int64
	seen     time.Duration // when this revision was, on the own clock
	// surrendered tells that the own node has begun to give this revision up:
	// nothing is promised by it any more.
	surrendered bool
	counted     bool // see book.count
}

// margin is what a promise ends earlier by than what it stands on: clocks run
// differently, by less than 500 millionths each.
func margin(hold time.Duration) time.Duration { return time.Second + hold/1000 }

// promised is how long a run may still let the client use the address,
// without a word from the store. Zero: not at all.
func (e *entry) promised(run string, now time.Duration) time.Duration {
	if e == nil || e.Run != run || e.Kind != leased || e.surrendered {
		return 0
	}
	return max(0, e.Sent+e.Hold-margin(e.Hold)-now)
}

// lives tells that the address is its client's now.
func (e *entry) lives(now time.Duration) bool {
	return e != nil && (e.Kind == leased || e.Kind == offered) && now < e.over()
}

// over is when the address can be given to somebody else.
func (e *entry) over() time.Duration { return e.seen + e.Hold }

// keep is the least time that a record which follows this one has to hold, so
// that it does not end before what this one has promised.
func (e *entry) keep(run string, now time.Duration) time.Duration {
	since := e.seen
	if e.Run == run {
		since = max(e.Sent, 0)
	}
	return max(0, e.Hold-(now-since))
}
