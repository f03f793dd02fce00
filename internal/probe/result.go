package probe

import (
	"fmt"
	"net/netip"
	"time"
)

// Result is what became of a probe's packets, a Flow per pair of ports and
// direction: even elements went from From to To, odd ones back.
type Result struct{ Flows []Flow }

// Flow is one direction of one pair of ports.
type Flow struct {
	Src, Dst   netip.AddrPort
	Sent, Lost uint64
	// Duplicated are packets that arrived once more, or when given up.
	Duplicated uint64
	// Outage is the longest time for which nothing got through, measured
	// from the first lost packet to the next that arrived; 0 if none was lost.
	Outage time.Duration
}

// Worst is the flow with the longest outage.
func (r Result) Worst() Flow {
	var worst Flow
	for i, f := range r.Flows {
		if i == 0 || f.Outage > worst.Outage {
			worst = f
		}
	}
	return worst
}

// Sent is the number of packets sent by all flows.
func (r Result) Sent() (n uint64) {
	for _, f := range r.Flows {
		n += f.Sent
	}
	return n
}

// Lost is the number of packets of all flows that never arrived.
func (r Result) Lost() (n uint64) {
	for _, f := range r.Flows {
		n += f.Lost
	}
	return n
}

func (f Flow) String() string {
	return fmt.Sprintf("%s → %s: %d sent, %d lost, %d duplicated, longest outage %.1f ms",
		f.Src, f.Dst, f.Sent, f.Lost, f.Duplicated, float64(f.Outage)/float64(time.Millisecond))
}
