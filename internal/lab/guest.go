package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"frond/internal/fabric"
	"frond/internal/netns"
)

// Guest is a machine on a segment: a namespace whose eth0 is cabled to the
// segment's bridge on a node.
type Guest struct {
	Name    string       `json:"name"`
	Node    string       `json:"node"`
	Segment string       `json:"segment"`
	MAC     string       `json:"mac"`
	Address netip.Prefix `json:"address"` // with the segment's length
	// DHCP has it ask for its address: what is there before is only its number.
	DHCP bool `json:"dhcp,omitempty"`
}

// maxGuests bounds the guests of a lab.
const maxGuests = 500

// guestIndex keeps a guest's eth0 apart from the other end of its cable (see
// portIndexOffset).
const guestIndex = 5000

// bridgeTime is how long a node may take to make a segment's bridge.
const bridgeTime = 10 * time.Second

// port is the end of the guest's cable that is in the node.
func (g Guest) port() string { return "v" + g.Name }

// Guests spreads n guests over the nodes of a document's first segment, as g1,
// g2, …, with addresses from the end of its prefix's first 254.
func Guests(f *fabric.Fabric, n int) ([]Guest, error) {
	if n > maxGuests {
		return nil, inputf("%d guests: a lab has at most %d", n, maxGuests)
	}
	if n > 0 && len(f.Segments) == 0 {
		return nil, inputf("guests live on segments, and the document has none")
	}
	var guests []Guest
	for i := range n {
		s := f.Segments[0]
		g, err := newGuest(s, i+1, s.Nodes[i%len(s.Nodes)])
		if err != nil {
			return nil, err
		}
		guests = append(guests, g)
	}
	return guests, nil
}

// newGuest is the guest of that number.
func newGuest(s fabric.Segment, number int, node string) (Guest, error) {
	if !s.Prefix.IsValid() {
		return Guest{}, inputf("segment %s has no prefix to take guests' addresses from", s.Name)
	}
	raw := s.Prefix.Addr().As4()
	host := number + 10 // the first are the gateway's and such
	raw[2] += byte(host >> 8)
	raw[3] += byte(host)
	address := netip.AddrFrom4(raw)
	if !s.Prefix.Contains(address) {
		return Guest{}, inputf("segment %s: prefix %s is too small for guest %d", s.Name, s.Prefix, number)
	}
	return Guest{
		Name: fmt.Sprintf("g%d", number), Node: node, Segment: s.Name,
		MAC:     fmt.Sprintf("02:67:00:00:%02x:%02x", byte(number>>8), byte(number)),
		Address: netip.PrefixFrom(address, s.Prefix.Bits()),
	}, nil
}

// NextGuest is one more guest on a node, of the document's first segment if
// none is named.
func (l *Lab) NextGuest(segment, node string) (Guest, error) {
	f, err := l.Fabric()
	if err != nil {
		return Guest{}, err
	}
	number := 1
	for _, g := range l.Topology.Guests {
		var n int
		if _, err := fmt.Sscanf(g.Name, "g%d", &n); err == nil {
			number = max(number, n+1)
		}
	}
	for _, s := range f.Segments {
		if segment == "" || s.Name == segment {
			return newGuest(s, number, node)
		}
	}
	return Guest{}, inputf("the document has no segment %q", segment)
}

// Guest finds a guest by its name.
func (l *Lab) Guest(name string) (Guest, error) {
	i := slices.IndexFunc(l.Topology.Guests, func(g Guest) bool { return g.Name == name })
	if i < 0 {
		return Guest{}, inputf("no guest %q in lab %s", name, l.Name)
	}
	return l.Topology.Guests[i], nil
}

// Host opens the namespace of a node or a guest.
func (l *Lab) Host(name string) (*netns.NS, error) {
	if _, err := l.Guest(name); err == nil {
		return netns.Open(namespace(l.Name, name))
	}
	return l.Namespace(name)
}

// AddGuest makes a guest and cables it to its node's bridge, for which it
// waits.
func (l *Lab) AddGuest(ctx context.Context, g Guest) error {
	return l.locked(func() error {
		if _, err := l.Guest(g.Name); err == nil {
			return inputf("guest %s is there already", g.Name)
		}
		if err := l.makeGuest(ctx, &g); err != nil {
			return err
		}
		l.Topology.Guests = append(l.Topology.Guests, g)
		return l.save()
	})
}

func (l *Lab) makeGuest(ctx context.Context, g *Guest) error {
	if err := makeNode(namespace(l.Name, g.Name)); err != nil {
		return err
	}
	inside, err := netns.Open(namespace(l.Name, g.Name))
	if err != nil {
		return err
	}
	defer func() { _ = inside.Close() }()
	node, err := l.Namespace(g.Node)
	if err != nil {
		return err
	}
	defer func() { _ = node.Close() }()
	mac, err := net.ParseMAC(g.MAC)
	if err != nil {
		return fmt.Errorf("guest %s: %w", g.Name, err)
	}
	bridge, err := l.bridgeOf(ctx, node, *g)
	if err != nil {
		return err
	}
	err = inside.Do(func() error {
		return netlink.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: "eth0", Index: guestIndex, MTU: bridge.Attrs().MTU, HardwareAddr: mac},
			PeerName:  g.port(), PeerNamespace: netlink.NsFd(node.Fd()), PeerMTU: uint32(bridge.Attrs().MTU), //nolint:gosec // at most 65535
		})
	})
	if err != nil {
		return fmt.Errorf("cable guest %s to %s: %w", g.Name, g.Node, err)
	}
	segment, err := l.segment(g.Segment)
	if err != nil {
		return err
	}
	if err := setUpGuest(inside, segment, *g); err != nil {
		return fmt.Errorf("set up guest %s: %w", g.Name, err)
	}
	if err := attach(node, *g, bridge); err != nil || !g.DHCP {
		return err
	}
	return l.lease(ctx, inside, g)
}

// guestSysctls make a guest forget none of its neighbours when its cable is
// pulled, as a virtual machine does not when its node loses carrier, and have
// it use its addresses at once.
func guestSysctls(port string) map[string]string {
	return map[string]string{
		"ipv6/conf/" + port + "/accept_dad":            "0",
		"ipv4/conf/" + port + "/arp_evict_nocarrier":   "0",
		"ipv6/conf/" + port + "/ndisc_evict_nocarrier": "0",
	}
}

// setUpGuest gives a guest its addresses, and routes by the gateway.
func setUpGuest(inside *netns.NS, s fabric.Segment, g Guest) error {
	return inside.Do(func() error {
		for path, value := range guestSysctls("eth0") {
			if err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0); err != nil {
				return err
			}
		}
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if g.DHCP {
			s = withoutDHCP(s)
		} else if err := addAddress(eth0, g.Address); err != nil {
			return err
		}
		if err := netlink.LinkSetUp(eth0); err != nil {
			return err
		}
		return routeGuest(eth0, s, g)
	})
}

// bridgeOf waits for the bridge that the node's agent makes.
func (l *Lab) bridgeOf(ctx context.Context, node *netns.NS, g Guest) (bridge netlink.Link, err error) {
	s, err := l.segment(g.Segment)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(s.Nodes, g.Node) {
		return nil, inputf("node %s takes no part in segment %s", g.Node, g.Segment)
	}
	ctx, cancel := context.WithTimeout(ctx, bridgeTime)
	defer cancel()
	err = poll(ctx, func() bool {
		return node.Do(func() (err error) {
			bridge, err = netlink.LinkByName(s.Bridge)
			return err
		}) == nil
	}, fmt.Sprintf("%s has no bridge %s", g.Node, s.Bridge))
	return bridge, err
}

// attach makes the guest's cable a port of the bridge.
func attach(node *netns.NS, g Guest, bridge netlink.Link) error {
	err := node.Do(func() error {
		port, err := netlink.LinkByName(g.port())
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(port, bridge); err != nil {
			return err
		}
		return netlink.LinkSetUp(port)
	})
	if err != nil {
		return fmt.Errorf("plug guest %s into %s of %s: %w", g.Name, bridge.Attrs().Name, g.Node, err)
	}
	return nil
}

// RemoveGuest takes a guest away.
func (l *Lab) RemoveGuest(ctx context.Context, name string) error {
	return l.locked(func() error {
		g, err := l.Guest(name)
		if err != nil {
			return err
		}
		if _, err := killAll(ctx, []string{namespace(l.Name, name)}); err != nil {
			return err
		}
		if err := netns.Delete(namespace(l.Name, name)); err != nil {
			return err
		}
		l.Topology.Guests = slices.DeleteFunc(l.Topology.Guests, func(other Guest) bool { return other == g })
		return l.save()
	})
}
