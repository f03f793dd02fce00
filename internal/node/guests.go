package node

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"frond/internal/dataplane"
	"frond/internal/evpn"
	"frond/internal/fabric"
	"frond/internal/guest"
	"frond/internal/plan"
	"frond/internal/status"
)

// hypervisor is what is used of guest.Watcher.
type hypervisor interface {
	Set(guest.Desired)
	Events() <-chan guest.State
}

// guests is what the loop knows of the hypervisor's instances.
type guests struct {
	sockets []string   // where one may answer
	plan    *plan.Plan // that the hypervisor was told for
	state   guest.State
	names   map[dataplane.MAC]string
	changed bool                              // something that plugs follow from
	claimed map[claimed]plug                  // of segments here
	here    []guest.Plug                      // of all bridges
	given   map[dataplane.MACKey][]netip.Addr // by the hypervisor, to those of claimed
}

// claimed is a port as long as it is the same one: names are used again.
type claimed struct {
	port  string
	index int
}

// plug is an instance's interface behind a port of a segment's bridge.
type plug struct {
	vni      uint32
	mac      dataplane.MAC
	instance guest.Key
	held     bool // see dataplane.LocalPlace
}

func (p plug) key() dataplane.MACKey { return dataplane.MACKey{VNI: p.vni, MAC: p.mac} }

// hypervisorChanged takes what the hypervisor says of its instances.
func (l *loop) hypervisorChanged(s guest.State) {
	g := &l.guests
	g.state, g.changed, l.answering.instances.changed = s, true, true
	g.names = make(map[dataplane.MAC]string)
	for _, list := range [][]guest.Instance{s.Elsewhere, s.Instances} {
		for _, i := range list {
			for _, nic := range i.NICs {
				g.names[nic.MAC] = i.String()
			}
		}
	}
}

// applyGuests has the segments know an instance as soon as it is plugged in,
// before it has sent anything, and holds it there if the guard is on. Each is told
// once: after that, what other nodes hear of it counts as for every guest.
func (l *loop) applyGuests() {
	g := &l.guests
	if g.plan != l.plan {
		g.plan, g.changed = l.plan, true
		l.hypervisor.Set(desiredHypervisor(l.plan.Hypervisor, g.sockets))
	}
	if !g.changed {
		return
	}
	g.changed = false
	g.here = guest.Plugs(g.state.Instances, l.links)
	before, given := g.claimed, g.given
	g.claimed, g.given = make(map[claimed]plug), make(map[dataplane.MACKey][]netip.Addr)
	owners := make(map[dataplane.MACKey]guest.Key)
	for at, was := range before {
		switch link := l.links[at.port]; {
		case link.Index != at.index:
			// The kernel tells of ports that are gone, but it may have told of this
			// one before it was claimed.
			l.seen(dataplane.LocalPortsGone{{VNI: was.vni, Port: at.port}})
		case slices.ContainsFunc(l.segments.here, func(s dataplane.Segment) bool { return s.VNI == was.vni && s.Bridge == link.Master }):
			// What the hypervisor once said holds.
			g.claimed[at], g.given[was.key()], owners[was.key()] = was, given[was.key()], was.instance
		}
	}
	held := l.plan.Guard.Guests != nil
	for _, p := range l.byAge(g.here) {
		i := slices.IndexFunc(l.segments.here, func(s dataplane.Segment) bool { return s.Bridge == p.Bridge })
		if i < 0 {
			continue
		}
		at, is := claimed{p.Port, l.links[p.Port].Index}, plug{l.segments.here[i].VNI, p.NIC.MAC, p.Instance, held}
		if owner, taken := owners[is.key()]; taken && owner != p.Instance {
			continue // two instances with one MAC: it is whose it was first
		}
		owners[is.key()], g.claimed[at], g.given[is.key()] = p.Instance, is, p.NIC.Addresses
		if before[at] != is || !slices.Equal(given[is.key()], p.NIC.Addresses) {
			l.claim(at.port, is, p.NIC.Addresses)
		}
	}
}

// byAge has the ports that were made first come first: an instance whose port is
// made anew is behind the newest one.
func (l *loop) byAge(plugs []guest.Plug) []guest.Plug {
	return slices.SortedFunc(slices.Values(plugs), func(a, b guest.Plug) int { return l.links[a.Port].Index - l.links[b.Port].Index })
}

// claim tells the segment of an instance's interface and its addresses.
func (l *loop) claim(port string, p plug, addresses []netip.Addr) {
	l.seen(dataplane.LocalPlaces{{VNI: p.vni, MAC: p.mac, Port: port, Held: p.held}})
	var all dataplane.LocalAddresses
	for _, a := range addresses {
		all = append(all, dataplane.LocalAddress{VNI: p.vni, MAC: p.mac, IP: a, Port: port})
		l.guarded.grant(l.segmentName(p.vni), dataplane.GuestAddress{MAC: p.mac, IP: a})
	}
	if len(all) > 0 {
		l.seen(l.believe(all))
	}
}

// givenTo are the addresses that the hypervisor gives to a MAC, but for those that
// somebody else has.
func (l *loop) givenTo(key dataplane.MACKey) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(l.guests.given[key]), func(a netip.Addr) bool {
		holder, held := l.segments.stations.Holder(key.VNI, a)
		return held && holder.MAC != key.MAC && !l.leaves(holder, a)
	})
}

// leaves tells whether the station that has an address leaves it to others: it is
// silent, and nobody has given it that address for good.
func (l *loop) leaves(holder evpn.MACStatus, a netip.Addr) bool {
	return !holder.Silent.IsZero() && !slices.Contains(l.guests.given[dataplane.MACKey{VNI: holder.VNI, MAC: holder.MAC}], a)
}

// seen has the segments take in what the kernel's bridges have not seen.
func (l *loop) seen(event dataplane.OverlayEvent) {
	l.guarded.changed = true
	l.segments.stations.Observe(event)
}

// desiredHypervisor is where the document has one looked for.
func desiredHypervisor(h fabric.Hypervisor, sockets []string) guest.Desired {
	switch {
	case h.Off:
		return guest.Desired{}
	case h.Socket != "":
		return guest.Desired{Sockets: []string{h.Socket}, Expected: true}
	}
	return guest.Desired{Sockets: sockets}
}

// The conditions of the hypervisor.
const (
	hypervisorAway    = "hypervisor-away"    // what is known of instances may be out of date
	hypervisorCluster = "hypervisor-cluster" // what is known of those on other members may be
)

func (l *loop) judgeGuests() {
	s := l.guests.state
	var wrong []status.Condition
	add := func(problem string) {
		subject := s.Socket
		if subject == "" {
			subject = "hypervisor"
		}
		text := problem + "; its guests go on"
		if n := len(s.Instances); n > 0 {
			text += fmt.Sprintf(", and what is known of %d of its instances holds", n)
		}
		wrong = append(wrong, status.Condition{Name: hypervisorAway, Subject: subject, Severity: status.Warning, Text: text, Since: s.Since})
	}
	switch {
	case s.Contact == guest.Away:
		add("LXD or Incus does not answer as it should: " + s.Trouble)
	case s.Contact == guest.Absent && s.Expected:
		add("the document names the socket of LXD or Incus, and there is none on this node")
	case s.Contact == guest.Absent && len(s.Instances) > 0:
		add("the socket of LXD or Incus is gone")
	}
	if s.ClusterTrouble != "" && s.Contact == guest.Connected {
		wrong = append(wrong, status.Condition{Name: hypervisorCluster, Subject: s.Socket, Severity: status.Warning,
			Text: fmt.Sprintf("LXD or Incus does not tell of instances on other members of the cluster: %s; what they were called holds", s.ClusterTrouble)})
	}
	l.board.Replace([]string{hypervisorAway, hypervisorCluster}, wrong)
}

// Hypervisor returns what the hypervisor says of its instances here.
func (n *Node) Hypervisor() status.Hypervisor {
	h := status.Hypervisor{Instances: []status.Instance{}}
	n.ask(context.Background(), func(l *loop) { h = l.describeHypervisor() })
	return h
}

func (l *loop) describeHypervisor() status.Hypervisor {
	s := l.guests.state
	h := status.Hypervisor{
		Contact: string(s.Contact), Socket: s.Socket, Product: s.Server.Product, Version: s.Server.Version,
		Trouble: s.Trouble, ClusterTrouble: s.ClusterTrouble, Since: optional(s.Since), Instances: []status.Instance{},
	}
	if s.Server.Cluster {
		h.Member = s.Server.Member
	}
	for _, i := range s.Instances {
		described := status.Instance{Name: i.Name, Project: i.Project, Kind: i.Kind, State: i.State, NICs: []status.NIC{}}
		for _, nic := range i.NICs {
			described.NICs = append(described.NICs, l.describeNIC(i.Key, nic))
		}
		h.Instances = append(h.Instances, described)
	}
	return h
}

func (l *loop) describeNIC(instance guest.Key, nic guest.NIC) status.NIC {
	d := status.NIC{Device: nic.Device, MAC: nic.MAC.String(), Bridge: nic.Parent, IPs: []string{}}
	for _, p := range l.guests.here {
		if p.Instance == instance && p.NIC.Device == nic.Device {
			d.Port, d.Bridge = p.Port, p.Bridge
		}
	}
	for _, s := range l.segments.here {
		if s.Bridge != d.Bridge {
			continue
		}
		d.Segment = s.Name
		if d.Port == "" {
			break
		}
		for _, ip := range l.segments.stations.Addresses(s.VNI, nic.MAC) {
			d.IPs = append(d.IPs, ip.String())
		}
	}
	return d
}
