package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"frond/internal/netns"
)

// fib is what a node's kernel forwards by: the ports that the main table's
// routes use, sorted, by destination. Legs that are dead or have no carrier
// are left out.
type fib map[netip.Prefix][]string

// readFIB asks the kernel itself. It reads nexthop objects as well: where
// net.ipv4.nexthop_compat_mode is 0, routes only name them (ip-nexthop(8)).
func readFIB(ns *netns.NS) (table fib, err error) {
	err = ns.Do(func() (err error) {
		// What changes meanwhile makes the kernel's answer inconsistent.
		for range 10 {
			if table, err = readTable(); !errors.Is(err, netlink.ErrDumpInterrupted) {
				break
			}
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read the routes of %s: %w", ns.Name(), err)
	}
	return table, nil
}

func readTable() (fib, error) {
	names, err := linkNames()
	if err != nil {
		return nil, err
	}
	hops, err := readNextHops()
	if err != nil {
		return nil, err
	}
	table := fib{}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		if err := table.readRoutes(family, names, hops); err != nil {
			return nil, err
		}
	}
	return table, nil
}

func linkNames() (map[int]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	return names, nil
}

// rtaNextHopID is RTA_NH_ID of linux/rtnetlink.h.
const rtaNextHopID = 30

const unusable = unix.RTNH_F_DEAD | unix.RTNH_F_LINKDOWN

// readNextHops gives the interfaces that each nexthop object, or group of
// them, leads to.
func readNextHops() (map[uint32][]int, error) {
	request := nl.NewNetlinkRequest(unix.RTM_GETNEXTHOP, unix.NLM_F_DUMP)
	request.AddRawData(make([]byte, unix.SizeofNhmsg))
	messages, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEXTHOP)
	if err != nil {
		return nil, fmt.Errorf("dump nexthop objects: %w", err)
	}
	links, groups := map[uint32][]int{}, map[uint32][]uint32{}
	for _, m := range messages {
		if len(m) < unix.SizeofNhmsg {
			continue
		}
		attrs, err := nl.ParseRouteAttrAsMap(m[unix.SizeofNhmsg:])
		if err != nil {
			return nil, fmt.Errorf("parse nexthop object: %w", err)
		}
		id := number(attrs[unix.NHA_ID].Value)
		flags := number(m[4:]) // nhmsg.nh_flags
		if oif := number(attrs[unix.NHA_OIF].Value); oif != 0 && flags&unusable == 0 {
			links[id] = []int{int(oif)}
		}
		for member := range slices.Chunk(attrs[unix.NHA_GROUP].Value, unix.SizeofNexthopGrp) {
			groups[id] = append(groups[id], number(member))
		}
	}
	for id, members := range groups {
		for _, member := range members {
			links[id] = append(links[id], links[member]...)
		}
	}
	return links, nil
}

func (f fib) readRoutes(family uint8, names map[int]string, hops map[uint32][]int) error {
	request := nl.NewNetlinkRequest(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
	request.AddData(&nl.RtMsg{RtMsg: unix.RtMsg{Family: family}})
	messages, err := request.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWROUTE)
	if err != nil {
		return fmt.Errorf("dump routes: %w", err)
	}
	for _, m := range messages {
		if len(m) < unix.SizeofRtMsg {
			continue
		}
		msg := nl.DeserializeRtMsg(m)
		if msg.Type != unix.RTN_UNICAST || msg.Table != unix.RT_TABLE_MAIN || msg.Flags&unix.RTM_F_CLONED != 0 {
			continue
		}
		attrs, err := nl.ParseRouteAttrAsMap(m[unix.SizeofRtMsg:])
		if err != nil {
			return fmt.Errorf("parse route: %w", err)
		}
		prefix := destination(msg, attrs[unix.RTA_DST].Value)
		for _, link := range legs(msg, attrs, hops) {
			// IPv6 dumps the legs of a route without nexthop objects as routes.
			if name := names[link]; !slices.Contains(f[prefix], name) {
				f[prefix] = append(f[prefix], name)
			}
		}
		slices.Sort(f[prefix])
	}
	return nil
}

func destination(msg *nl.RtMsg, dst []byte) netip.Prefix {
	addr, ok := netip.AddrFromSlice(dst)
	if !ok { // the default route has no RTA_DST
		addr = netip.IPv6Unspecified()
		if msg.Family == unix.AF_INET {
			addr = netip.IPv4Unspecified()
		}
	}
	return netip.PrefixFrom(addr, int(msg.Dst_len))
}

// legs are the interfaces that a route leads to: by nexthop object, by
// multipath (struct rtnexthop), or its only one.
func legs(msg *nl.RtMsg, attrs map[uint16]syscall.NetlinkRouteAttr, hops map[uint32][]int) (links []int) {
	if id := number(attrs[rtaNextHopID].Value); id != 0 {
		return hops[id]
	}
	for rest := attrs[unix.RTA_MULTIPATH].Value; len(rest) >= unix.SizeofRtNexthop; {
		length := int(binary.NativeEndian.Uint16(rest))
		if flags := rest[2]; flags&unusable == 0 {
			links = append(links, int(number(rest[4:])))
		}
		if length < unix.SizeofRtNexthop || length > len(rest) {
			break
		}
		rest = rest[length:]
	}
	if oif := number(attrs[unix.RTA_OIF].Value); oif != 0 && msg.Flags&unusable == 0 {
		links = append(links, int(oif))
	}
	return links
}

// number is 0 for an attribute that is absent.
func number(value []byte) uint32 {
	if len(value) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(value)
}
