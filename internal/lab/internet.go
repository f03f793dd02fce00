package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"frond/internal/fabric"
)

// Internet is what is behind the exits: a namespace, no node of the fabric.
const Internet = "internet"

// FarAway are the addresses in the internet that guests are to reach, IPv4
// first (RFC 5737, RFC 3849).
func FarAway() [2]netip.Addr {
	return [2]netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, 1}), netip.MustParseAddr("2001:db8:ffff::1")}
}

// maxExits bounds the exits of a lab whose uplinks are made up: each takes a
// /30 of 192.0.2.0/24.
const maxExits = 64

// upPort is the uplink of an exit whose document is made up.
const upPort = "up0"

// AllCables are the cables between nodes and those to the internet.
func (t Topology) AllCables() []Cable { return slices.Concat(t.Cables, t.Uplinks) }

// checkPlace refuses what is neither a node nor the internet.
func (t Topology) checkPlace(name string) error {
	if name == Internet && len(t.Uplinks) > 0 {
		return nil
	}
	return t.checkNode(name)
}

// checkUplinks says what is wrong with the cables to the internet.
func (t Topology) checkUplinks(f *fabric.Fabric) error {
	if len(t.Uplinks) == 0 {
		return nil
	}
	if _, taken := f.Node(Internet); taken {
		return inputf("node %s: a lab with exits needs that name for what is behind them", Internet)
	}
	for _, c := range t.Uplinks {
		n, err := f.Find(c.A.Node)
		if err != nil {
			return err
		}
		if n.Uplink == nil || n.Uplink.Port != c.A.Port {
			return inputf("cable %s: port %s is no uplink by the document", c, c.A)
		}
		if !portName.MatchString(c.A.Port) {
			return inputf("port %q is no name of an interface: want at most 15 letters, digits, dots and dashes", c.A.Port)
		}
	}
	return nil
}

// WithInternet cables the uplinks of a document's exits to the internet.
func (t Topology) WithInternet(f *fabric.Fabric) (Topology, error) {
	for _, n := range f.Nodes {
		if n.Uplink == nil {
			continue
		}
		if err := t.checkNode(n.Name); err != nil {
			return t, err
		}
		t.Uplinks = append(t.Uplinks, Cable{
			ID: t.nextID(), A: End{n.Name, n.Uplink.Port}, B: t.named(End{Node: Internet}),
		})
	}
	return t, t.checkUplinks(f)
}

// WithExits adds n exits, edge1, edge2, …, each cabled to every spine, or
// where there is none to every other node.
func (t Topology) WithExits(n int) (Topology, error) {
	if n < 0 || n > maxExits || len(t.Nodes)+n > maxNodes {
		return t, inputf("%d exits: a lab has at most %d, and at most %d nodes", n, maxExits, maxNodes)
	}
	var above []Node
	for _, node := range t.Nodes {
		if node.Role == fabric.Spine {
			above = append(above, node)
		}
	}
	if len(above) == 0 {
		above = slices.Clone(t.Nodes)
	}
	for _, exit := range numbered("edge", fabric.Exit, n) {
		t.Nodes = append(t.Nodes, exit)
		for _, node := range above {
			t.connect(End{Node: exit.Name}, End{Node: node.Name})
		}
	}
	return t, nil
}

// exitLine is the document's line of the exit of that number, counted from 1.
func exitLine(name string, number int) string {
	four := 4 * (number - 1)
	return fmt.Sprintf("  %s: {role: exit, loopback: 10.0.100.%d, uplink: {port: %s, address: 192.0.2.%d/30, next_hop: 192.0.2.%d, "+
		"address6: \"2001:db8:%x::2/64\", next_hop6: \"2001:db8:%x::1\", masquerade: true}}\n",
		name, number, upPort, four+2, four+1, number, number)
}

// router is what the internet has of one exit.
type router struct {
	cable     Cable
	uplink    fabric.Uplink
	addresses []netip.Prefix // of the internet's port
	// operator is what the exit has by its operator's hand, where the document
	// leaves it to him.
	operator []netip.Prefix
	gateways []netip.Addr // of the operator's default routes
}

// routers are the internet's ports. Where the document names no address, the
// exit gets one as if its operator had configured the port himself.
func routers(f *fabric.Fabric, uplinks []Cable) ([]router, error) {
	var all []router
	for i, c := range uplinks {
		n, err := f.Find(c.A.Node)
		if err != nil {
			return nil, err
		}
		r := router{cable: c, uplink: *n.Uplink}
		four := byte(4 * (i % maxExits))
		// From the end, out of the way of what a document may name.
		own := netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, four + 2}), 30)
		side := netip.PrefixFrom(netip.AddrFrom4([4]byte{203, 0, 113, four + 1}), 30)
		switch {
		case r.uplink.Address.IsValid():
			r.addresses = append(r.addresses, netip.PrefixFrom(r.uplink.NextHop, r.uplink.Address.Bits()))
		case r.uplink.DHCP:
			r.addresses = append(r.addresses, side)
		default:
			r.operator, r.addresses = append(r.operator, own), append(r.addresses, side)
			r.gateways = append(r.gateways, side.Addr())
		}
		if hop := r.uplink.NextHop6; hop.IsValid() {
			bits := 64
			if r.uplink.Address6.IsValid() {
				bits = r.uplink.Address6.Bits()
			}
			r.addresses = append(r.addresses, netip.PrefixFrom(hop, bits))
		}
		all = append(all, r)
	}
	return all, nil
}

// makeInternet gives the internet its addresses, and the exits what their
// operators have configured.
func (l *Lab) makeInternet() error {
	if len(l.Topology.Uplinks) == 0 {
		return nil
	}
	f, err := l.Fabric()
	if err != nil {
		return err
	}
	all, err := routers(f, l.Topology.Uplinks)
	if err != nil {
		return err
	}
	ns, err := l.Namespace(Internet)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	if err := ns.Do(func() error { return setUpInternet(f, all) }); err != nil {
		return fmt.Errorf("set up the internet: %w", err)
	}
	for _, r := range all {
		if len(r.operator) == 0 {
			continue
		}
		if err := l.operate(r); err != nil {
			return fmt.Errorf("set up the uplink of %s: %w", r.cable.A.Node, err)
		}
	}
	return nil
}

// setUpInternet runs in the internet.
func setUpInternet(f *fabric.Fabric, all []router) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, a := range FarAway() {
		if err := addAddress(lo, netip.PrefixFrom(a, a.BitLen())); err != nil {
			return err
		}
	}
	if err := writeSysctls(map[string]string{
		"ipv4/conf/all/ignore_routes_with_linkdown": "1",
		"ipv6/conf/all/ignore_routes_with_linkdown": "1",
		"ipv4/conf/all/rp_filter":                   "0",
		"ipv4/conf/default/rp_filter":               "0",
		"ipv4/ip_forward":                           "1",
		"ipv6/conf/all/forwarding":                  "1",
	}); err != nil {
		return err
	}
	for _, r := range all {
		if err := writeSysctls(map[string]string{"ipv6/conf/" + r.cable.B.Port + "/accept_dad": "0"}); err != nil {
			return err
		}
		if err := setUpPort(r.cable.B.Port, r.addresses); err != nil {
			return err
		}
	}
	return routeBack(f, all)
}

// routeBack lets answers find their way to a fabric that is not behind the
// address of its exits.
func routeBack(f *fabric.Fabric, all []router) error {
	hops := [2][]*netlink.NexthopInfo{}
	for _, r := range all {
		if r.uplink.Masquerade {
			continue
		}
		link, err := netlink.LinkByName(r.cable.B.Port)
		if err != nil {
			return err
		}
		for i, p := range [2]netip.Prefix{r.uplink.Address, r.uplink.Address6} {
			if p.IsValid() {
				hops[i] = append(hops[i], &netlink.NexthopInfo{LinkIndex: link.Attrs().Index, Gw: p.Addr().AsSlice()})
			}
		}
		if len(r.operator) > 0 {
			hops[0] = append(hops[0], &netlink.NexthopInfo{LinkIndex: link.Attrs().Index, Gw: r.operator[0].Addr().AsSlice()})
		}
	}
	for _, p := range insideOf(f) {
		family := 1
		if p.Addr().Is4() {
			family = 0
		}
		if len(hops[family]) == 0 {
			continue
		}
		if err := netlink.RouteAdd(&netlink.Route{Dst: ipNet(p), MultiPath: hops[family]}); err != nil {
			return fmt.Errorf("route back to %s: %w", p, err)
		}
	}
	return nil
}

// insideOf are the prefixes of the fabric.
func insideOf(f *fabric.Fabric) []netip.Prefix {
	all := slices.Clone(f.Underlay.Loopbacks)
	for _, s := range f.Segments {
		for _, p := range []netip.Prefix{s.Prefix, s.Prefix6} {
			if p.IsValid() {
				all = append(all, p)
			}
		}
	}
	return all
}

// operate configures the port of an exit as its operator has it.
func (l *Lab) operate(r router) error {
	ns, err := l.Namespace(r.cable.A.Node)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	return ns.Do(func() error {
		if err := setUpPort(r.cable.A.Port, r.operator); err != nil {
			return err
		}
		link, err := netlink.LinkByName(r.cable.A.Port)
		if err != nil {
			return err
		}
		if r.uplink.NextHop.IsValid() {
			return nil
		}
		for _, a := range r.gateways {
			// As a network manager does: a static route of metric 0 would be kept
			// even when the router is dead.
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: a.AsSlice(), Priority: 100}); err != nil {
				return fmt.Errorf("set the default route: %w", err)
			}
		}
		return nil
	})
}

// setUpPort gives an interface of this thread's namespace its addresses.
func setUpPort(name string, addresses []netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, p := range addresses {
		if err := addAddress(link, p); err != nil {
			return err
		}
	}
	return netlink.LinkSetUp(link)
}

func addAddress(link netlink.Link, p netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(p)}
	a.IP = p.Addr().AsSlice()
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(link, a); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("give %s to %s: %w", p, link.Attrs().Name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// writeSysctls writes values below /proc/sys/net of this thread's namespace;
// what does not exist in this kernel is left out.
func writeSysctls(values map[string]string) error {
	for path, value := range values {
		err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
