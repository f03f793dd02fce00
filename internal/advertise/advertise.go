// Package advertise tells guests of IPv6 segments their router, their prefix,
// MTU and name servers by router advertisements (RFC 4861 §6.2, RFC 8106): each
// node its own guests, port by port, so that none crosses the fabric, and who
// has an elected gateway everybody. Guests configure their addresses themselves
// from that (RFC 4862).
package advertise

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"frond/internal/dataplane"
)

// RFC 4861 §6.2.1 and §10.
const (
	longestPause  = 600 * time.Second // MaxRtrAdvInterval
	shortestPause = 200 * time.Second // MinRtrAdvInterval
	initialPause  = 16 * time.Second  // MAX_INITIAL_RTR_ADVERT_INTERVAL
	initial       = 3                 // MAX_INITIAL_RTR_ADVERTISEMENTS
	// answerPause is how long after an answer on a port the next one comes at
	// the earliest, as MIN_DELAY_BETWEEN_RAS has it.
	answerPause = 3 * time.Second
	// everywherePause is the least that MaxRtrAdvInterval may be: questions of
	// other nodes' guests are not heard.
	everywherePause = 4 * time.Second
	// mostPorts bounds the ports whose last answer is remembered.
	mostPorts = 4096
)

// Wire is the guests' ports of the segments that are advertised on.
type Wire interface {
	// Solicitations are the frames by which guests of this node ask for
	// routers. It is never closed.
	Solicitations() <-chan dataplane.GuestFrame
	// Send sends a frame by a port, or by all guests' ports of the segment if
	// the port has no name. One that cannot be sent is as one that is lost.
	Send(port dataplane.LocalPort, frame []byte)
	// Flood sends a frame to all guests of a segment, those of other nodes too.
	Flood(vni uint32, frame []byte)
}

// Advertiser advertises on this node's segments.
type Advertiser struct {
	wire Wire
	log  *slog.Logger
	wake chan struct{} // capacity 1
	// farewells are answered by closing them, when all is said.
	farewells chan chan struct{}
	ended     chan struct{} // closed when Run ends

	mu       sync.Mutex
	segments []Segment
}

// New returns an advertiser that does nothing before Run.
func New(wire Wire, log *slog.Logger) *Advertiser {
	return &Advertiser{wire: wire, log: log, wake: make(chan struct{}, 1), farewells: make(chan chan struct{}), ended: make(chan struct{})}
}

// SetSegments replaces the segments that are advertised on.
func (a *Advertiser) SetSegments(segments []Segment) {
	a.mu.Lock()
	a.segments = segments
	a.mu.Unlock()
	select {
	case a.wake <- struct{}{}:
	default: // awake already
	}
}

// Withdraw tells guests that their routers are none any more, and returns when
// that is said.
func (a *Advertiser) Withdraw(ctx context.Context) error {
	said := make(chan struct{})
	select {
	case a.farewells <- said:
		<-said
		return nil
	case <-a.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("tell guests that their routers leave: %w", ctx.Err())
	}
}

// Run advertises until ctx ends. It leaves guests their router: the kernel
// goes on to be it.
func (a *Advertiser) Run(ctx context.Context) error {
	defer close(a.ended)
	s := schedule{turns: make(map[uint32]*turn), answered: make(map[dataplane.LocalPort]time.Time), between: between}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		a.carryOut(s.due(time.Now()))
		if at := s.next(); at.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(at))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-a.wake:
			a.mu.Lock()
			segments := a.segments
			a.mu.Unlock()
			a.carryOut(s.set(segments, time.Now()))
		case said := <-a.farewells:
			a.carryOut(s.set(nil, time.Now()))
			close(said)
		case f := <-a.wire.Solicitations():
			a.carryOut(s.asked(f, time.Now()))
		}
	}
}

func between(least, most time.Duration) time.Duration { return least + rand.N(most-least) }

func (a *Advertiser) carryOut(actions []action) {
	for _, act := range actions {
		frame, err := act.segment.advertisement(act.former, act.last)
		if err != nil {
			a.log.Error("cannot advertise the router", "error", err) // only a fault of ours
			continue
		}
		if act.segment.Everywhere && act.port == "" {
			a.wire.Flood(act.segment.VNI, frame)
			continue
		}
		a.wire.Send(dataplane.LocalPort{VNI: act.segment.VNI, Port: act.port}, frame)
	}
}
