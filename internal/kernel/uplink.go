package kernel

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Routers are the next hops of the default routes over an interface that are
// somebody else's than frond's, the preferred one of each family first.
func (k *Kernel) Routers(port string) (routers []netip.Addr, err error) {
	k.look(func(c *conn) { routers, err = c.routers(port) })
	if err != nil {
		err = fmt.Errorf("read the default routes over %s: %w", port, err)
	}
	return routers, err
}

// foreignDefault is a default route that is not frond's.
type foreignDefault struct {
	via    netip.Addr
	metric uint32
}

func (c *conn) routers(port string) ([]netip.Addr, error) {
	link, err := c.link(port)
	if err != nil {
		return nil, err
	}
	var routers []netip.Addr
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		var found []foreignDefault
		request := rtmsg(family, 0, unix.RTN_UNICAST)
		request[5] = unix.RTPROT_UNSPEC // whoever it is from
		var b batch
		b.begin(unix.RTM_GETROUTE, unix.NLM_F_DUMP, request...)
		b.number(unix.RTA_OIF, uint32(link.Index))
		err := c.dump(unix.RTM_GETROUTE, b.data[unix.SizeofNlMsghdr:], func() { found = nil }, func(m message) {
			found = append(found, foreignDefaults(m, uint32(link.Index))...)
		})
		if err != nil && !absent(err) {
			return nil, err
		}
		slices.SortStableFunc(found, func(a, b foreignDefault) int { return cmp.Compare(a.metric, b.metric) })
		for _, f := range found {
			routers = append(routers, f.via)
		}
	}
	return routers, nil
}

// foreignDefaults reads the next hops over an interface from a message of a
// dump; none if it is no default route of the main table, or frond's own.
func foreignDefaults(m message, index uint32) []foreignDefault {
	if m.kind != unix.RTM_NEWROUTE || len(m.body) < unix.SizeofRtMsg {
		return nil
	}
	length, table, protocol, kind := m.body[1], m.body[4], m.body[5], m.body[7]
	if length != 0 || table != unix.RT_TABLE_MAIN || protocol == Protocol || kind != unix.RTN_UNICAST {
		return nil
	}
	var metric uint32
	var single rawLeg
	var legs []rawLeg
	for kind, value := range attributes(m.body[unix.SizeofRtMsg:]) {
		switch kind {
		case unix.RTA_PRIORITY:
			metric = number(value)
		case unix.RTA_OIF:
			single.index = number(value)
		case unix.RTA_MULTIPATH:
			legs = multipath(value)
		default:
			single.setVia(kind, value)
		}
	}
	var found []foreignDefault
	for _, leg := range append(legs, single) {
		if leg.index == index && leg.via.IsValid() {
			found = append(found, foreignDefault{leg.via, metric})
		}
	}
	return found
}
