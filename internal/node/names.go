package node

import (
	"net/netip"
	"reflect"
	"slices"

	"frond/internal/dataplane"
	"frond/internal/dhcp"
	"frond/internal/dns"
	"frond/internal/fabric"
	"frond/internal/guest"
	"frond/internal/plan"
	"frond/internal/status"
)

// nameServer is what is used of dns.Server.
type nameServer interface {
	Set(dns.Desired)
	Learn([]dns.Guest)
	Report() []dns.Problem
}

// answering is what answers to guests' questions follow from.
type answering struct {
	shape     shape
	links     bool // these have changed
	instances instanceNames
}

// instanceNames are what the hypervisor calls guests.
type instanceNames struct {
	changed bool
	all     []dns.Instance
	at      map[netip.Addr]struct{} // of all
}

// applyNames has guests' questions answered.
func (l *loop) applyNames() {
	a := &l.answering
	reshaped := l.reshaped(&a.shape)
	if reshaped || a.instances.changed {
		a.instances = l.nameInstances()
	} else if !a.links {
		return
	}
	a.links = false
	if d := l.naming(); !reflect.DeepEqual(d, l.told.names) {
		l.nameServer.Set(d)
		l.told.names = d
	}
}

// naming is the names of the whole fabric, and the segments whose guests are
// answered here.
func (l *loop) naming() dns.Desired {
	d := dns.Desired{Fabric: l.plan.Fabric, Instances: l.answering.instances.all}
	for _, s := range l.plan.Named() {
		for _, p := range []netip.Prefix{s.Prefix, s.Prefix6} {
			if p.IsValid() {
				d.Prefixes = append(d.Prefixes, p)
			}
		}
		d.Names = append(d.Names, dns.Name{Name: dns.GatewayName, Segment: s.Name, Addresses: s.Resolvers()})
		d.Names = append(d.Names, reservedNames(s)...)
	}
	for _, g := range l.plan.Guests() {
		i := slices.IndexFunc(l.segments.here, func(s dataplane.Segment) bool { return s.Name == g.Segment })
		if i < 0 || !g.Names {
			continue
		}
		if bridge, ok := l.links[l.segments.here[i].Bridge]; ok {
			d.Segments = append(d.Segments, answered(l.segments.here[i], g, bridge.Index))
		}
	}
	return d
}

// reservedNames are those of the guests that addresses are reserved for: all
// but the gateway's.
func reservedNames(s fabric.Segment) []dns.Name {
	var reserved []fabric.Reservation
	if s.DHCP != nil {
		reserved = s.DHCP.Reservations
	}
	if s.DHCP6 != nil {
		reserved = slices.Concat(reserved, s.DHCP6.Reservations)
	}
	var names []dns.Name
	for _, r := range reserved {
		if r.Name != dns.GatewayName {
			names = append(names, dns.Name{Name: r.Name, Segment: s.Name, Addresses: []netip.Addr{r.Address}})
		}
	}
	return names
}

// addressesChanged takes note of the addresses that stations have or have no more.
func (l *loop) addressesChanged(neighbors map[dataplane.NeighborKey]dataplane.MAC) {
	names := &l.answering.instances
	for key, mac := range neighbors {
		_, instance := l.guests.names[mac]
		_, was := names.at[key.IP]
		names.changed = names.changed || instance || was
	}
}

// nameInstances are the instances of the hypervisor on the segments here. Where
// those of several projects have one name, the default project comes first.
func (l *loop) nameInstances() instanceNames {
	names := instanceNames{at: make(map[netip.Addr]struct{})}
	instances := l.guests.state.Everywhere()
	for _, s := range l.plan.Named() {
		i := slices.IndexFunc(l.segments.here, func(here dataplane.Segment) bool { return here.Name == s.Name })
		if i < 0 {
			continue
		}
		here, taken := l.segments.here[i], make(map[string]guest.Key)
		for _, instance := range instances {
			for _, nic := range instance.NICs {
				own := slices.DeleteFunc(l.segments.stations.Addresses(here.VNI, nic.MAC), func(a netip.Addr) bool {
					return !s.Prefix.Contains(a) && !s.Prefix6.Contains(a)
				})
				of, other := taken[instance.Name]
				if nic.Parent != here.Bridge && len(own) == 0 || other && of != instance.Key {
					continue
				}
				taken[instance.Name] = instance.Key
				names.all = append(names.all, dns.Instance{Name: instance.Name, Segment: s.Name, Owner: nic.MAC.String(), Addresses: own})
				for _, a := range own {
					names.at[a] = struct{}{}
				}
			}
		}
	}
	return names
}

// named has guests be known by what they call themselves.
func (l *loop) named(clients []dhcp.Named) {
	guests := make([]dns.Guest, len(clients))
	for i, c := range clients {
		guests[i] = dns.Guest{Address: c.Address, Segment: c.Segment, Name: c.Name, Owner: c.MAC.String(), Since: c.Since}
	}
	l.nameServer.Learn(guests)
}

func answered(s dataplane.Segment, g plan.Guests, index int) dns.Segment {
	answered := dns.Segment{Name: s.Name, Bridge: s.Bridge, Index: index, Addresses: g.Resolvers, Forwarders: g.Forwarders}
	for _, p := range []netip.Prefix{s.Gateway.Address, s.Gateway.Address6} {
		if p.IsValid() {
			answered.Prefixes = append(answered.Prefixes, p.Masked())
		}
	}
	return answered
}

// The conditions of names.
const (
	namesNotHeard  = "dns-not-heard"       // guests' questions cannot be heard
	forwardersDead = "dns-forwarders-dead" // no name server outside answers
)

func (l *loop) judgeNames() {
	var wrong []status.Condition
	for _, p := range l.nameServer.Report() {
		c := status.Condition{Name: namesNotHeard, Subject: p.Segment, Severity: status.Failure, Text: p.Text, Since: p.Since}
		if p.Dead {
			c.Name = forwardersDead
		}
		wrong = append(wrong, c)
	}
	l.board.Replace([]string{namesNotHeard, forwardersDead}, wrong)
}
