package dhcp

import (
	"net/netip"
	"slices"
	"time"

	"frond/internal/dataplane"
	"frond/internal/kv"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

const (
	// batchSize is how many operations etcd takes in a transaction.
	batchSize = 128
	// pause is how long after the store gave no answer to try again.
	pause = 100 * time.Millisecond
	// probeTime is how long somebody who has an address has to answer.
	probeTime = 150 * time.Millisecond
	// maxJobs bounds the clients that are being served at once, and maxPerPort
	// those behind one port, so that one port cannot keep out the others.
	maxJobs    = 8192
	maxPerPort = 1024
	// choices bounds how often another address is looked for because somebody
	// else was faster or has it already.
	choices = 8
	// leastPromise is the shortest lease that is given while the store is away.
	leastPromise = 10 * time.Second
	// maxNeighbors bounds the addresses of other nodes' guests.
	maxNeighbors = 1 << 20
)

// agent decides for one node. It has no clock, no goroutine and no effects:
// what happens is told to it, and it says what to do.
type agent struct {
	node string
	run  string
	wall func() time.Time

	segments  map[link]*segment
	byPrefix  []*segment // sorted
	neighbors map[dataplane.NeighborKey]dataplane.MAC

	book   *book
	synced bool
	names  map[netip.Addr]Named // as they were told last

	jobs   map[jobKey]*job
	behind map[dataplane.LocalPort]int // jobs behind a port
	probes []*job                      // in the order of their time
	probed map[dataplane.NeighborKey]*job
	turned map[crowd]time.Duration // when a client was last turned away

	writes writes
	out    output
	counts Counts
}

// segment is a segment and its pool.
type segment struct {
	Segment
	pool         *pool
	reservations map[Client]Reservation
	reserved     map[netip.Addr]Client
}

// output is what is to be done.
type output struct {
	frames []Sending
	kept   []dataplane.LocalAddress
	bound  []dataplane.LocalAddress
	named  map[netip.Addr]Named
}

// Sending is a frame, and the port that it leaves by: all of a segment's if
// the name is empty.
type Sending struct {
	Port  dataplane.LocalPort
	Frame []byte
}

// link is a segment as clients of one family see it.
type link struct {
	vni uint32
	six bool
}

type jobKey struct {
	link
	client Client
}

// job is a client that waits for an answer.
type job struct {
	key     jobKey
	request request
	address netip.Addr
	kind    kind // of the record that is written for it
	probe   bool // before it is answered
	until   time.Duration
	tries   int
}

func newAgent(node, run string, wall func() time.Time) *agent {
	return &agent{
		node: node, run: run, wall: wall,
		segments:  make(map[link]*segment),
		neighbors: make(map[dataplane.NeighborKey]dataplane.MAC),
		book:      newBook(),
		names:     make(map[netip.Addr]Named),
		jobs:      make(map[jobKey]*job),
		behind:    make(map[dataplane.LocalPort]int),
		probed:    make(map[dataplane.NeighborKey]*job),
		turned:    make(map[crowd]time.Duration),
		writes:    newWrites(),
	}
}

// setSegments replaces the segments whose guests are answered.
func (a *agent) setSegments(list []Segment, now time.Duration) {
	next := make(map[link]*segment, len(list))
	a.byPrefix = a.byPrefix[:0]
	for _, s := range list {
		on := link{s.VNI, s.six()}
		known := a.segments[on]
		if known == nil || !known.equal(s) {
			known = newSegment(s)
		}
		next[on] = known
		a.byPrefix = append(a.byPrefix, known)
	}
	slices.SortFunc(a.byPrefix, func(x, y *segment) int { return x.Prefix.Masked().Addr().Compare(y.Prefix.Masked().Addr()) })
	a.segments = next
	for _, j := range a.jobs {
		if next[j.key.link] == nil {
			a.finish(j)
		}
	}
	for address := range a.book.entries {
		a.place(address, now)
		a.rename(address, now)
	}
	for address := range a.writes.pending {
		a.place(address, now)
	}
}

func newSegment(s Segment) *segment {
	known := &segment{
		Segment: s, pool: newPool(s),
		reservations: make(map[Client]Reservation), reserved: make(map[netip.Addr]Client),
	}
	for _, r := range s.Reservations {
		known.reservations[r.Client] = r
		known.reserved[r.Address] = r.Client
	}
	return known
}

// segmentOf is the segment that an address belongs to.
func (a *agent) segmentOf(address netip.Addr) *segment {
	i, exact := slices.BinarySearchFunc(a.byPrefix, address, func(s *segment, a netip.Addr) int {
		return s.Prefix.Masked().Addr().Compare(a)
	})
	if !exact {
		i--
	}
	if i < 0 || !a.byPrefix[i].Prefix.Contains(address) {
		return nil
	}
	return a.byPrefix[i]
}

// observe takes note of which addresses guests of other nodes have; the zero
// MAC: nobody any more.
func (a *agent) observe(neighbors map[dataplane.NeighborKey]dataplane.MAC) {
	for key, mac := range neighbors {
		if mac.IsZero() {
			delete(a.neighbors, key)
		} else if len(a.neighbors) < maxNeighbors {
			a.neighbors[key] = mac
		}
	}
}

// changed takes in what the store tells.
func (a *agent) changed(c kv.Change, now time.Duration) {
	first := c.Whole && !a.synced
	a.synced = a.synced || c.Whole
	a.book.apply(c, now)
	a.placeChanged(now)
	if first {
		a.adopt(now)
	}
}

// adopt makes this run the one that can promise what the run before did: its
// guests are most likely still here.
func (a *agent) adopt(now time.Duration) {
	for _, e := range a.book.entries {
		if e.Node == a.node && e.Kind == leased && now < e.over() {
			if s := a.segmentOf(e.address); s != nil && a.mayHave(s, e.Client, e.address) {
				a.renew(s, e, now)
			}
		}
	}
}

// place notes in its segment's pool what can be done with an address.
func (a *agent) place(address netip.Addr, now time.Duration) {
	s := a.segmentOf(address)
	if s == nil {
		return
	}
	to := free
	switch e := a.book.entries[address]; {
	case a.writes.pending[address] != nil, s.reserved[address] != "", !assignable(s.Prefix, address),
		address == s.Router, address == s.Server:
		to = taken
	case e == nil:
	case now < e.over():
		to = taken
	default:
		to = stale
	}
	s.pool.set(address, to)
}

func (a *agent) placeChanged(now time.Duration) {
	for _, address := range a.book.changed {
		a.place(address, now)
		a.rename(address, now)
	}
	a.book.changed = a.book.changed[:0]
}

// mayHave tells that the document lets a client have an address.
func (a *agent) mayHave(s *segment, c Client, address netip.Addr) bool {
	if owner, reserved := s.reserved[address]; reserved {
		return owner == c
	}
	_, inside := s.pool.index(address)
	return inside && assignable(s.Prefix, address) && address != s.Router && address != s.Server
}

// canGive tells that a client can be given an address that it does not have:
// as far as this node knows, which the store has the last word on.
func (a *agent) canGive(s *segment, c Client, mac dataplane.MAC, address netip.Addr, now time.Duration) bool {
	if !a.mayHave(s, c, address) || a.writes.pending[address] != nil || !a.vacant(s, mac, address) {
		return false
	}
	e := a.book.entries[address]
	return e == nil || e.Client == c && e.Kind != declined || now >= e.over()
}

// vacant tells that no guest of another node has the address.
func (a *agent) vacant(s *segment, mac dataplane.MAC, address netip.Addr) bool {
	holder, known := a.neighbors[dataplane.NeighborKey{VNI: s.VNI, IP: address}]
	return !known || holder == mac
}

// choose finds an address for a client that has none: the one that is
// reserved for it, the one that it asks for, or the one that its hash says.
func (a *agent) choose(s *segment, r *request, now time.Duration) (netip.Addr, bool) {
	if reserved, ok := s.reservations[r.client]; ok && a.canGive(s, r.client, r.mac, reserved.Address, now) {
		return reserved.Address, true
	}
	if r.wanted.IsValid() && a.canGive(s, r.client, r.mac, r.wanted, now) {
		return r.wanted, true
	}
	return s.pool.pick(r.client, func(address netip.Addr) bool { return a.canGive(s, r.client, r.mac, address, now) })
}

// begin takes a client's message in hand. A later one of the same client takes
// the place of one that is not answered yet.
func (a *agent) begin(r request, address netip.Addr, k kind, probe bool) *job {
	key := jobKey{r.link(), r.client}
	if before := a.jobs[key]; before != nil {
		a.finish(before)
	}
	if len(a.jobs) >= maxJobs || a.behind[r.port] >= maxPerPort {
		a.counts.Dropped++
		return nil
	}
	j := &job{key: key, request: r, address: address, kind: k, probe: probe}
	a.jobs[key] = j
	a.behind[r.port]++
	return j
}

// finish forgets a job.
func (a *agent) finish(j *job) {
	if a.jobs[j.key] != j {
		return
	}
	delete(a.jobs, j.key)
	if a.behind[j.request.port]--; a.behind[j.request.port] == 0 {
		delete(a.behind, j.request.port)
	}
	if key := (dataplane.NeighborKey{VNI: j.key.vni, IP: j.address}); a.probed[key] == j {
		delete(a.probed, key)
	}
}

// stored goes on with a job whose record is in the store.
func (a *agent) stored(j *job, now time.Duration) {
	if a.jobs[j.key] != j {
		return
	}
	a.keep(&j.request, j.address)
	if j.probe && !j.key.six { // of IPv6 clients do so themselves (RFC 8415 §18.2.10.1)
		a.probe(j, now)
		return
	}
	a.reply(j, now)
}

// refused goes on with a job whose address somebody else was faster for.
func (a *agent) refused(j *job, now time.Duration) {
	s := a.segments[j.key.link]
	if a.jobs[j.key] != j || s == nil {
		return
	}
	if j.request.kind != dhcpv4.MessageTypeDiscover {
		a.finish(j)
		a.nak(s, &j.request, "the address was given to somebody else", now)
		return
	}
	a.again(s, j, now)
}

// again looks for another address.
func (a *agent) again(s *segment, j *job, now time.Duration) {
	if j.tries++; j.tries >= choices {
		a.finish(j)
		return // it will ask again
	}
	a.finish(j)
	tries := j.tries
	a.discover(s, j.request, now)
	if next := a.jobs[j.key]; next != nil {
		next.tries = tries
	}
}

// reply answers a job by what the book holds now.
func (a *agent) reply(j *job, now time.Duration) {
	s, e := a.segments[j.key.link], a.book.entries[j.address]
	a.finish(j)
	if s == nil || e == nil || e.Client != j.request.client {
		return
	}
	if j.kind == offered {
		a.offer(s, &j.request, j.address)
		return
	}
	if term := min(s.Lease, e.promised(a.run, now)); term >= time.Second {
		a.ack(s, &j.request, e, term)
	}
}

// tick does what is due by time alone.
func (a *agent) tick(now time.Duration) {
	a.book.lapse(now)
	a.placeChanged(now)
	a.unprobe(now)
}

// wake is when to look again, if nothing happens before.
func (a *agent) wake(now time.Duration) time.Duration {
	at := now + time.Minute
	if len(a.probes) > 0 {
		at = min(at, a.probes[0].until)
	}
	if a.writes.waits() && !a.writes.busy && a.writes.retryAt > now {
		at = min(at, a.writes.retryAt)
	}
	if len(a.book.ends) > 0 {
		at = min(at, a.book.ends[0].at)
	}
	return max(at, now)
}

// take returns what is to be done.
func (a *agent) take() output {
	out := a.out
	a.out = output{}
	return out
}
