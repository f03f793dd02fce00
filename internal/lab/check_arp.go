package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"frond/internal/netns"
	"frond/internal/probe"
)

// ARPProof is what crossed the fabric while all guests, who had forgotten
// their neighbours, asked each other for echoes.
type ARPProof struct {
	// Requests for guests, as many as left nodes in VXLAN: one goes to each
	// VTEP. For guests that a node knows it should answer itself.
	Requests int `json:"requests"`
	// Known are the guests whose addresses the kernels of all nodes of the
	// segment know.
	Known int `json:"known"`
}

// arp lets the guests ask until no request crosses the fabric that should not.
// What the nodes do not know yet, they learn from the first attempt.
func (s *segmentChecker) arp(ctx context.Context) error {
	deadline, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	tick := time.NewTicker(askInterval)
	defer tick.Stop()
	for {
		requests, err := s.askAnew(deadline)
		if err != nil {
			return err
		}
		known, err := s.known()
		if err != nil {
			return err
		}
		wrong := s.suppression(requests, known)
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

// members are the nodes that take part in the segment.
func (s *segmentChecker) members() []checked {
	return slices.DeleteFunc(slices.Clone(s.nodes), func(n checked) bool { return !slices.Contains(s.segment.Nodes, n.Name) })
}

// askAnew has the guests forget each other and ask again, and returns the ARP
// requests that leave each node for others meanwhile.
func (s *segmentChecker) askAnew(ctx context.Context) (map[string][]probe.ARPRequest, error) {
	watches := map[string]*probe.ARPWatch{}
	requests := map[string][]probe.ARPRequest{}
	stop := func() (err error) {
		for node, w := range watches {
			got, stopErr := w.Stop()
			requests[node], err = got, errors.Join(err, stopErr)
		}
		clear(watches)
		return err
	}
	defer func() { _ = stop() }()
	for _, n := range s.members() {
		w, err := probe.WatchARP(n.ns, n.Loopback, s.segment.VNI)
		if err != nil {
			return nil, err
		}
		watches[n.Name] = w
	}
	for _, h := range s.hosts {
		if err := forget(h.NS, s.segment.Prefix); err != nil {
			return nil, err
		}
	}
	probe.ReachSome(ctx, s.hosts, s.asks)
	return requests, stop()
}

// forget removes a guest's neighbour entries for a prefix.
func forget(ns *netns.NS, prefix netip.Prefix) error {
	nl, err := handleIn(ns)
	if err != nil {
		return err
	}
	defer nl.Close()
	neighbors, err := nl.NeighList(0, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("list the neighbours of %s: %w", ns.Name(), err)
	}
	for _, n := range neighbors {
		if ip, ok := netip.AddrFromSlice(n.IP); !ok || !prefix.Contains(ip.Unmap()) {
			continue
		}
		if err := nl.NeighDel(&n); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("have %s forget neighbour %s: %w", ns.Name(), n.IP, err)
		}
	}
	return nil
}

// addresses are those that a node's kernel can answer for, with their MACs.
type addresses map[netip.Addr]string

// known is what each node's kernel knows of the segment's addresses.
func (s *segmentChecker) known() (map[string]addresses, error) {
	all := map[string]addresses{}
	for _, n := range s.members() {
		nl, err := handleIn(n.ns)
		if err != nil {
			return nil, err
		}
		all[n.Name], err = knownBy(nl, s.segment.Bridge)
		nl.Close()
		if err != nil {
			return nil, fmt.Errorf("list what %s knows of segment %s: %w", n.Name, s.segment.Name, err)
		}
	}
	return all, nil
}

func knownBy(nl *netlink.Handle, bridge string) (addresses, error) {
	link, err := nl.LinkByName(bridge)
	if err != nil {
		return nil, err
	}
	neighbors, err := nl.NeighList(link.Attrs().Index, netlink.FAMILY_V4)
	if err != nil {
		return nil, err
	}
	const unusable = netlink.NUD_FAILED | netlink.NUD_INCOMPLETE | netlink.NUD_NONE
	known := addresses{}
	for _, n := range neighbors {
		if ip, ok := netip.AddrFromSlice(n.IP); ok && n.State&unusable == 0 {
			known[ip.Unmap()] = n.HardwareAddr.String()
		}
	}
	return known, nil
}

// suppression counts, and names what is wrong: a request that a node could
// have answered, and a guest of an agent that the node of another does not
// know. What else runs on nodes need not know guests' addresses.
func (s *segmentChecker) suppression(requests map[string][]probe.ARPRequest, known map[string]addresses) (wrong []string) {
	found := ARPProof{Known: len(s.guests)}
	for _, g := range s.guests {
		if slices.ContainsFunc(s.members(), func(n checked) bool { return known[n.Name][g.Address.Addr()] != g.MAC }) {
			found.Known--
		}
	}
	for _, n := range s.members() {
		var needless, unknown []string
		for _, g := range s.guests {
			knows := known[n.Name][g.Address.Addr()] == g.MAC
			asked := 0
			for _, r := range requests[n.Name] {
				if r.For == g.Address.Addr() {
					asked++
				}
			}
			found.Requests += asked
			if knows && asked > 0 {
				needless = append(needless, g.Name)
			}
			if !knows && s.hasAgent(n.Name) && s.hasAgent(g.Node) && n.Name != g.Node {
				unknown = append(unknown, g.Name)
			}
		}
		if len(needless) > 0 {
			wrong = append(wrong, fmt.Sprintf("on segment %s, %s sends ARP requests into the fabric for guests that it knows: %s", s.segment.Name, n.Name, names(needless)))
		}
		if len(unknown) > 0 {
			wrong = append(wrong, fmt.Sprintf("on segment %s, %s does not know the addresses of %s", s.segment.Name, n.Name, names(unknown)))
		}
	}
	s.found.ARP = &found
	return wrong
}

func (s *segmentChecker) hasAgent(node string) bool {
	_, ok := s.lab.AgentPID(node)
	return ok
}
