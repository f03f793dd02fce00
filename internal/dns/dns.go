// Package dns answers guests' questions on their gateway's address: for the
// names of guests, NAME.SEGMENT.FABRIC and back, by itself (RFC 1035,
// RFC 2308), for all others by asking the name servers that the document
// names (a forwarder of RFC 5625).
//
// It serves guests and nobody else: sockets are bound to the segment's bridge,
// so that no packet from elsewhere comes in, and to the gateway's address
// whether this node has it or not, so that an elected gateway takes its
// resolver with it.
package dns

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Desired is all that guests are to be answered.
type Desired struct {
	Fabric   string         // the last label of every name
	Prefixes []netip.Prefix // that this fabric alone knows names of addresses in
	Segments []Segment      // whose guests are answered here
	Names    []Name
	// Instances are named by their hypervisor.
	Instances []Instance
}

// Segment is one whose guests are answered.
type Segment struct {
	Name       string
	Bridge     string
	Index      int            // of the bridge
	Addresses  []netip.Addr   // the gateway's, on which questions are heard
	Prefixes   []netip.Prefix // that guests ask from
	Forwarders []netip.Addr   // that are asked what is not known here, the first first
}

// Name is what the document calls a guest. Several of one name share it.
type Name struct {
	Name      string // one label; what is none is nobody's
	Segment   string
	Addresses []netip.Addr
}

// Problem is something that guests feel.
type Problem struct {
	Segment string
	Text    string
	Since   time.Time
	Dead    bool // no forwarder answers; otherwise it cannot be listened
}

// retryInterval is after how long sockets that could not be opened are tried
// again.
const retryInterval = 2 * time.Second

// Server answers questions.
type Server struct {
	log   *slog.Logger
	zone  atomic.Pointer[zone]
	named *guests
	pool  *pool
	gate  *gate
	wake  chan struct{}
	enter func(func() error) error // runs where sockets are opened

	mu       sync.Mutex
	desired  Desired
	problems map[endpoint]Problem // of sockets
}

// New makes a Server that does nothing until Run.
func New(log *slog.Logger) *Server {
	s := &Server{
		log:      log,
		named:    newGuests(),
		gate:     newGate(maxQueries, maxQueriesOfOne),
		wake:     make(chan struct{}, 1),
		enter:    func(f func() error) error { return f() },
		problems: make(map[endpoint]Problem),
	}
	s.pool = newPool(s.dial)
	s.zone.Store(newZone(Desired{}, s.named))
	return s
}

// Set hands over the whole of what is wanted. Names are in force at once.
func (s *Server) Set(d Desired) {
	s.zone.Store(newZone(d, s.named))
	s.mu.Lock()
	s.desired = d
	s.mu.Unlock()
	s.signal()
}

// Learn tells what guests call themselves, as changes. They are in force at once.
func (s *Server) Learn(changes []Guest) { s.named.learn(changes) }

func (s *Server) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run answers until ctx ends, and may be called once.
func (s *Server) Run(ctx context.Context) error {
	running := make(map[endpoint]*listener)
	defer func() {
		for _, l := range running {
			l.stop()
		}
	}()
	retry := time.NewTimer(retryInterval)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-retry.C:
		}
		if s.apply(ctx, running) {
			retry.Reset(retryInterval)
		}
	}
}

// endpoint is where questions are heard.
type endpoint struct {
	segment string
	bridge  string
	index   int
	address netip.Addr
}

// apply brings sockets into line with what is wanted. It tells whether some
// are to be tried again.
func (s *Server) apply(ctx context.Context, running map[endpoint]*listener) (again bool) {
	s.mu.Lock()
	segments := s.desired.Segments
	s.mu.Unlock()
	wanted := make(map[endpoint]Segment)
	var lists [][]netip.Addr
	for _, segment := range segments {
		for _, a := range segment.Addresses {
			wanted[endpoint{segment.Name, segment.Bridge, segment.Index, a}] = segment
		}
		lists = append(lists, segment.Forwarders)
	}
	s.pool.keep(lists)
	for e, l := range running {
		segment, ok := wanted[e]
		if ok && l.err() == nil {
			l.segment.Store(&segment)
			continue
		}
		l.stop()
		delete(running, e)
	}
	problems := make(map[endpoint]error)
	for e, segment := range wanted {
		if running[e] != nil {
			continue
		}
		l, err := s.listen(ctx, e, segment)
		if err != nil {
			problems[e] = err
			continue
		}
		running[e] = l
	}
	s.note(problems)
	return len(problems) > 0
}

// note keeps what is wrong with sockets, and says what is new of it.
func (s *Server) note(now map[endpoint]error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.problems
	s.problems = make(map[endpoint]Problem)
	for e, err := range now {
		p := Problem{Segment: e.segment, Since: time.Now(), Text: fmt.Sprintf("guests' questions cannot be heard on %s of %s: %v", e.address, e.bridge, err)}
		if old, ok := before[e]; ok {
			p.Since = old.Since
		} else {
			s.log.Warn("guests are not answered", "segment", e.segment, "address", e.address, "error", err)
		}
		s.problems[e] = p
	}
}

// Report returns what is wrong.
func (s *Server) Report() []Problem {
	s.mu.Lock()
	problems := make([]Problem, 0, len(s.problems))
	for _, p := range s.problems {
		problems = append(problems, p)
	}
	segments := s.desired.Segments
	s.mu.Unlock()
	for _, segment := range segments {
		if since, dead := s.pool.dead(segment.Forwarders, time.Now()); dead {
			problems = append(problems, Problem{Segment: segment.Name, Since: since, Dead: true,
				Text: fmt.Sprintf("none of the segment's name servers answers: %v", segment.Forwarders)})
		}
	}
	slices.SortFunc(problems, func(a, b Problem) int { return a.Since.Compare(b.Since) })
	return problems
}
