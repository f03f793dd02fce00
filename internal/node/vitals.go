package node

import (
	"context"

	"frond/internal/dataplane"
	"frond/internal/dhcp"
	"frond/internal/status"
	"frond/internal/store"
)

// Vitals is all that metrics are made of.
func (n *Node) Vitals() status.Vitals {
	v := status.Vitals{Status: n.Status(), Segments: n.Segments(), Gateways: n.Gateways(), Guard: n.Guard()}
	n.ask(context.Background(), func(l *loop) {
		v.Kernel = l.refusedByKernel()
		v.Store = describeStore(l.store.Report())
		if len(l.leases.told) > 0 {
			v.DHCP = describeDHCP(l.addresses.Report())
		}
	})
	return v
}

// refusedByKernel counts what the kernel refused, by part.
func (l *loop) refusedByKernel() map[string]int {
	count := func(problems []dataplane.Problem) (sum int) {
		for _, p := range problems {
			sum += p.Count
		}
		return sum
	}
	refused := map[string]int{"routes": count(l.plane.Report().Problems), "segments": count(l.overlay.Report().Problems), "nat": 0, "guard": 0}
	if problem, _ := l.nat.Problem(); problem != "" {
		refused["nat"] = 1
	}
	if problem, _ := l.guard.Problem(); problem != "" {
		refused["guard"] = 1
	}
	return refused
}

func describeStore(r store.ServiceReport) *status.Store {
	if r.Health == nil {
		return nil
	}
	s := &status.Store{Majority: r.Health.Majority}
	for _, m := range r.Health.Members {
		s.Members = append(s.Members, status.StoreMember{Name: m.Name, Answers: m.Answers, Leader: m.Leader, Bytes: m.Bytes})
	}
	return s
}

func describeDHCP(r dhcp.Report) status.DHCP {
	c := r.Counts
	d := status.DHCP{
		Waiting: r.Waiting,
		Pending: r.Unwritten,
		Messages: map[string]uint64{
			"discover": c.Discovers, "request": c.Requests, "decline": c.Declines, "release": c.Releases, "inform": c.Informs,
			"ack": c.Acks, "nak": c.Naks,
		},
		Failures: map[string]uint64{
			"malformed": c.Malformed, "posed": c.Posed, "dropped": c.Dropped, "exhausted": c.Exhausted, "port-limit": c.Crowded, "conflict": c.Conflicts,
		},
	}
	for _, p := range r.Pools {
		d.Pools = append(d.Pools, status.Pool(p))
	}
	return d
}
