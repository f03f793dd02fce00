package ra

import (
	"net/netip"
	"time"
)

// limiter keeps a flood on one port from Discovery's goroutine: each address
// is heard a few times a second, and few new ones, however many there are.
type limiter struct {
	known  map[source]time.Time // last passed on
	second time.Time            // in which fresh are counted
	fresh  int
}

// source is who sends what: a router that comes up solicits and advertises
// in one moment.
type source struct {
	addr         netip.Addr
	solicitation bool
}

const (
	knownGap  = 20 * time.Millisecond
	freshRate = 32 // new addresses per second
	knownSize = 64
)

// allow tells whether a message from s at now is passed on.
func (l *limiter) allow(s source, now time.Time) bool {
	if last, ok := l.known[s]; ok {
		if now.Sub(last) < knownGap {
			return false
		}
		l.known[s] = now
		return true
	}
	if now.Sub(l.second) >= time.Second {
		l.second, l.fresh = now, 0
	}
	if l.fresh++; l.fresh > freshRate {
		return false
	}
	if len(l.known) >= knownSize {
		clear(l.known)
	}
	l.known[s] = now
	return true
}
