package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"frond/internal/dataplane"

	"golang.org/x/sys/unix"
)

const (
	iffLowerUp = 0x10000 // IFF_LOWER_UP: up, and with carrier
	// skipStats is RTEXT_FILTER_SKIP_STATS: counters are most of a link.
	skipStats = 8
)

// linkTable is every link and its IPv6 link-local addresses, by index.
type linkTable struct {
	links  map[uint32]dataplane.Link
	locals map[uint32]map[netip.Addr]bool // whether the address is usable
	// segments are the devices of segments, known by their aliases.
	segments map[uint32]bool
	masters  map[uint32]uint32 // indexes of bridges by those of their ports
	peers    map[uint32]uint32 // indexes of veths' other ends in this namespace
}

func newLinkTable() *linkTable {
	return &linkTable{
		links:  make(map[uint32]dataplane.Link),
		locals: make(map[uint32]map[netip.Addr]bool),

		segments: make(map[uint32]bool),
		masters:  make(map[uint32]uint32),
		peers:    make(map[uint32]uint32),
	}
}

// readLinks dumps all links and their link-local addresses.
func readLinks(c *conn) (*linkTable, error) {
	t := newLinkTable()
	body := appendAttribute(ifinfomsg(0, 0), unix.IFLA_EXT_MASK, binary.NativeEndian.AppendUint32(nil, skipStats))
	err := c.dump(unix.RTM_GETLINK, body, func() { clear(t.links) }, func(m message) { t.update(m) })
	if err != nil {
		return nil, fmt.Errorf("read links: %w", err)
	}
	err = c.dump(unix.RTM_GETADDR, ifaddrmsg(unix.AF_INET6, 0, 0), func() { clear(t.locals) }, func(m message) { t.update(m) })
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) && !errors.Is(err, unix.EOPNOTSUPP) {
		return nil, fmt.Errorf("read IPv6 addresses: %w", err)
	}
	return t, nil
}

// update takes in a message of a dump or a notification.
func (t *linkTable) update(m message) {
	switch m.kind {
	case unix.RTM_NEWLINK:
		if link, ok := parseLink(m); ok {
			t.links[uint32(link.Index)] = link
			t.segments[uint32(link.Index)] = isSegment(m)
			t.masters[uint32(link.Index)] = masterOf(m)
			t.peers[uint32(link.Index)] = peerOf(m)
		}
	case unix.RTM_DELLINK:
		if link, ok := parseLink(m); ok {
			delete(t.links, uint32(link.Index))
			delete(t.locals, uint32(link.Index))
			delete(t.segments, uint32(link.Index))
			delete(t.masters, uint32(link.Index))
			delete(t.peers, uint32(link.Index))
		}
	case unix.RTM_NEWADDR:
		if a, ok := parseAddress(m); ok && a.isLinkLocal() {
			if t.locals[a.index] == nil {
				t.locals[a.index] = make(map[netip.Addr]bool)
			}
			t.locals[a.index][a.prefix.Addr()] = a.usable()
		}
	case unix.RTM_DELADDR:
		if a, ok := parseAddress(m); ok && a.isLinkLocal() {
			delete(t.locals[a.index], a.prefix.Addr())
		}
	}
}

// byName returns all links, each with the lowest of its usable addresses.
func (t *linkTable) byName() map[string]dataplane.Link {
	links := make(map[string]dataplane.Link, len(t.links))
	for index, link := range t.links {
		for _, addr := range slices.SortedFunc(maps.Keys(t.locals[index]), netip.Addr.Compare) {
			if t.locals[index][addr] {
				link.LinkLocal = addr
				break
			}
		}
		link.Master = t.links[t.masters[index]].Name
		if link.Kind == "veth" {
			link.Peer = t.links[t.peers[index]].Name
		}
		links[link.Name] = link
	}
	return links
}

// parseLink reads struct ifinfomsg and its attributes. A bridge tells of its
// ports by messages of the same kind, which are no links.
func parseLink(m message) (dataplane.Link, bool) {
	if len(m.body) < unix.SizeofIfInfomsg || m.body[0] != unix.AF_UNSPEC {
		return dataplane.Link{}, false
	}
	flags := binary.NativeEndian.Uint32(m.body[8:])
	link := dataplane.Link{
		Index:   int(binary.NativeEndian.Uint32(m.body[4:])),
		Up:      flags&unix.IFF_UP != 0,
		Carrier: flags&iffLowerUp != 0,
	}
	for kind, value := range attributes(m.body[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			link.Name = unix.ByteSliceToString(value)
		case unix.IFLA_MTU:
			link.MTU = int(number(value))
		case unix.IFLA_ADDRESS:
			link.MAC = net.HardwareAddr(value).String()
		case unix.IFLA_LINKINFO:
			for inner, text := range attributes(value) {
				if inner == unix.IFLA_INFO_KIND {
					link.Kind = unix.ByteSliceToString(text)
				}
			}
		}
	}
	return link, link.Name != ""
}

// masterOf is the index of what a link is a port of; 0: of nothing.
func masterOf(m message) uint32 {
	for kind, value := range attributes(m.body[unix.SizeofIfInfomsg:]) {
		if kind == unix.IFLA_MASTER {
			return number(value)
		}
	}
	return 0
}

// peerOf is the index of the link that a link names as its lower or other one,
// if that is in the same namespace; 0: none is.
func peerOf(m message) (peer uint32) {
	for kind, value := range attributes(m.body[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_LINK:
			peer = number(value)
		case unix.IFLA_LINK_NETNSID:
			return 0
		}
	}
	return peer
}

// isSegment tells whether the alias of a link is that of a segment's device.
func isSegment(m message) bool {
	for kind, value := range attributes(m.body[unix.SizeofIfInfomsg:]) {
		if kind == unix.IFLA_IFALIAS {
			return strings.HasPrefix(unix.ByteSliceToString(value), dataplane.AliasPrefix)
		}
	}
	return false
}

// ifinfomsg is struct ifinfomsg: family, padding, type, index, flags, change.
func ifinfomsg(flags, change uint32) []byte {
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[8:], flags)
	binary.NativeEndian.PutUint32(body[12:], change)
	return body
}

// link asks for one link by name.
func (c *conn) link(name string) (dataplane.Link, error) {
	body := appendAttribute(ifinfomsg(0, 0), unix.IFLA_EXT_MASK, binary.NativeEndian.AppendUint32(nil, skipStats))
	m, err := c.get(unix.RTM_GETLINK, appendAttribute(body, unix.IFLA_IFNAME, append([]byte(name), 0)))
	if err != nil {
		return dataplane.Link{}, fmt.Errorf("find link %s: %w", name, err)
	}
	link, ok := parseLink(m)
	if !ok {
		return dataplane.Link{}, fmt.Errorf("find link %s: the kernel's answer is no link", name)
	}
	return link, nil
}

// hasLinkLocal tells whether a link has an IPv6 link-local address, usable or not.
// It asks for that link alone: a node may have hundreds.
func (c *conn) hasLinkLocal(index uint32) (has bool, err error) {
	err = c.dump(unix.RTM_GETADDR, ifaddrmsg(unix.AF_INET6, 0, index), func() { has = false }, func(m message) {
		a, ok := parseAddress(m)
		has = has || ok && a.index == index && a.isLinkLocal()
	})
	if err != nil && !absent(err) {
		return false, fmt.Errorf("read the IPv6 addresses of link %d: %w", index, err)
	}
	return has, nil
}

// setUp brings a link up.
func (c *conn) setUp(name string) error {
	var b batch
	b.begin(unix.RTM_SETLINK, 0, ifinfomsg(unix.IFF_UP, unix.IFF_UP)...)
	b.attribute(unix.IFLA_IFNAME, append([]byte(name), 0))
	refused, err := c.execute(&b)
	if err != nil {
		return err
	}
	return refused[0]
}

// setPort brings a link up and has the kernel make its link-local address.
func (k *Kernel) setPort(c *conn, name string) error {
	mode := "net/ipv6/conf/" + name + "/addr_gen_mode"
	const eui64, none = "0", "1" // enum in6_addr_gen_mode
	if name != "lo" && k.Sysctls([]string{mode})[mode] == none {
		if err := k.writeSysctl(mode, eui64); err != nil {
			return err
		}
	}
	if err := c.setUp(name); err != nil {
		return err
	}
	link, err := c.link(name)
	if err != nil || !link.Carrier || name == "lo" {
		return err
	}
	if has, err := c.hasLinkLocal(uint32(link.Index)); err != nil || has {
		return err
	}
	// Somebody removed it. The kernel makes one when the way of making them
	// changes (net/ipv6/addrconf.c, addrconf_sysctl_addr_gen_mode).
	if err := k.writeSysctl(mode, none); err != nil {
		return err
	}
	return k.writeSysctl(mode, eui64)
}
