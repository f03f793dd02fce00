package node

import (
	"context"
	"slices"
	"time"

	"frond/internal/dataplane"
	"frond/internal/plan"
)

// strictly is what a strict guard goes by.
type strictly struct {
	leases map[string][]dataplane.GuestAddress // by segment, as the rules have them
	since  time.Time                           // when the leases were first waited for; zero: never
}

// strictPatience is how long after its start the agent waits for the leases, the
// rules of the run before being in force. Then it guards as if not strict: guests
// that cannot speak at all would be worse.
const strictPatience = 30 * time.Second

// strict tells whether guests here speak only from addresses that they were given.
func (l *loop) strict() bool {
	return l.plan.Guard.Guests != nil && l.plan.Guard.Guests.Strict()
}

// waited is since when the leases are waited for.
func (s *strictly) waited(now time.Time) time.Time {
	if s.since.IsZero() {
		s.since = now
	}
	return s.since
}

// grant has a lease of now be one of those that the guard goes by, which are read
// anew later.
func (s *strictly) grant(segment string, a dataplane.GuestAddress) {
	if _, known := s.leases[segment]; known {
		s.leases[segment] = append(s.leases[segment], a)
	}
}

// granted are the leases of guests and what the hypervisor gives them, by segment: with an entry for each segment
// that there are leases of, and nil while nothing is known of them.
func (l *loop) granted() map[string][]dataplane.GuestAddress {
	all := make(map[string][]dataplane.GuestAddress)
	for _, s := range l.segments.here {
		all[s.Name] = []dataplane.GuestAddress{}
	}
	for key, addresses := range l.guests.given {
		for _, a := range addresses {
			all[l.segmentName(key.VNI)] = append(all[l.segmentName(key.VNI)], dataplane.GuestAddress{MAC: key.MAC, IP: a})
		}
	}
	gives := func(d plan.DHCP) bool { return len(d.Ranges)+len(d.Reservations) > 0 } // else it only informs, and needs no store
	if !slices.ContainsFunc(l.plan.DHCP(l.portMTU()), gives) {
		return all
	}
	if !l.addresses.Report().Synced {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	leases := l.addresses.Leases(ctx, "")
	if ctx.Err() != nil {
		return l.guarded.leases // as they were
	}
	for _, lease := range leases {
		// One whose end has passed is its client's as long as nobody else gets
		// it: while the store is away it is renewed without being written down,
		// and clocks of nodes may differ.
		if lease.State == "leased" || lease.State == "offered" || lease.State == "ended" && lease.Kept > 0 {
			all[lease.Segment] = append(all[lease.Segment], dataplane.GuestAddress{MAC: lease.MAC, IP: lease.Address})
		}
	}
	return all
}
