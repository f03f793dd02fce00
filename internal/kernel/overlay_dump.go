package kernel

import (
	"context"
	"fmt"
	"maps"
	"net/netip"

	"frond/internal/dataplane"

	"golang.org/x/sys/unix"
)

// DumpOverlay returns every device that is frond's by its alias, every other
// one that bears the name of one of the segments', and the entries of these
// segments.
func (k *Kernel) DumpOverlay(ctx context.Context, segments []dataplane.Segment) (dataplane.OverlayState, error) {
	d := &overlayDumper{segments: segments}
	var err error
	k.with(func(c *conn) {
		d.conn = c
		err = d.all(ctx)
	})
	return d.state, err
}

type overlayDumper struct {
	conn     *conn
	segments []dataplane.Segment
	links    map[uint32]overlayLink
	// The segments by the index of their devices.
	vxlans, bridges map[uint32]uint32
	state           dataplane.OverlayState
}

func (d *overlayDumper) all(ctx context.Context) error {
	var err error
	if d.links, err = readOverlayLinks(d.conn); err != nil {
		return err
	}
	d.devices()
	tables := []struct {
		name   string
		family uint8
		note   func(entry)
	}{
		{"forwarding entries", unix.AF_BRIDGE, d.forwarding},
		{"IPv4 neighbours", unix.AF_INET, d.neighbor},
		{"IPv6 neighbours", unix.AF_INET6, d.neighbor},
	}
	if len(d.vxlans) == 0 && len(d.bridges) == 0 {
		return nil
	}
	for _, table := range tables {
		if err := ctx.Err(); err != nil {
			return err
		}
		reset := func() { d.forget(table.family) }
		if err := d.conn.entries(table.family, reset, table.note); err != nil && !absent(err) {
			return fmt.Errorf("read %s: %w", table.name, err)
		}
	}
	d.leaveGuests()
	return d.addresses()
}

// addresses notes those of the segments' bridges. Those with a lifetime are
// not kept by the overlay.
func (d *overlayDumper) addresses() error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		reset := func() {
			maps.DeleteFunc(d.state.Addresses, func(a dataplane.BridgeAddress, _ bool) bool {
				return a.Prefix.Addr().Is4() == (family == unix.AF_INET)
			})
		}
		err := d.conn.dump(unix.RTM_GETADDR, ifaddrmsg(family, 0, 0), reset, func(m message) {
			a, ok := parseAddress(m)
			if _, ours := d.bridges[a.index]; !ok || !ours || a.flags&unix.IFA_F_PERMANENT == 0 {
				return
			}
			d.state.Addresses[dataplane.BridgeAddress{Bridge: d.links[a.index].Name, Prefix: a.prefix}] = a.protocol == Protocol
		})
		if err != nil && !absent(err) {
			return fmt.Errorf("read addresses: %w", err)
		}
	}
	return nil
}

// entries dumps a table of struct ndmsg.
func (c *conn) entries(family uint8, reset func(), note func(entry)) error {
	body := make([]byte, unix.SizeofNdMsg)
	body[0] = family
	return c.dump(unix.RTM_GETNEIGH, body, reset, func(m message) {
		if e, ok := parseEntry(m); ok && e.family == family {
			note(e)
		}
	})
}

// readOverlayLinks dumps all links by their index.
func readOverlayLinks(c *conn) (map[uint32]overlayLink, error) {
	links := make(map[uint32]overlayLink)
	err := c.dump(unix.RTM_GETLINK, withoutStats(ifinfomsg(0, 0)), func() { clear(links) }, func(m message) {
		if link, ok := parseOverlayLink(m); ok {
			links[link.index] = link
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read links: %w", err)
	}
	nameBridges(links)
	return links, nil
}

// nameBridges fills in the names that ports know by index only.
func nameBridges(links map[uint32]overlayLink) {
	for index, link := range links {
		if link.Kind == dataplane.KindVXLAN && link.master != 0 {
			link.Bridge = links[link.master].Name
			links[index] = link
		}
	}
}

// devices notes what is frond's, and what is in its way.
func (d *overlayDumper) devices() {
	d.state.Devices = make(map[string]dataplane.InstalledDevice)
	d.state.Entries = make(map[uint32]*dataplane.OverlayEntries)
	d.state.Addresses = make(map[dataplane.BridgeAddress]bool)
	d.vxlans, d.bridges = make(map[uint32]uint32), make(map[uint32]uint32)
	vnis := make(map[string]uint32)
	for _, segment := range d.segments {
		vnis[segment.Bridge], vnis[segment.VXLAN] = segment.VNI, segment.VNI
		d.state.Entries[segment.VNI] = new(dataplane.OverlayEntries)
		d.forget(unix.AF_BRIDGE)
	}
	for _, vni := range vnis {
		d.state.Entries[vni].Neighbors = make(map[netip.Addr]dataplane.MAC)
	}
	for index, link := range d.links {
		vni, named := vnis[link.Name]
		if !named && !link.Owned {
			continue
		}
		d.state.Devices[link.Name] = link.InstalledDevice
		switch {
		case !named || !link.Owned:
		case link.Kind == dataplane.KindBridge:
			d.bridges[index] = vni
		case link.VNI == vni:
			d.vxlans[index] = vni
		}
	}
}

// forget empties what a dump of a family fills.
func (d *overlayDumper) forget(family uint8) {
	for _, entries := range d.state.Entries {
		switch family {
		case unix.AF_BRIDGE:
			entries.MACs = make(map[dataplane.MAC]dataplane.InstalledMAC)
			entries.Flood = make(map[netip.Addr]struct{})
		default:
			maps.DeleteFunc(entries.Neighbors, func(ip netip.Addr, _ dataplane.MAC) bool {
				return ip.Is4() == (family == unix.AF_INET)
			})
		}
	}
}

// forwarding notes an entry of a bridge or of a VXLAN device.
func (d *overlayDumper) forwarding(e entry) {
	vni, onVXLAN := d.vxlans[e.index]
	bridge, bridged := d.bridges[e.master]
	switch {
	case onVXLAN && e.flags&unix.NTF_SELF != 0 && e.isOurs():
		d.ownForwarding(d.state.Entries[vni], e)
	case onVXLAN && bridged && e.isOurs():
		d.change(vni, e.mac, func(i *dataplane.InstalledMAC) { i.Bridged = true })
	case !onVXLAN && bridged && e.flags&unix.NTF_SELF == 0 && e.state&unix.NUD_PERMANENT == 0:
		d.change(bridge, e.mac, func(i *dataplane.InstalledMAC) { i.Taken = true })
	}
}

func (d *overlayDumper) ownForwarding(entries *dataplane.OverlayEntries, e entry) {
	if e.mac == flooding {
		if e.dst.IsValid() {
			entries.Flood[e.dst] = struct{}{}
		}
		return
	}
	installed := entries.MACs[e.mac]
	installed.VTEP = e.dst
	entries.MACs[e.mac] = installed
}

func (d *overlayDumper) change(vni uint32, mac dataplane.MAC, change func(*dataplane.InstalledMAC)) {
	installed := d.state.Entries[vni].MACs[mac]
	change(&installed)
	d.state.Entries[vni].MACs[mac] = installed
}

// leaveGuests leaves out MACs that are nothing but local.
func (d *overlayDumper) leaveGuests() {
	for _, entries := range d.state.Entries {
		maps.DeleteFunc(entries.MACs, func(_ dataplane.MAC, i dataplane.InstalledMAC) bool {
			return !i.VTEP.IsValid() && !i.Bridged
		})
	}
}

func (d *overlayDumper) neighbor(e entry) {
	if vni, ok := d.bridges[e.index]; ok && e.isOurs() && e.dst.IsValid() {
		d.state.Entries[vni].Neighbors[e.dst] = e.mac
	}
}
