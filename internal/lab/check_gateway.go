package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"frond/internal/fabric"
	"frond/internal/netns"
	"frond/internal/probe"
)

// GatewayProof is what a check found of a segment's gateway.
type GatewayProof struct {
	Mode string `json:"mode"`
	// Holders are the nodes whose kernels have its address.
	Holders []string `json:"holders"`

	Rounds   int `json:"rounds"`   // guests, each with every place outside of the segment
	Answered int `json:"answered"` // of these

	// Hairpins are frames to or from the gateway that crossed the fabric
	// meanwhile: of an anycast one there must be none.
	Hairpins int `json:"hairpins"`
}

// gateway checks that every guest gets out by the segment's gateway, and that
// this is where it should be.
func (s *segmentChecker) gateway(ctx context.Context) error {
	if s.segment.Gateway == nil || !s.segment.Gateway.Address.IsValid() {
		return nil
	}
	s.found.Gateway = &GatewayProof{Mode: string(s.segment.Gateway.Mode), Holders: []string{}}
	outside, err := s.outside()
	if err != nil {
		return err
	}
	defer closeHosts(outside)
	deadline, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	tick := time.NewTicker(askInterval)
	defer tick.Stop()
	for {
		wrong, err := s.wrongGateway(deadline, outside)
		if err != nil {
			return err
		}
		if len(wrong) == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-deadline.Done():
			s.proof.Failures = append(s.proof.Failures, wrong...)
			return ctx.Err()
		}
	}
}

// outside are the places that guests should reach: a guest of each other
// segment with a gateway, a node, and what is behind the exits.
func (s *segmentChecker) outside() (hosts []probe.Host, err error) {
	add := func(name, namespace string, addr netip.Addr) error {
		ns, err := netns.Open(namespace)
		if err == nil {
			hosts = append(hosts, probe.Host{Name: name, NS: ns, Addr: addr})
		}
		return err
	}
	f, err := s.lab.Fabric()
	if err != nil {
		return nil, err
	}
	island := s.island(s.guests[0].Node)
	for _, other := range f.Segments {
		i := slices.IndexFunc(s.lab.Topology.Guests, func(g Guest) bool { return g.Segment == other.Name && s.island(g.Node) == island })
		if other.Name == s.segment.Name || other.Gateway == nil || i < 0 {
			continue
		}
		g := s.lab.Topology.Guests[i]
		err = errors.Join(err, add(g.Name, namespace(s.lab.Name, g.Name), g.Address.Addr()))
	}
	i := slices.IndexFunc(s.nodes, func(n checked) bool { return s.island(n.Name) == island })
	node := s.nodes[i].Node
	err = errors.Join(err, add(node.Name, namespace(s.lab.Name, node.Name), node.Loopback))
	if s.waysOut(f)[0] {
		err = errors.Join(err, add(Internet, namespace(s.lab.Name, Internet), FarAway()[0]))
	}
	if err != nil {
		closeHosts(hosts)
		return nil, err
	}
	return hosts, nil
}

func closeHosts(hosts []probe.Host) {
	for _, h := range hosts {
		_ = h.NS.Close()
	}
}

// wrongGateway looks once and names what is wrong.
func (s *segmentChecker) wrongGateway(ctx context.Context, outside []probe.Host) (wrong []string, err error) {
	found := s.found.Gateway
	if found.Holders, err = s.holders(); err != nil {
		return nil, err
	}
	if text := s.wrongHolders(found.Holders); text != "" {
		wrong = append(wrong, text)
	}
	rounds, hairpins, err := s.goOut(ctx, outside)
	if err != nil {
		return nil, err
	}
	found.Rounds, found.Answered, found.Hairpins = len(rounds), 0, hairpins
	for _, r := range rounds {
		switch {
		case r.Answered:
			found.Answered++
		case r.Err != nil:
			wrong = append(wrong, fmt.Sprintf("guest %s cannot ask %s: %v", r.From.Name, r.To.Name, r.Err))
		default:
			wrong = append(wrong, fmt.Sprintf("by the gateway of segment %s, %s (%s) gets no answer from %s (%s)",
				s.segment.Name, r.From.Name, r.From.Addr, r.To.Name, r.To.Addr))
		}
	}
	if hairpins > 0 && s.segment.Gateway.Mode == fabric.Anycast && s.segment.Gateway.HostRoutes {
		wrong = append(wrong, fmt.Sprintf("%s to or from the gateway of segment %s crossed the fabric, though every node has it", count(hairpins, "frame"), s.segment.Name))
	}
	return wrong, nil
}

// holders are the nodes whose kernels have the gateway's address.
func (s *segmentChecker) holders() ([]string, error) {
	holders := []string{}
	for _, n := range s.members() {
		nl, err := handleIn(n.ns)
		if err != nil {
			return nil, err
		}
		list, err := nl.AddrList(nil, netlink.FAMILY_V4)
		nl.Close()
		if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
			return nil, fmt.Errorf("list the addresses of %s: %w", n.Name, err)
		}
		if slices.ContainsFunc(list, func(a netlink.Addr) bool { return a.IP.Equal(s.segment.Gateway.Address.AsSlice()) }) {
			holders = append(holders, n.Name)
		}
	}
	return holders, nil
}

// wrongHolders says what is wrong with who has the gateway; empty: nothing.
func (s *segmentChecker) wrongHolders(holders []string) string {
	name := "the gateway of segment " + s.segment.Name
	if s.segment.Gateway.Mode == fabric.Anycast {
		var missing []string
		for _, n := range s.members() {
			if s.hasAgent(n.Name) && !slices.Contains(holders, n.Name) {
				missing = append(missing, n.Name)
			}
		}
		if len(missing) > 0 {
			return name + " is not on " + names(missing)
		}
		return ""
	}
	switch len(holders) {
	case 1:
		return ""
	case 0:
		return name + " is on no node"
	}
	return name + " is on several nodes: " + strings.Join(holders, ", ")
}

// goOut has each guest ask every place outside, and counts what of it crosses
// the fabric in VXLAN.
func (s *segmentChecker) goOut(ctx context.Context, outside []probe.Host) (rounds []probe.Round, hairpins int, err error) {
	mac, err := s.gatewayMAC()
	if err != nil || mac == nil {
		return nil, 0, err
	}
	var watches []*probe.FrameWatch
	stop := func() (err error) {
		for _, w := range watches {
			n, stopErr := w.Stop()
			hairpins, err = hairpins+n, errors.Join(err, stopErr)
		}
		watches = nil
		return err
	}
	defer func() { _ = stop() }()
	for _, n := range s.members() {
		w, err := probe.WatchFrames(n.ns, n.Loopback, s.segment.VNI, mac)
		if err != nil {
			return nil, 0, err
		}
		watches = append(watches, w)
	}
	hosts := slices.Concat(s.hosts, outside)
	attempt, cancel := context.WithTimeout(ctx, broadcastTime)
	defer cancel()
	rounds = probe.ReachSome(attempt, hosts, func(from, to int) bool { return from < len(s.hosts) && to >= len(s.hosts) })
	return rounds, hairpins, stop()
}

// gatewayMAC is that of the bridge of the first node that has the gateway; nil
// if none has.
func (s *segmentChecker) gatewayMAC() (net.HardwareAddr, error) {
	for _, n := range s.members() {
		if !slices.Contains(s.found.Gateway.Holders, n.Name) {
			continue
		}
		nl, err := handleIn(n.ns)
		if err != nil {
			return nil, err
		}
		defer nl.Close()
		bridge, err := nl.LinkByName(s.segment.Bridge)
		if err != nil {
			return nil, fmt.Errorf("find bridge %s of %s: %w", s.segment.Bridge, n.Name, err)
		}
		return bridge.Attrs().HardwareAddr, nil
	}
	return nil, nil
}
