package kernel

import (
	"net/netip"

	"frond/internal/dataplane"

	"golang.org/x/sys/unix"
)

// rtaNhID is RTA_NH_ID: the nexthop object that a route refers to.
const rtaNhID = 30

func (b *batch) setRoute(op dataplane.SetRoute) {
	b.beginRoute(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, op.Prefix)
	b.number(rtaNhID, op.NextHopID)
	if op.Source.IsValid() {
		b.address(unix.RTA_PREFSRC, op.Source)
	}
}

func (b *batch) deleteRoute(op dataplane.DeleteRoute) {
	b.beginRoute(unix.RTM_DELROUTE, 0, op.Prefix)
}

func (b *batch) beginRoute(kind, flags uint16, prefix netip.Prefix) {
	b.begin(kind, flags, rtmsg(family(prefix.Addr()), uint8(prefix.Bits()), unix.RTN_UNICAST)...)
	b.address(unix.RTA_DST, prefix.Addr())
	b.number(unix.RTA_PRIORITY, Metric)
}

// rtmsg is struct rtmsg: family, lengths of destination and source, tos,
// table, protocol, scope, type, flags.
func rtmsg(family, length, kind uint8) []byte {
	return []byte{family, length, 0, 0, unix.RT_TABLE_MAIN, Protocol, unix.RT_SCOPE_UNIVERSE, kind, 0, 0, 0, 0}
}

// routes dumps frond's routes; a kernel with strict checking sends no others.
func (d *dumper) routes(family uint8) error {
	reset := func() {
		for prefix := range d.state.Routes {
			if prefix.Addr().Is4() == (family == unix.AF_INET) {
				delete(d.state.Routes, prefix)
			}
		}
	}
	return d.conn.dump(unix.RTM_GETROUTE, rtmsg(family, 0, unix.RTN_UNICAST), reset, d.route)
}

func (d *dumper) route(m message) {
	if m.kind != unix.RTM_NEWROUTE || len(m.body) < unix.SizeofRtMsg {
		return
	}
	family, length, protocol, table := m.body[0], int(m.body[1]), m.body[5], uint32(m.body[4])
	if protocol != Protocol {
		return
	}
	dst := unspecified(family)
	var route dataplane.InstalledRoute
	var metric uint32
	for kind, value := range attributes(m.body[unix.SizeofRtMsg:]) {
		switch kind {
		case unix.RTA_DST:
			dst = address(value)
		case unix.RTA_PRIORITY:
			metric = number(value)
		case unix.RTA_TABLE:
			table = number(value)
		case unix.RTA_PREFSRC:
			route.Source = address(value)
		case rtaNhID:
			route.NextHopID = number(value)
		}
	}
	if table == unix.RT_TABLE_MAIN && metric == Metric {
		d.state.Routes[netip.PrefixFrom(dst, length)] = route
	}
}

// unspecified is the address of a family that stands for none.
func unspecified(family uint8) netip.Addr {
	if family == unix.AF_INET6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}
