package node

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"frond/internal/dataplane"
	"frond/internal/dhcp"
	"frond/internal/fabric"
	"frond/internal/plan"
	"frond/internal/status"
)

// guestAddresses is what is used of dhcp.Server.
type guestAddresses interface {
	SetSegments([]dhcp.Segment)
	Observe(map[dataplane.NeighborKey]dataplane.MAC)
	Kept() <-chan []dataplane.LocalAddress
	Bound() <-chan []dataplane.LocalAddress
	Named() <-chan []dhcp.Named
	Report() dhcp.Report
	Leases(ctx context.Context, segment string) []dhcp.Lease
	Release(ctx context.Context, address netip.Addr) error
}

// requestKeeper is what is used of dataplane.Requests.
type requestKeeper interface {
	Set([]dataplane.Segment)
	Problem() (string, time.Time)
	Withdraw(context.Context) error
}

// leases is what the loop knows of guests' addresses.
type leases struct {
	shape shape // that the rest is of
	told  []dhcp.Segment
}

// requestsCross is the condition that the node cannot keep its guests' requests.
const requestsCross = "dhcp-requests-cross"

var dhcpConditions = []string{dhcp.ConditionPool, dhcp.ConditionAway, dhcp.ConditionCrowded, requestsCross}

// applyDHCP has guests answered as the document says.
func (l *loop) applyDHCP() {
	if l.reshaped(&l.leases.shape) {
		if answered := dhcpSegments(l.plan, l.leases.shape.portMTU); !reflect.DeepEqual(answered, l.leases.told) {
			l.leases.told = answered
			l.addresses.SetSegments(answered)
		}
		asking := slices.DeleteFunc(slices.Clone(l.segments.here), func(s dataplane.Segment) bool { return !s.DHCP && !s.DHCP6 })
		l.requests.Set(asking)
	}
}

// dhcpSegments are the plan's in the words of package dhcp.
func dhcpSegments(p *plan.Plan, portMTU int) []dhcp.Segment {
	all := []dhcp.Segment{}
	for _, d := range p.DHCP(portMTU) {
		s := dhcp.Segment{
			Name: d.Segment, VNI: d.VNI, Prefix: d.Prefix, Server: d.Server, MAC: d.MAC, MTU: d.MTU, Router: d.Router,
			Lease: d.Lease, Grace: d.Grace, DNS: d.Resolvers, Search: d.Search, NTP: d.NTP,
			PortLimit: d.PortLimit, BootFile: d.BootFile, NextServer: d.NextServer,
		}
		for _, r := range d.Ranges {
			s.Ranges = append(s.Ranges, dhcp.Range(r))
		}
		for _, r := range d.Routes {
			s.Routes = append(s.Routes, dhcp.Route{Prefix: r.To, Via: r.Via})
		}
		for _, r := range d.Reservations {
			s.Reservations = append(s.Reservations, dhcp.Reservation{Client: clientOf(r), Address: r.Address, Hostname: r.Name})
		}
		all = append(all, s)
	}
	return all
}

// clientOf is whom an address is reserved for; the document is valid.
func clientOf(r fabric.Reservation) (c dhcp.Client) {
	if mac, err := dataplane.ParseMAC(r.MAC); err == nil {
		return dhcp.ClientOf(mac)
	}
	_ = c.UnmarshalText([]byte(r.ClientID))
	return c
}

// kept takes in which addresses guests of this node are about to be given: rules
// that let each speak from its own alone have to be there by then.
func (l *loop) kept(addresses []dataplane.LocalAddress) {
	if !l.strict() {
		return
	}
	for _, a := range addresses {
		l.guarded.grant(l.segmentName(a.VNI), dataplane.GuestAddress{MAC: a.MAC, IP: a.IP})
	}
	l.guarded.changed = true
}

// leased takes in which addresses guests of this node were given: they are
// known from then on, before the guest has said a word by them. A lease takes
// no address from a guest that is there and has it, whether the guard is on or
// not: that one is found out by a conflict, and not cut off.
func (l *loop) leased(bound []dataplane.LocalAddress) {
	for _, a := range bound {
		l.guarded.grant(l.segmentName(a.VNI), dataplane.GuestAddress{MAC: a.MAC, IP: a.IP})
	}
	l.overlayChanged(dataplane.LocalAddresses(slices.DeleteFunc(bound, func(a dataplane.LocalAddress) bool {
		holder, held := l.segments.stations.Holder(a.VNI, a.IP)
		return held && holder.MAC != a.MAC && !l.leaves(holder, a.IP)
	})))
}

// judgeDHCP puts on the board what is wrong with guests' addresses.
func (l *loop) judgeDHCP(now time.Time) {
	if len(l.leases.told) == 0 {
		l.board.Replace(dhcpConditions, nil)
		return
	}
	wrong := slices.DeleteFunc(slices.Clone(l.addresses.Report().Conditions), func(c status.Condition) bool {
		return c.Name == dhcp.ConditionAway && now.Sub(l.store.Report().Since) < storeGrace
	})
	if text, since := l.requests.Problem(); text != "" {
		wrong = append(wrong, status.Condition{Name: requestsCross, Subject: "dhcp", Severity: status.Warning, Text: text, Since: since})
	}
	l.board.Replace(dhcpConditions, wrong)
}

// Leases returns the leases of a segment, or of all segments for the empty name.
func (n *Node) Leases(ctx context.Context, segment string) []status.Lease {
	var names map[dataplane.MAC]string // which is never changed
	n.ask(ctx, func(l *loop) { names = l.guests.names })
	var all []status.Lease
	for _, lease := range n.addresses.Leases(ctx, segment) {
		all = append(all, status.Lease{
			Name:    names[lease.MAC],
			Segment: lease.Segment, Address: lease.Address.String(), Client: lease.Client.String(), MAC: lease.MAC.String(),
			Hostname: lease.Hostname, State: lease.State, Node: lease.Node, Port: lease.Port,
			Since: optional(lease.Since), Ends: optional(lease.Ends), KeptSeconds: lease.Kept.Seconds(),
		})
	}
	return all
}

// Release ends the lease of an address that this node has given.
func (n *Node) Release(ctx context.Context, address netip.Addr) error {
	return n.addresses.Release(ctx, address)
}
