package dhcp

import (
	"container/heap"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"time"

	"frond/internal/kv"
)

// book is what is known of the store's leases.
type book struct {
	revision int64
	entries  map[netip.Addr]*entry
	clients  map[Client][]netip.Addr
	ends     ends
	due      map[netip.Addr]time.Duration // of an address, in ends
	// changed are addresses of which something else is known than before.
	changed []netip.Addr
	held    map[place]int // addresses that are not to be had because of who is behind a port
}

func newBook() *book {
	return &book{entries: make(map[netip.Addr]*entry), clients: make(map[Client][]netip.Addr), due: make(map[netip.Addr]time.Duration), held: make(map[place]int)}
}

// apply takes in what the store tells. What is older than what is known
// already, from the answer to a transaction, is passed over.
func (b *book) apply(c kv.Change, now time.Duration) {
	restored := c.Whole && c.Revision < b.revision // from a backup
	if c.Revision < b.revision && !restored {
		return
	}
	b.revision = c.Revision
	if c.Whole {
		b.prune(c, restored)
	}
	for _, key := range c.Deleted {
		b.deleted(key, c.Revision)
	}
	for _, r := range c.Records {
		b.note(r, now)
	}
}

// prune forgets what is not there any more. In a store that was restored,
// revisions begin anew: what is not exactly as it was is another record.
func (b *book) prune(c kv.Change, restored bool) {
	there := make(map[string]int64, len(c.Records))
	for _, r := range c.Records {
		there[r.Key] = r.Modified
	}
	for a, e := range b.entries {
		modified, ok := there[leasesPrefix+a.String()]
		if restored && modified != e.modified || !ok && e.modified <= c.Revision {
			b.forget(e)
			b.changed = append(b.changed, a)
		}
	}
}

func addressIn(key string) (netip.Addr, bool) {
	text, ok := strings.CutPrefix(key, leasesPrefix)
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(text)
	return a, err == nil && !a.Is4In6() && a.Zone() == ""
}

func (b *book) deleted(key string, revision int64) {
	a, ok := addressIn(key)
	if e := b.entries[a]; ok && e != nil && e.modified <= revision {
		b.forget(e)
		b.changed = append(b.changed, a)
	}
}

func (b *book) forget(e *entry) {
	delete(b.entries, e.address)
	b.uncount(e)
	if e.Client == "" {
		return
	}
	list := slices.DeleteFunc(b.clients[e.Client], func(a netip.Addr) bool { return a == e.address })
	if len(list) == 0 {
		delete(b.clients, e.Client)
		return
	}
	b.clients[e.Client] = list
}

// unreadableHold is how long a record that cannot be read is somebody's.
const unreadableHold = 366 * 24 * time.Hour

// note takes in a record.
func (b *book) note(r kv.Record, now time.Duration) {
	a, ok := addressIn(r.Key)
	if !ok {
		return
	}
	if before := b.entries[a]; before != nil && before.modified >= r.Modified {
		return
	}
	var l lease
	if json.Unmarshal(r.Value, &l) != nil || l.Hold < 0 {
		l = lease{Hold: unreadableHold}
	}
	b.put(a, l, r.Modified, now)
}

// put notes what an address is from a revision on.
func (b *book) put(a netip.Addr, l lease, modified int64, now time.Duration) {
	if before := b.entries[a]; before != nil {
		if before.modified >= modified {
			return
		}
		b.forget(before)
	}
	e := &entry{lease: l, address: a, modified: modified, seen: now}
	b.entries[a] = e
	b.count(e)
	if e.Client != "" {
		b.clients[e.Client] = append(b.clients[e.Client], a)
	}
	b.schedule(e)
	b.changed = append(b.changed, a)
}

// schedule has the end of an entry noticed. There is one end for an address,
// however often its lease is renewed: it is put off when it comes.
func (b *book) schedule(e *entry) {
	if at, ok := b.due[e.address]; !ok || e.over() < at {
		b.due[e.address] = e.over()
		heap.Push(&b.ends, end{e.over(), e.address})
	}
}

// lapse notes the addresses whose time is over.
func (b *book) lapse(now time.Duration) {
	for len(b.ends) > 0 && b.ends[0].at <= now {
		next := heap.Pop(&b.ends).(end) //nolint:forcetypeassert // ends holds nothing else
		if b.due[next.address] != next.at {
			continue
		}
		delete(b.due, next.address)
		switch e := b.entries[next.address]; {
		case e == nil:
		case e.over() <= now:
			b.changed = append(b.changed, next.address)
			b.uncount(e)
		default:
			b.schedule(e)
		}
	}
}

// of returns what a client has in a segment: what it was given rather than
// what it was offered, and of that the last.
func (b *book) of(s Segment, c Client) *entry {
	var best *entry
	for _, a := range b.clients[c] {
		e := b.entries[a]
		if e.Kind == declined || !s.Prefix.Contains(a) {
			continue
		}
		if best == nil || rank(e) > rank(best) || rank(e) == rank(best) && e.modified > best.modified {
			best = e
		}
	}
	return best
}

func rank(e *entry) int {
	switch e.Kind {
	case leased:
		return 2
	case offered:
		return 1
	}
	return 0
}

// end is when a record's time is over, unless it is changed before.
type end struct {
	at      time.Duration
	address netip.Addr
}

// ends are a heap, the next first.
type ends []end

func (e ends) Len() int           { return len(e) }
func (e ends) Less(i, k int) bool { return e[i].at < e[k].at }
func (e ends) Swap(i, k int)      { e[i], e[k] = e[k], e[i] }
func (e *ends) Push(x any)        { *e = append(*e, x.(end)) } //nolint:forcetypeassert // as above
func (e *ends) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}
