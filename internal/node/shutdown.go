package node

import (
	"context"
	"errors"
	"time"

	"frond/internal/bgp"
)

// How long peers have to move their traffic away before this node leaves
// (RFC 8326 §4), and how long the leaving itself may take.
const (
	drainTime = time.Second
	leaveTime = 20 * time.Second
)

// beginLeaving asks peers to move traffic away while routes still work. Where
// there is none, nothing has to be waited for.
func (l *loop) beginLeaving() {
	if !l.leaving.IsZero() {
		return
	}
	l.handOver()
	l.leaving = time.Now()
	for _, peer := range l.peers {
		if peer.State == bgp.Established {
			l.leaving = time.Now().Add(drainTime)
		}
	}
	l.log.Info("leaving the fabric", "drain", time.Until(l.leaving).Round(time.Millisecond))
}

// leave takes away all that is frond's, after BGP has said goodbye: guests'
// routers, then BFD, so that no peer takes what follows for a failure, then the
// kernel's part.
func (p parts) leave() error {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	return errors.Join(p.advertiser.Withdraw(ctx), p.liveness.Stop(ctx), p.overlay.Withdraw(ctx), p.plane.Withdraw(ctx),
		p.nat.Withdraw(ctx), p.guard.Withdraw(ctx), p.requests.Withdraw(ctx))
}
