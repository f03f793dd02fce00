// Package probe sends traffic between network namespaces and measures what
// becomes of it: outages and losses of UDP flows, who reaches whom, and TCP
// bandwidth. It needs no other program.
package probe

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"frond/internal/netns"
)

// Config says what a Probe sends.
type Config struct {
	From, To         *netns.NS
	FromAddr, ToAddr netip.Addr // of the same family, each an address of its namespace
	// Flows is how many pairs of ports there are. Each is a flow of its own
	// to whatever hashes by port, so that several use all equal paths.
	Flows int
	// Rate is packets per second of each flow in each direction, at most MaxRate.
	Rate int
	// Echo has To send back each packet to where it seems to come from,
	// instead of packets of its own: for what is behind source NAT.
	Echo bool
}

// The limits of a Config.
const (
	MaxFlows = 256
	MaxRate  = 10_000
)

const (
	// stragglers is how long a packet may be under way after the last was sent.
	stragglers = 300 * time.Millisecond
	// catchUp is how far sending may lag behind its schedule before the
	// schedule is moved instead: packets not sent are not lost.
	catchUp    = 100 * time.Millisecond
	socketBuf  = 4 << 20
	packetSize = 32 // probe id, sequence number, time sent (ns); 8 bytes each, then padding
)

// Probe is traffic that flows until it is stopped.
type Probe struct {
	cancel context.CancelFunc
	done   chan struct{}
	result Result // written by run before done is closed
}

// Start opens the sockets and starts sending, in both directions. The probe
// ends with ctx or at Stop, and Stop must be called in any case.
func Start(ctx context.Context, cfg Config) (*Probe, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	directions, err := openFlows(cfg, binary.LittleEndian.Uint64(id[:]))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &Probe{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		defer closeFlows(directions)
		p.result = run(ctx, directions, time.Second/time.Duration(cfg.Rate))
	}()
	return p, nil
}

// Stop ends the sending, waits for what is still under way, and tells what
// happened. Further calls return the same.
func (p *Probe) Stop() Result {
	p.cancel()
	<-p.done
	return p.result
}

func (c Config) check() error {
	switch {
	case c.From == nil || c.To == nil:
		return errors.New("probe: two namespaces are needed")
	case !c.FromAddr.IsValid() || c.FromAddr.Is4() != c.ToAddr.Is4() || !c.ToAddr.IsValid():
		return fmt.Errorf("probe: %s and %s: want two addresses of one family", c.FromAddr, c.ToAddr)
	case c.Flows < 1 || c.Flows > MaxFlows:
		return fmt.Errorf("probe: %d flows: want 1 to %d", c.Flows, MaxFlows)
	case c.Rate < 1 || c.Rate > MaxRate:
		return fmt.Errorf("probe: %d packets/s: want 1 to %d", c.Rate, MaxRate)
	}
	return nil
}

// run owns the flows: one thread sends and receives all of them, by the
// clock. Times are taken by the sender, so when a packet is read does not matter.
func run(ctx context.Context, flows []*flow, interval time.Duration) Result {
	next := monotonic()
	for ctx.Err() == nil {
		for _, f := range flows {
			f.send(monotonic())
		}
		receive(flows)
		next += interval
		if now := monotonic(); now-next > catchUp {
			next = now
		}
		sleepUntil(next)
	}
	for deadline := monotonic() + stragglers; monotonic() < deadline && !complete(flows); {
		sleepUntil(monotonic() + time.Millisecond)
		receive(flows)
	}
	result := Result{Flows: make([]Flow, len(flows))}
	for i, f := range flows {
		result.Flows[i] = f.result()
	}
	return result
}

func receive(flows []*flow) {
	for _, f := range flows {
		f.receive()
	}
}

func complete(flows []*flow) bool {
	for _, f := range flows {
		if !f.tally.complete() {
			return false
		}
	}
	return true
}

// monotonic is CLOCK_MONOTONIC, the clock that sleepUntil wakes by.
func monotonic() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// sleepUntil sleeps to an absolute time: the runtime's own timers are a
// millisecond coarse when the process is idle.
func sleepUntil(t time.Duration) {
	ts := unix.NsecToTimespec(int64(t))
	for unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil) == unix.EINTR {
	}
}
