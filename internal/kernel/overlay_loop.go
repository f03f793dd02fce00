package kernel

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"frond/internal/dataplane"

	"golang.org/x/sys/unix"
)

// A bridge without spanning tree forwards a broadcast for ever when two of its
// ports lead to each other, by a cable or by a guest that is a bridge itself.
// What gives a loop away is a cable that is plugged in, or MACs that move from
// port to port. Then, and only then, those ports are sent probes; where one
// comes back, one of the two is taken out of forwarding. It goes on to be
// probed, and comes back once nothing was heard for a while.
const (
	loopInterval = 20 * time.Millisecond  // between probes; in a storm most are lost
	loopPatience = 2 * time.Second        // for a probe to come back, since a port was last suspected
	loopRepeat   = 200 * time.Millisecond // between attempts to block a port
	loopFlushes  = 2                      // of them that have the bridge forget: frames are still under way at the first
	loopRelease  = 3 * time.Second        // since the last one that came back
	maxSuspects  = 64                     // ports that are probed at a time
)

// loopGuard finds loops and opens them. It belongs to the goroutine of run;
// others tell it by suspicions, which never block.
type loopGuard struct {
	watch      *OverlayWatch
	suspicions chan uint32 // indexes of ports
	heard      chan loopProbe
	nonce      [8]byte // of this process's probes
	suspects   map[uint32]*suspect
}

// suspect is a port that is probed.
type suspect struct {
	link    guestLink
	socket  *probeSocket
	until   time.Time // suspected until then
	echo    time.Time // when a probe last came back that blocks it
	blocked bool
	flushes int       // that are left
	applied time.Time // when the kernel was last told to block it
}

// guestLink is a port of a segment's bridge as the guard needs it.
type guestLink struct {
	dataplane.LocalPort
	index  uint32
	bridge dataplane.MAC
	vxlan  dataplane.MAC
	// blocked: the kernel shows it as taken out of forwarding by frond.
	blocked bool
}

func newLoopGuard(w *OverlayWatch) *loopGuard {
	g := &loopGuard{
		watch:      w,
		suspicions: make(chan uint32, maxSuspects),
		heard:      make(chan loopProbe, maxSuspects),
		suspects:   make(map[uint32]*suspect),
	}
	_, _ = rand.Read(g.nonce[:]) // never fails
	return g
}

// suspect tells that a port may loop.
func (g *loopGuard) suspect(index uint32) {
	select {
	case g.suspicions <- index:
	default: // there is enough to do
	}
}

func (g *loopGuard) run(ctx context.Context) {
	ticker := time.NewTicker(loopInterval)
	ticker.Stop()
	defer ticker.Stop()
	defer func() {
		for _, s := range g.suspects {
			s.socket.close()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case index := <-g.suspicions:
			if len(g.suspects) == 0 {
				ticker.Reset(loopInterval)
			}
			g.begin(index, time.Now())
		case probe := <-g.heard:
			g.echoed(probe, time.Now())
		case now := <-ticker.C:
			g.tick(now)
			if len(g.suspects) == 0 {
				ticker.Stop()
			}
		}
	}
}

// begin probes a port for some time.
func (g *loopGuard) begin(index uint32, now time.Time) {
	if s, already := g.suspects[index]; already {
		s.until = now.Add(loopPatience)
		return
	}
	link, ok := g.watch.guestLink(index)
	if !ok || len(g.suspects) == maxSuspects {
		return
	}
	socket, err := g.watch.openProbe(index, g.nonce, g.heard)
	if err != nil {
		if !errors.Is(err, unix.ENODEV) {
			g.watch.kernel.log.Warn("cannot look for a loop", "port", link.Port, "error", err)
		}
		return
	}
	s := &suspect{link: link, socket: socket, until: now.Add(loopPatience), flushes: loopFlushes}
	g.suspects[index] = s
	if link.blocked { // by the run before: any port may be the other one
		s.blocked, s.echo = true, now
		for _, other := range g.watch.portsOf(link.VNI) {
			g.begin(other, now)
		}
	}
}

// echoed takes in a probe. Of the two ports of a loop, that with the higher
// index is blocked, whichever heard the other, so that one of them stays.
func (g *loopGuard) echoed(probe loopProbe, now time.Time) {
	port, other := g.suspects[max(probe.to, probe.from)], g.suspects[min(probe.to, probe.from)]
	if port == nil || other == nil || port.link.VNI != other.link.VNI {
		return
	}
	port.echo = now
	other.until = now.Add(loopRelease + loopPatience)
	port.until = other.until
	if now.Sub(port.applied) < loopRepeat {
		return
	}
	// Again from time to time: a port that goes down and up is forwarding.
	port.applied = now
	if err := g.watch.block(port.link.index); err != nil {
		g.watch.kernel.log.Warn("cannot take a looping port out of forwarding", "port", port.link.Port, "error", err)
		return
	}
	port.blocked = true
	if port.flushes == loopFlushes {
		g.watch.kernel.log.Warn("two ports lead to each other: one is taken out of forwarding", "port", port.link.Port, "other", other.link.Port)
	}
	if port.flushes > 0 {
		port.flushes--
		g.watch.looped(port.link, other.link)
	}
}

// tick probes, and ends what is over.
func (g *loopGuard) tick(now time.Time) {
	for index, s := range g.suspects {
		gone := !g.watch.hasPort(s.link)
		if s.blocked && !gone && now.Sub(s.echo) >= loopRelease {
			g.release(s)
		}
		if gone || !s.blocked && now.After(s.until) {
			s.socket.close()
			delete(g.suspects, index)
			continue
		}
		s.socket.send(s.link.bridge, s.link.vxlan)
	}
}

// release lets a port forward again. Should that be too early, MACs will move.
func (g *loopGuard) release(s *suspect) {
	if err := g.watch.unblock(s.link.index); err != nil {
		g.watch.kernel.log.Warn("cannot let a port forward again", "port", s.link.Port, "error", err)
		s.echo = time.Now() // and try again
		return
	}
	s.blocked, s.flushes = false, loopFlushes
	g.watch.kernel.log.Info("a loop is gone: its port forwards again", "port", s.link.Port)
	g.watch.unlooped(s.link)
}
