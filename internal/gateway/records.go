package gateway

import (
	"encoding/json"
	"strings"
	"time"

	"frond/internal/kv"
)

// The keys, below the prefix that the store is opened with.
//
//	nodes/NODE        who is alive: changes with each beat; its create revision is the session
//	gateways/SEGMENT  who holds the gateway, by session
//	wishes/SEGMENT    who is ready to take the gateway over, by session
//	guests/NODE       how many guests of which segments with locality the node has
//	drained/NODE      the operator wants no gateways on the node
const (
	nodesPrefix    = "nodes/"
	gatewaysPrefix = "gateways/"
	wishesPrefix   = "wishes/"
	guestsPrefix   = "guests/"
	drainedPrefix  = "drained/"
)

// VolatileKeys begin the keys that say who holds what at the moment.
var VolatileKeys = []string{nodesPrefix, gatewaysPrefix, wishesPrefix, guestsPrefix}

// beat is the value of nodes/NODE.
type beat struct {
	Run     string `json:"run"`               // of the agent: another one after a restart
	Machine string `json:"machine,omitempty"` // that it runs on: a restart there finds its addresses in the kernel
	Beat    int64  `json:"beat"`
	Leaving bool   `json:"leaving,omitempty"` // is about to stop: hands over what it holds
}

// tenure is the value of gateways/SEGMENT.
type tenure struct {
	Node    string    `json:"node"`
	Session int64     `json:"session"`
	Term    uint64    `json:"term"`  // grows with each change of holder
	Since   time.Time `json:"since"` // for people: no decision depends on it
	Why     string    `json:"why"`
}

// wish is the value of wishes/SEGMENT.
type wish struct {
	Node    string `json:"node"`
	Session int64  `json:"session"`
}

// Drain is the transaction by which no gateway is to be on a node any more, or
// may be again.
func Drain(node string, drained bool) kv.Txn {
	key := drainedPrefix + node
	if drained {
		return kv.Txn{Then: []kv.Operation{kv.Put(key, []byte("{}"))}}
	}
	return kv.Txn{Then: []kv.Operation{kv.Delete(key)}}
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil { // none of the types above can fail
		return []byte("{}")
	}
	return data
}

// entry is a decoded record.
type entry[T any] struct {
	value    T
	created  int64
	modified int64
}

// view is what the store has told so far.
type view struct {
	revision int64
	beats    map[string]entry[beat]
	tenures  map[string]entry[tenure]
	wishes   map[string]entry[wish]
	guests   map[string]entry[map[string]int]
	drained  map[string]bool
	// seen is when a node's last beat came, on the own clock.
	seen map[string]sighting
}

type sighting struct {
	modified int64
	at       time.Duration
}

func newView() *view {
	return &view{
		beats:   make(map[string]entry[beat]),
		tenures: make(map[string]entry[tenure]),
		wishes:  make(map[string]entry[wish]),
		guests:  make(map[string]entry[map[string]int]),
		drained: make(map[string]bool),
		seen:    make(map[string]sighting),
	}
}

// apply takes in a change. It tells whether anything but beats has changed.
func (v *view) apply(c kv.Change, now time.Duration) (news bool) {
	if c.Revision < v.revision && !c.Whole {
		return false
	}
	v.revision = c.Revision
	if c.Whole {
		news = true
		clear(v.beats)
		clear(v.tenures)
		clear(v.wishes)
		clear(v.guests)
		clear(v.drained)
	}
	for _, key := range c.Deleted {
		v.forget(key)
		news = true
	}
	for _, r := range c.Records {
		news = v.note(r, now) || news
	}
	for node := range v.seen {
		if _, alive := v.beats[node]; !alive {
			delete(v.seen, node)
		}
	}
	return news
}

func (v *view) forget(key string) {
	kind, name := splitKey(key)
	switch kind {
	case nodesPrefix:
		delete(v.beats, name)
	case gatewaysPrefix:
		delete(v.tenures, name)
	case wishesPrefix:
		delete(v.wishes, name)
	case guestsPrefix:
		delete(v.guests, name)
	case drainedPrefix:
		delete(v.drained, name)
	}
}

// note takes in a record. What cannot be read counts as the zero value: a
// holder or a node without a session, which is as good as none.
func (v *view) note(r kv.Record, now time.Duration) (news bool) {
	kind, name := splitKey(r.Key)
	switch kind {
	case nodesPrefix:
		before := v.beats[name]
		next := decode[beat](r)
		v.beats[name] = next
		if v.seen[name].modified != r.Modified {
			v.seen[name] = sighting{r.Modified, now}
		}
		return before.created != next.created || before.value.Leaving != next.value.Leaving
	case gatewaysPrefix:
		v.tenures[name] = decode[tenure](r)
	case wishesPrefix:
		v.wishes[name] = decode[wish](r)
	case guestsPrefix:
		v.guests[name] = decode[map[string]int](r)
	case drainedPrefix:
		v.drained[name] = true
	}
	return true
}

func splitKey(key string) (kind, name string) {
	i := strings.IndexByte(key, '/') + 1
	return key[:i], key[i:]
}

func decode[T any](r kv.Record) entry[T] {
	e := entry[T]{created: r.Created, modified: r.Modified}
	var value T
	if json.Unmarshal(r.Value, &value) == nil {
		e.value = value
	}
	return e
}

// alive tells that a session has not been ended.
func (v *view) alive(node string, session int64) bool {
	b, ok := v.beats[node]
	return ok && session != 0 && b.created == session
}

// ballot is what the election is about.
func (v *view) ballot(segments []Segment) Ballot {
	b := Ballot{
		Segments: segments,
		Eligible: make(map[string]bool),
		Holders:  make(map[string]string),
		Guests:   make(map[string]map[string]int),
	}
	for node, e := range v.beats {
		b.Eligible[node] = !e.value.Leaving && !v.drained[node]
	}
	for segment, e := range v.tenures {
		b.Holders[segment] = e.value.Node
	}
	for node, e := range v.guests {
		b.Guests[node] = e.value
	}
	return b
}
