package kernel

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"frond/internal/dataplane"

	"golang.org/x/sys/unix"
)

// RouteLookup is what the kernel does with a packet of its own to an address.
// Rules that look at where a packet came in (ip-rule(8)) are not asked.
type RouteLookup struct {
	Prefix  netip.Prefix // of the route that decides
	Port    string       // the interface that has the address, if it is the node's own
	Legs    []LegLookup  // otherwise, by port
	Refused string       // why the packet goes nowhere; then all else is zero
}

// LegLookup is one next hop of a route, usable or not.
type LegLookup struct {
	Port string
	Via  netip.Addr // zero: the destination is on the link
	// Neighbor is what the neighbour table has for the next hop, or for the
	// destination if there is none; the zero MAC: nothing.
	Neighbor dataplane.MAC
	Problem  string // why nothing gets through; empty: nothing is known to be wrong
}

// MACLookup is what a bridge does with a frame to a MAC.
type MACLookup struct {
	Known bool
	Own   bool       // the bridge takes the frame itself
	Port  string     // the port that the frame leaves by, the bridge if Own
	VTEP  netip.Addr // where the VXLAN device sends it, if that is the port
}

// LookupRoute asks for the route to an address (RTM_GETROUTE with
// RTM_F_FIB_MATCH, rtnetlink(7)) and for all its next hops.
func (k *Kernel) LookupRoute(to netip.Addr) (found RouteLookup, err error) {
	k.look(func(c *conn) { found, err = c.lookupRoute(to) })
	if err != nil {
		err = fmt.Errorf("look up the route to %s: %w", to, err)
	}
	return found, err
}

// LookupMAC asks a bridge for the port that a MAC is behind, and its VXLAN
// device for the VTEP if that is the port.
func (k *Kernel) LookupMAC(bridge, vxlan string, mac dataplane.MAC) (found MACLookup, err error) {
	k.look(func(c *conn) { found, err = c.lookupMAC(bridge, vxlan, mac) })
	if err != nil {
		err = fmt.Errorf("look up %s on %s: %w", mac, bridge, err)
	}
	return found, err
}

// LookupNeighbor asks for the MAC that the kernel has for an address on a
// link; the zero MAC: none.
func (k *Kernel) LookupNeighbor(link string, ip netip.Addr) (mac dataplane.MAC, err error) {
	k.look(func(c *conn) {
		var on dataplane.Link
		if on, err = c.link(link); err == nil {
			mac, _, err = c.lookupNeighbor(uint32(on.Index), ip)
		}
	})
	if err != nil {
		err = fmt.Errorf("look up neighbour %s on %s: %w", ip, link, err)
	}
	return mac, err
}

// Addresses are those of a link, each with the length of its prefix.
func (k *Kernel) Addresses(link string) (all []netip.Prefix, err error) {
	k.look(func(c *conn) {
		var on dataplane.Link
		if on, err = c.link(link); err != nil {
			return
		}
		err = c.dump(unix.RTM_GETADDR, ifaddrmsg(unix.AF_UNSPEC, 0, 0), func() { all = nil }, func(m message) {
			if a, ok := parseAddress(m); ok && a.index == uint32(on.Index) {
				all = append(all, a.prefix)
			}
		})
	})
	if err != nil {
		err = fmt.Errorf("read the addresses of %s: %w", link, err)
	}
	return all, err
}

// look lends a connection to one who only looks, one after the other: however
// many ask at once, there are connections left for those who change something.
func (k *Kernel) look(do func(c *conn)) {
	k.looking.Lock()
	defer k.looking.Unlock()
	k.with(do)
}

// refusals are the errors that a lookup ends with by the kinds of routes
// (fib_props in net/ipv4/fib_semantics.c, net/ipv6/route.c).
var refusals = map[unix.Errno]string{
	unix.ENETUNREACH:  "no route",
	unix.EINVAL:       "a blackhole route",
	unix.EHOSTUNREACH: "an unreachable route",
	unix.EACCES:       "a prohibiting route",
}

func (c *conn) lookupRoute(to netip.Addr) (RouteLookup, error) {
	body := []byte{family(to), uint8(to.BitLen()), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	binary.NativeEndian.PutUint32(body[8:], unix.RTM_F_FIB_MATCH)
	m, err := c.get(unix.RTM_GETROUTE, appendAttribute(body, unix.RTA_DST, to.AsSlice()))
	var errno unix.Errno
	if errors.As(err, &errno) && refusals[errno] != "" {
		return RouteLookup{Refused: refusals[errno]}, nil
	}
	if err != nil {
		return RouteLookup{}, err
	}
	if len(m.body) < unix.SizeofRtMsg {
		return RouteLookup{}, errors.New("the kernel's answer is no route")
	}
	route := parseRouteLookup(m, to)
	if refused := refusedBy(route.kind); refused != "" {
		return RouteLookup{Prefix: route.prefix, Refused: refused}, nil
	}
	found := RouteLookup{Prefix: route.prefix}
	if route.kind == unix.RTN_LOCAL {
		found.Port, err = c.linkName(route.legs[0].index)
		return found, err
	}
	legs := route.legs
	if route.nextHopID != 0 {
		if legs, err = c.objectLegs(route.nextHopID, true); err != nil {
			return RouteLookup{}, err
		}
	}
	for _, leg := range legs {
		described, err := c.describe(leg, to)
		if err != nil {
			return RouteLookup{}, err
		}
		found.Legs = append(found.Legs, described)
	}
	slices.SortFunc(found.Legs, func(a, b LegLookup) int { return cmp.Or(strings.Compare(a.Port, b.Port), a.Via.Compare(b.Via)) })
	return found, nil
}

// refusedBy is why a route of a kind sends a packet nowhere, empty if it does not.
func refusedBy(kind uint8) string {
	switch kind {
	case unix.RTN_BLACKHOLE:
		return refusals[unix.EINVAL]
	case unix.RTN_UNREACHABLE:
		return refusals[unix.EHOSTUNREACH]
	case unix.RTN_PROHIBIT:
		return refusals[unix.EACCES]
	}
	return ""
}

// describe names a leg's port and says what its neighbour entry tells.
func (c *conn) describe(leg rawLeg, to netip.Addr) (LegLookup, error) {
	port, err := c.linkName(leg.index)
	if err != nil {
		return LegLookup{}, err
	}
	described := LegLookup{Port: port, Via: leg.via}
	neighbor := to
	if leg.via.IsValid() {
		neighbor = leg.via
	}
	mac, state, err := c.lookupNeighbor(leg.index, neighbor)
	if err != nil {
		return LegLookup{}, err
	}
	described.Neighbor = mac
	switch {
	case leg.flags&unix.RTNH_F_DEAD != 0:
		described.Problem = "the port is down"
	case leg.flags&unix.RTNH_F_LINKDOWN != 0:
		described.Problem = "the port has no carrier"
	case state&unix.NUD_FAILED != 0:
		described.Problem = neighbor.String() + " does not answer the kernel's neighbour discovery"
	}
	return described, nil
}

func (c *conn) lookupMAC(bridge, vxlan string, mac dataplane.MAC) (MACLookup, error) {
	on, err := c.link(bridge)
	if err != nil {
		return MACLookup{}, err
	}
	e, ok, err := c.lookupEntry(entry{family: unix.AF_BRIDGE, mac: mac, master: uint32(on.Index)})
	if err != nil || !ok {
		return MACLookup{}, err
	}
	port, err := c.linkName(e.index)
	if err != nil {
		return MACLookup{}, err
	}
	switch {
	case e.state&unix.NUD_PERMANENT != 0: // an interface's own MAC
		return MACLookup{Known: true, Own: true, Port: bridge}, nil
	case port != vxlan:
		return MACLookup{Known: true, Port: port}, nil
	}
	far, ok, err := c.lookupEntry(entry{family: unix.AF_BRIDGE, mac: mac, index: e.index, flags: unix.NTF_SELF})
	if err != nil || !ok {
		return MACLookup{}, err
	}
	return MACLookup{Known: true, Port: port, VTEP: far.dst}, nil
}

// lookupEntry asks for one forwarding entry, of a bridge by its ports' master,
// or of a device (rtnl_fdb_get in net/core/rtnetlink.c).
func (c *conn) lookupEntry(e entry) (entry, bool, error) {
	body := make([]byte, unix.SizeofNdMsg)
	body[0] = e.family
	binary.NativeEndian.PutUint32(body[4:], e.index)
	body[10] = e.flags
	body = appendAttribute(body, unix.NDA_LLADDR, e.mac[:])
	if e.master != 0 {
		body = appendAttribute(body, unix.NDA_MASTER, binary.NativeEndian.AppendUint32(nil, e.master))
	}
	return c.getEntry(body)
}

// lookupNeighbor asks for the neighbour entry of an address, and its state.
func (c *conn) lookupNeighbor(index uint32, ip netip.Addr) (dataplane.MAC, uint16, error) {
	body := make([]byte, unix.SizeofNdMsg)
	body[0] = family(ip)
	binary.NativeEndian.PutUint32(body[4:], index)
	e, _, err := c.getEntry(appendAttribute(body, unix.NDA_DST, ip.AsSlice()))
	return e.mac, e.state, err
}

// getEntry asks for one entry and tells whether there is one.
func (c *conn) getEntry(body []byte) (entry, bool, error) {
	m, err := c.get(unix.RTM_GETNEIGH, body)
	if errors.Is(err, unix.ENOENT) {
		return entry{}, false, nil
	}
	if err != nil {
		return entry{}, false, err
	}
	e, ok := parseEntry(m)
	return e, ok, nil
}

// linkName asks for a link's name by its index.
func (c *conn) linkName(index uint32) (string, error) {
	body := ifinfomsg(0, 0)
	binary.NativeEndian.PutUint32(body[4:], index)
	m, err := c.get(unix.RTM_GETLINK, appendAttribute(body, unix.IFLA_EXT_MASK, binary.NativeEndian.AppendUint32(nil, skipStats)))
	if err != nil {
		return "", fmt.Errorf("find link %d: %w", index, err)
	}
	link, ok := parseLink(m)
	if !ok {
		return "", fmt.Errorf("find link %d: the kernel's answer is no link", index)
	}
	return link.Name, nil
}
