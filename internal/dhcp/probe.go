package dhcp

import (
	"net/netip"
	"time"

	"frond/internal/dataplane"
)

// probe asks on all ports of the segment whether somebody has the address
// (RFC 2131 §3.1 2, RFC 5227 §2.1.1).
func (a *agent) probe(j *job, now time.Duration) {
	s := a.segments[j.key.link]
	if s == nil {
		a.finish(j)
		return
	}
	j.until = now + probeTime
	a.probes = append(a.probes, j)
	a.probed[dataplane.NeighborKey{VNI: s.VNI, IP: j.address}] = j
	a.out.frames = append(a.out.frames, Sending{
		Port: dataplane.LocalPort{VNI: s.VNI}, Frame: arpProbe(s.MAC, j.address),
	})
}

// unprobe answers those whose addresses nobody has claimed in time.
func (a *agent) unprobe(now time.Duration) {
	n := 0
	for ; n < len(a.probes) && a.probes[n].until <= now; n++ {
		if j := a.probes[n]; a.jobs[j.key] == j {
			a.reply(j, now)
		}
	}
	a.probes = a.probes[n:]
}

// claimed takes in that a guest answers for an address that is probed: it is
// set aside, and the client gets another one. A client that answers for the
// address itself knows it already.
func (a *agent) claimed(port dataplane.LocalPort, mac dataplane.MAC, address netip.Addr, now time.Duration) {
	j := a.probed[dataplane.NeighborKey{VNI: port.VNI, IP: address}]
	s := a.segments[link{vni: port.VNI}]
	if j == nil || s == nil || mac == j.request.mac {
		return
	}
	if a.crowded(s, port, "", address) {
		a.turnAway(s, port, now) // it claims too much to be believed
		return
	}
	a.counts.Conflicts++
	a.setAside(s, address, mac, port, now)
	a.again(s, j, now)
}

// setAside has nobody get an address that somebody has without a lease.
func (a *agent) setAside(s *segment, address netip.Addr, mac dataplane.MAC, port dataplane.LocalPort, now time.Duration) {
	e := a.book.entries[address]
	if e == nil || a.writes.pending[address] != nil {
		return
	}
	e.surrendered = true
	l := lease{Segment: s.Name, MAC: mac, Kind: declined, Port: port.Port, Hold: declineHold, Moved: e.Moved || e.Node != a.node}
	if l.Moved {
		l.Hold = max(l.Hold, e.keep(a.run, now))
	}
	a.write(address, e, l, nil, now)
}
