package native

import (
	"math/bits"
	"slices"
)

// table holds every path to every destination of one kind: prefixes, or
// EVPN routes by their wire form. It knows nothing of sessions but their
// neighbors, and reports each destination whose best paths changed.
type table[K comparable] struct {
	entries map[K]*entry[K]
	changed func(*entry[K])
}

// entry is one destination.
type entry[K comparable] struct {
	key     K
	paths   []path      // best first
	best    int         // how many of paths are used side by side
	local   *attributes // originated here; see ours
	own     string      // of EVPN: the NLRI that local goes with
	sent    peerSet     // peers that hold it from us
	queue   peerSet     // peers that are yet to be told
	told    export      // what they were or will be told
	wire    string      // of EVPN: the NLRI that they were or will be told, or that is taken back
	pending bool        // of EVPN: the reader of Events is yet to be told of its best path, see pending
	heard   bool        // of EVPN: the reader of Events has been told of a path, or is about to be
}

// export is what a destination looks like to other peers; its zero value
// says that there is nothing to tell.
type export struct {
	attrs *attributes
	from  *neighbor // nil: ourselves
	wire  string    // of EVPN
}

func newTable[K comparable](changed func(*entry[K])) *table[K] {
	return &table[K]{entries: make(map[K]*entry[K]), changed: changed}
}

// tell sets what peers are to know of the destination. It tells whether that
// is news.
func (e *entry[K]) tell(x export) bool {
	if x == e.told {
		return false
	}
	e.told = x
	if x.wire != "" {
		e.wire = x.wire
	}
	return true
}

func (t *table[K]) entry(key K) *entry[K] {
	e, ok := t.entries[key]
	if !ok {
		e = &entry[K]{key: key}
		t.entries[key] = e
	}
	return e
}

// announce takes a peer's path in. It tells whether the peer had none before.
func (t *table[K]) announce(key K, p path) (added bool) {
	e := t.entry(key)
	i := slices.IndexFunc(e.paths, func(o path) bool { return o.peer == p.peer })
	if i >= 0 && e.paths[i] == p {
		return false
	}
	if i < 0 {
		e.paths = append(e.paths, p)
	} else {
		e.paths[i] = p
	}
	t.decide(e)
	return i < 0
}

// withdraw takes a peer's path away. It tells whether there was one.
func (t *table[K]) withdraw(key K, n *neighbor) bool {
	e, ok := t.entries[key]
	if !ok {
		return false
	}
	i := slices.IndexFunc(e.paths, func(o path) bool { return o.peer == n })
	if i < 0 {
		return false
	}
	e.paths = slices.Delete(e.paths, i, i+1)
	t.decide(e)
	t.collect(e)
	return true
}

// originate sets what this node itself says of key; nil takes it back.
func (t *table[K]) originate(key K, attrs *attributes, wire string) {
	e := t.entry(key)
	if e.local != attrs || e.own != wire {
		e.local, e.own = attrs, wire
		t.decide(e)
	}
	t.collect(e)
}

// drop withdraws those of a peer's paths that gone names.
func (t *table[K]) drop(n *neighbor, gone func(K, path) bool) (dropped int) {
	for key, e := range t.entries {
		i := slices.IndexFunc(e.paths, func(o path) bool { return o.peer == n })
		if i < 0 || !gone(key, e.paths[i]) {
			continue
		}
		e.paths = slices.Delete(e.paths, i, i+1)
		t.decide(e)
		t.collect(e)
		dropped++
	}
	return dropped
}

func (t *table[K]) decide(e *entry[K]) {
	e.best = choose(e.paths)
	t.changed(e)
}

// collect forgets an entry that nobody tells, holds or waits for.
func (t *table[K]) collect(e *entry[K]) {
	if len(e.paths) == 0 && e.local == nil && !e.pending && e.sent.empty() && e.queue.empty() {
		delete(t.entries, e.key)
	}
}

// ours tells whether what this node originates counts: unless another node
// got the prefix later, it wins over every path.
func (e *entry[K]) ours() bool {
	return e.local != nil && (len(e.paths) == 0 || e.paths[0].sequence() <= e.local.sequence)
}

// export returns what peers are to be told of the destination.
func (e *entry[K]) export() export {
	if e.ours() {
		return export{attrs: e.local, wire: e.own}
	}
	if len(e.paths) == 0 {
		return export{}
	}
	best := e.paths[0]
	return export{attrs: best.attrs, from: best.peer, wire: best.wire}
}

// peerSet is a set of neighbors by their index.
type peerSet []uint64

func (s peerSet) has(i int) bool { return i/64 < len(s) && s[i/64]&(1<<(i%64)) != 0 }

func (s *peerSet) add(i int) {
	for i/64 >= len(*s) {
		*s = append(*s, 0)
	}
	(*s)[i/64] |= 1 << (i % 64)
}

func (s peerSet) remove(i int) {
	if i/64 < len(s) {
		s[i/64] &^= 1 << (i % 64)
	}
}

func (s peerSet) empty() bool {
	for _, word := range s {
		if bits.OnesCount64(word) > 0 {
			return false
		}
	}
	return true
}
