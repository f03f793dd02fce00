package kernel

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"frond/internal/dataplane"
)

// RefreshMasquerade has the kernel forget connections from the sources to
// outside that it has let pass without source NAT. Rules are asked for the
// first packet of a connection alone: one that went another way while the
// uplink was dead, or began while the rules were gone, would otherwise leave
// with its own address for as long as it goes on.
func (k *Kernel) RefreshMasquerade(m dataplane.Masquerade) error {
	if m.Port == "" {
		return nil
	}
	return k.inside(func() error {
		handle, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
		if err != nil {
			return fmt.Errorf("open ctnetlink: %w", err)
		}
		defer handle.Close()
		var failed []error
		for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
			_, err := handle.ConntrackDeleteFilters(netlink.ConntrackTable, family, unmasqueraded(m.Sources))
			// An entry may end by itself meanwhile.
			if err != nil && !errors.Is(err, unix.ENOENT) {
				failed = append(failed, fmt.Errorf("forget connections without source NAT: %w", err))
			}
		}
		return errors.Join(failed...)
	})
}

// unmasqueraded are the connections from one of these prefixes to elsewhere
// whose answers go straight to where they came from.
type unmasqueraded []netip.Prefix

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (sources unmasqueraded) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	inside := func(ip net.IP) bool {
		a, ok := netip.AddrFromSlice(ip)
		return ok && slices.ContainsFunc(sources, func(p netip.Prefix) bool { return p.Contains(a.Unmap()) })
	}
	return inside(flow.Forward.SrcIP) && !inside(flow.Forward.DstIP) && flow.Reverse.DstIP.Equal(flow.Forward.SrcIP)
}
