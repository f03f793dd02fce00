package lab

import (
	"errors"
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"frond/internal/netns"
)

// patch is the lab's patch panel: a namespace of its own in which every cable
// is a veth pair, cIDa and cIDb. A node's port is a macvlan device in passthru
// mode on one end of the pair, so the pair can be taken down where no agent
// can take it up again, both ports lose carrier when it is, and a port can
// stay while its cable's other end is moved.
//
// The alternatives, tried on Linux 6.18: a veth pair straight between two
// nodes has no carrier switch (neither IFLA_CARRIER nor IFLA_PROTO_DOWN is
// supported), and its ends follow nothing but each other's admin state, which
// is the agents'; a bridge between two pairs costs a quarter of the bandwidth.
// macvlan costs 4 %.
type patch struct {
	lab string
	ns  *netns.NS
	nl  *netlink.Handle
	// taps: see Lab.
	taps bool
}

// side is an end of a cable: 'a' or 'b'.
type side byte

const (
	mtu = 9000
	// portIndexOffset keeps the ports' interface indices apart from those of
	// the pairs: where an interface and the one below it have the same
	// number, the kernel takes them for one and may tell of lost carrier a
	// second late (linkwatch_urgent_event in net/core/link_watch.c).
	portIndexOffset = 1000
	muteTable       = "frond-lab-mute"
)

func patchName(lab string) string { return lab + ".cables" }

func namespace(lab, node string) string { return lab + "-" + node }

// createPatch makes the panel's namespace; nothing in it speaks.
func createPatch(lab string) error {
	if err := netns.Create(patchName(lab)); err != nil {
		return err
	}
	ns, err := netns.Open(patchName(lab))
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	return ns.Do(func() error {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
		if errors.Is(err, os.ErrNotExist) {
			return nil // a kernel without IPv6 has nothing to silence
		}
		return err
	})
}

func openPatch(lab string) (*patch, error) {
	ns, err := netns.Open(patchName(lab))
	if err != nil {
		return nil, err
	}
	p := &patch{lab: lab, ns: ns}
	if p.nl, err = handleIn(ns); err != nil {
		_ = ns.Close()
		return nil, err
	}
	return p, nil
}

func (p *patch) close() {
	p.nl.Close()
	_ = p.ns.Close()
}

func handleIn(ns *netns.NS) (nl *netlink.Handle, err error) {
	err = ns.Do(func() error {
		nl, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink in %s: %w", ns.Name(), err)
	}
	return nl, nil
}

func pairEnd(c Cable, s side) string { return fmt.Sprintf("c%d%c", c.ID, s) }

// connect lays a cable. Its ports are down, as a machine's are at boot.
func (p *patch) connect(c Cable) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = pairEnd(c, 'a'), mtu
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerMTU = pairEnd(c, 'b'), mtu
	if err := p.nl.LinkAdd(pair); err != nil {
		return fmt.Errorf("lay cable %s: %w", c, err)
	}
	for _, s := range []side{'a', 'b'} {
		if err := p.plug(c, s); err != nil {
			return err
		}
	}
	return p.setCarrier(true, c)
}

// plug makes the port at one side of a cable.
func (p *patch) plug(c Cable, s side) error {
	end := c.end(s)
	node, err := netns.Open(namespace(p.lab, end.Node))
	if err != nil {
		return err
	}
	defer func() { _ = node.Close() }()
	lower, err := p.nl.LinkByName(pairEnd(c, s))
	if err != nil {
		return fmt.Errorf("plug cable %s into %s: %w", c, end, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = end.Port, mtu
	attrs.ParentIndex = lower.Attrs().Index
	attrs.Index = lower.Attrs().Index + portIndexOffset
	attrs.Namespace = netlink.NsFd(node.Fd())
	var port netlink.Link = &netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_PASSTHRU}
	if p.taps {
		port = &netlink.Macvtap{Macvlan: netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_PASSTHRU}}
	}
	if err := p.nl.LinkAdd(port); err != nil {
		return fmt.Errorf("plug cable %s into %s: %w", c, end, err)
	}
	return nil
}

// unplug removes the port at one side of a cable.
func (p *patch) unplug(c Cable, s side) error {
	end := c.end(s)
	node, err := netns.Open(namespace(p.lab, end.Node))
	if err != nil {
		return err
	}
	defer func() { _ = node.Close() }()
	nl, err := handleIn(node)
	if err != nil {
		return err
	}
	defer nl.Close()
	port, err := nl.LinkByName(end.Port)
	if err == nil {
		err = nl.LinkDel(port)
	}
	if err != nil {
		return fmt.Errorf("unplug cable %s from %s: %w", c, end, err)
	}
	return nil
}

// remove takes a cable away, and its ports with it.
func (p *patch) remove(c Cable) error {
	if err := p.setMuted(c, State{}); err != nil {
		return err
	}
	lower, err := p.nl.LinkByName(pairEnd(c, 'a'))
	if err == nil {
		err = p.nl.LinkDel(lower)
	}
	if err != nil {
		return fmt.Errorf("remove cable %s: %w", c, err)
	}
	return nil
}

// setCarrier gives or takes the carrier at both ends of all these cables, as
// nearly at once as one kernel does: one after the other, nodes would repair the
// first cut before the last is made, which a spine without power does not let
// them.
func (p *patch) setCarrier(on bool, cables ...Cable) error {
	set, doing := (*netlink.Handle).LinkSetUp, "mend"
	if !on {
		set, doing = (*netlink.Handle).LinkSetDown, "cut"
	}
	var ready []func() error
	for _, c := range cables {
		for _, s := range []side{'a', 'b'} {
			lower, err := p.nl.LinkByName(pairEnd(c, s))
			if err != nil {
				return fmt.Errorf("%s cable %s: %w", doing, c, err)
			}
			nl, err := handleIn(p.ns) // each waits for an answer on its own
			if err != nil {
				return err
			}
			defer nl.Close()
			ready = append(ready, func() error {
				if err := set(nl, lower); err != nil {
					return fmt.Errorf("%s cable %s: %w", doing, c, err)
				}
				return nil
			})
		}
	}
	var ends errgroup.Group
	for _, do := range ready {
		ends.Go(do)
	}
	return ends.Wait()
}

// setMuted lets packets vanish in the directions that s names, and in no
// other. They are dropped where they come out of the cable, so that the
// sender's own kernel does not know.
func (p *patch) setMuted(c Cable, s State) error {
	conn, err := nftables.New(nftables.WithNetNSFd(p.ns.Fd()))
	if err != nil {
		return fmt.Errorf("mute cable %s: %w", c, err)
	}
	muted, err := mutedEnds(conn)
	if err != nil {
		return fmt.Errorf("mute cable %s: %w", c, err)
	}
	table := conn.AddTable(&nftables.Table{Family: nftables.TableFamilyNetdev, Name: muteTable})
	drop := nftables.ChainPolicyDrop
	for name, want := range map[string]bool{pairEnd(c, 'b'): s.MutedAB, pairEnd(c, 'a'): s.MutedBA} {
		chain := &nftables.Chain{
			Name: name, Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter,
			Device: name, Policy: &drop,
		}
		switch {
		case want && !muted[name]:
			conn.AddChain(chain)
		case !want && muted[name]:
			conn.DelChain(chain)
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("mute cable %s: %w", c, err)
	}
	return nil
}

// mutedEnds are the ends of pairs at which packets are dropped.
func mutedEnds(conn *nftables.Conn) (map[string]bool, error) {
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
	if err != nil {
		return nil, fmt.Errorf("list nftables chains: %w", err)
	}
	muted := map[string]bool{}
	for _, chain := range chains {
		if chain.Table.Name == muteTable {
			muted[chain.Name] = true
		}
	}
	return muted, nil
}

// states tells what is done to each cable, by the kernel.
func (p *patch) states(cables []Cable) (States, error) {
	links, err := p.nl.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list cables: %w", err)
	}
	up := map[string]bool{}
	for _, l := range links {
		up[l.Attrs().Name] = l.Attrs().RawFlags&unix.IFF_UP != 0
	}
	conn, err := nftables.New(nftables.WithNetNSFd(p.ns.Fd()))
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	muted, err := mutedEnds(conn)
	if err != nil {
		return nil, err
	}
	states := States{}
	for _, c := range cables {
		a, b := pairEnd(c, 'a'), pairEnd(c, 'b')
		if s := (State{Cut: !up[a] || !up[b], MutedAB: muted[b], MutedBA: muted[a]}); s != (State{}) {
			states[c.ID] = s
		}
	}
	return states, nil
}

func (c Cable) end(s side) End {
	if s == 'a' {
		return c.A
	}
	return c.B
}
