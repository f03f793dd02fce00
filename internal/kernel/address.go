package kernel

import (
	"encoding/binary"
	"maps"
	"net/netip"

	"frond/internal/dataplane"

	"golang.org/x/sys/unix"
)

// ifaProto is IFA_PROTO (Linux 5.18): who added an address.
const ifaProto = 11

// addAddress encodes an address of a loopback interface or of a segment's
// bridge. No other node can have the one, and all have the other: nothing is
// to be detected.
func (b *batch) addAddress(prefix netip.Prefix, link uint32) {
	b.beginAddress(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, prefix, link)
	b.number(unix.IFA_FLAGS, unix.IFA_F_PERMANENT|unix.IFA_F_NODAD)
	b.attribute(ifaProto, []byte{Protocol})
}

func (b *batch) deleteAddress(prefix netip.Prefix, link uint32) {
	b.beginAddress(unix.RTM_DELADDR, 0, prefix, link)
}

func (b *batch) beginAddress(kind, flags uint16, prefix netip.Prefix, index uint32) {
	b.begin(kind, flags, ifaddrmsg(family(prefix.Addr()), uint8(prefix.Bits()), index)...)
	b.address(unix.IFA_LOCAL, prefix.Addr())
	b.address(unix.IFA_ADDRESS, prefix.Addr())
}

// ifaddrmsg is struct ifaddrmsg: family, prefix length, flags, scope, index.
func ifaddrmsg(family, length uint8, index uint32) []byte {
	return binary.NativeEndian.AppendUint32([]byte{family, length, 0, unix.RT_SCOPE_UNIVERSE}, index)
}

// interfaceAddress is an address as the kernel shows it.
type interfaceAddress struct {
	index    uint32
	prefix   netip.Prefix
	flags    uint32
	protocol uint8
}

func parseAddress(m message) (interfaceAddress, bool) {
	if len(m.body) < unix.SizeofIfAddrmsg {
		return interfaceAddress{}, false
	}
	a := interfaceAddress{
		index: binary.NativeEndian.Uint32(m.body[4:]),
		flags: uint32(m.body[2]),
	}
	var local, peer netip.Addr
	for kind, value := range attributes(m.body[unix.SizeofIfAddrmsg:]) {
		switch kind {
		case unix.IFA_LOCAL:
			local = address(value)
		case unix.IFA_ADDRESS:
			peer = address(value)
		case unix.IFA_FLAGS:
			a.flags = number(value)
		case ifaProto:
			if len(value) == 1 {
				a.protocol = value[0]
			}
		}
	}
	if !local.IsValid() {
		local = peer // IPv6 sends IFA_LOCAL only where there is a peer
	}
	a.prefix = netip.PrefixFrom(local, int(m.body[1]))
	return a, a.prefix.IsValid()
}

// usable tells that the address can be spoken from.
func (a interfaceAddress) usable() bool {
	if a.flags&unix.IFA_F_DADFAILED != 0 {
		return false
	}
	return a.flags&unix.IFA_F_TENTATIVE == 0 || a.flags&unix.IFA_F_OPTIMISTIC != 0
}

func (a interfaceAddress) isLinkLocal() bool {
	return a.prefix.Addr().Is6() && a.prefix.Addr().IsLinkLocalUnicast()
}

// addresses dumps what is on lo and on other interfaces, frond's and others',
// but for segments' bridges and link-local addresses.
func (d *dumper) addresses(family uint8) error {
	reset := func() {
		ofFamily := func(p netip.Prefix) bool { return p.Addr().Is4() == (family == unix.AF_INET) }
		for _, set := range []map[netip.Prefix]struct{}{d.state.Addresses, d.state.ForeignAddresses} {
			maps.DeleteFunc(set, func(p netip.Prefix, _ struct{}) bool { return ofFamily(p) })
		}
		maps.DeleteFunc(d.state.PortAddresses, func(a dataplane.PortAddress, _ bool) bool { return ofFamily(a.Prefix) })
	}
	return d.conn.dump(unix.RTM_GETADDR, ifaddrmsg(family, 0, 0), reset, func(m message) {
		if a, ok := parseAddress(m); ok {
			d.address(a)
		}
	})
}

func (d *dumper) address(a interfaceAddress) {
	name, ours := d.name(a.index), a.protocol == Protocol
	switch {
	case name == "" || d.links.segments[a.index]:
	case name != "lo":
		if !a.isLinkLocal() {
			d.state.PortAddresses[dataplane.PortAddress{Port: name, Prefix: a.prefix}] = ours
		}
	case ours:
		d.state.Addresses[a.prefix] = struct{}{}
	default:
		d.state.ForeignAddresses[a.prefix] = struct{}{}
	}
}
