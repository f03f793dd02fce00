package kernel

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"frond/internal/dataplane"

	"golang.org/x/sys/unix"
)

// Positions in the arrays of values that come with a link (IFLA_INET_CONF,
// linux/ip.h, counts from 1; IFLA_INET6_CONF, linux/ipv6.h, from 0).
const (
	devconfRPFilter      = 8 - 1
	devconfSendRedirects = 6 - 1
	devconfARPIgnore     = 19 - 1
	devconfAcceptRA      = 3
	devconfAutoconf      = 5
	addrGenModeNone      = 1 // enum in6_addr_gen_mode
	arpIgnoreForeign     = 1 // answer for addresses of the interface only
)

// overlayLink is a link, with what matters of it to segments.
type overlayLink struct {
	dataplane.InstalledDevice
	index  uint32
	mac    dataplane.MAC
	master uint32 // index of the bridge that it is a port of, 0: none
	// carrier: something is at the other end.
	carrier bool
	// blocked: frond has taken it out of its bridge's forwarding.
	blocked bool
}

// parseOverlayLink reads struct ifinfomsg and its attributes.
func parseOverlayLink(m message) (overlayLink, bool) {
	if len(m.body) < unix.SizeofIfInfomsg || m.body[0] != unix.AF_UNSPEC {
		return overlayLink{}, false
	}
	link := overlayLink{index: binary.NativeEndian.Uint32(m.body[4:])}
	flags := binary.NativeEndian.Uint32(m.body[8:])
	link.Up, link.carrier = flags&unix.IFF_UP != 0, flags&unix.IFF_LOWER_UP != 0
	link.Deaf = true
	for kind, value := range attributes(m.body[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_IFNAME:
			link.Name = unix.ByteSliceToString(value)
		case unix.IFLA_IFALIAS:
			link.Alias = unix.ByteSliceToString(value)
		case unix.IFLA_MTU:
			link.MTU = int(number(value))
		case unix.IFLA_ADDRESS:
			copy(link.mac[:], value)
		case unix.IFLA_MASTER:
			link.master = number(value)
		case unix.IFLA_LINKINFO:
			link.parseInfo(value)
		case unix.IFLA_AF_SPEC:
			link.parseFamilies(value)
		}
	}
	if link.Kind == dataplane.KindBridge {
		link.MAC = link.mac
	}
	ours := link.Kind == dataplane.KindBridge || link.Kind == dataplane.KindVXLAN
	link.Owned = ours && strings.HasPrefix(link.Alias, dataplane.AliasPrefix)
	return link, link.Name != ""
}

// parseInfo reads IFLA_LINKINFO. The kind comes before the data.
func (l *overlayLink) parseInfo(info []byte) {
	portOf := ""
	for kind, value := range attributes(info) {
		switch {
		case kind == unix.IFLA_INFO_KIND:
			l.Kind = unix.ByteSliceToString(value)
		case kind == unix.IFLA_INFO_SLAVE_KIND:
			portOf = unix.ByteSliceToString(value)
		case kind == unix.IFLA_INFO_DATA && l.Kind == dataplane.KindBridge:
			l.parseBridge(value)
		case kind == unix.IFLA_INFO_DATA && l.Kind == dataplane.KindVXLAN:
			l.parseVXLAN(value)
		case kind == unix.IFLA_INFO_SLAVE_DATA && portOf == dataplane.KindBridge && l.Kind == dataplane.KindVXLAN:
			l.parseBridgePort(value)
		case kind == unix.IFLA_INFO_SLAVE_DATA && portOf == dataplane.KindBridge:
			l.parseBlocked(value)
		}
	}
}

func (l *overlayLink) parseBridge(data []byte) {
	l.Unlimited = true
	for kind, value := range attributes(data) {
		switch kind {
		case unix.IFLA_BR_STP_STATE:
			l.STP = number(value) != 0
		case unix.IFLA_BR_VLAN_FILTERING:
			l.VLANFiltering = isOn(value)
		case unix.IFLA_BR_MCAST_SNOOPING:
			l.MulticastSnooping = isOn(value)
		case unix.IFLA_BR_FDB_MAX_LEARNED:
			l.MaxLearned = number(value)
			l.Unlimited = false
		}
	}
}

func (l *overlayLink) parseVXLAN(data []byte) {
	for kind, value := range attributes(data) {
		switch kind {
		case unix.IFLA_VXLAN_ID:
			l.VNI = number(value)
		case unix.IFLA_VXLAN_LOCAL, unix.IFLA_VXLAN_LOCAL6:
			l.Local = address(value)
		case unix.IFLA_VXLAN_PORT:
			if len(value) == 2 {
				l.Port = binary.BigEndian.Uint16(value)
			}
		case unix.IFLA_VXLAN_TOS:
			if len(value) == 1 {
				l.TOS = value[0]
			}
		case unix.IFLA_VXLAN_LEARNING:
			l.Learning = isOn(value)
		}
	}
}

func (l *overlayLink) parseBridgePort(data []byte) {
	for kind, value := range attributes(data) {
		switch kind {
		case unix.IFLA_BRPORT_LEARNING:
			l.PortLearning = isOn(value)
		case unix.IFLA_BRPORT_NEIGH_SUPPRESS:
			l.NeighSuppress = isOn(value)
		}
	}
}

func (l *overlayLink) parseBlocked(data []byte) {
	var disabled, marked bool
	for kind, value := range attributes(data) {
		switch kind {
		case unix.IFLA_BRPORT_STATE:
			disabled = len(value) == 1 && value[0] == portDisabled
		case unix.IFLA_BRPORT_COST:
			marked = number(value) == costBlocked
		}
	}
	l.blocked = disabled && marked
}

// parseFamilies reads IFLA_AF_SPEC: what IPv4 and IPv6 do on the link.
func (l *overlayLink) parseFamilies(spec []byte) {
	for family, values := range attributes(spec) {
		for kind, value := range attributes(values) {
			switch {
			case family == unix.AF_INET && kind == unix.IFLA_INET_CONF && l.Kind != dataplane.KindVXLAN:
				l.Deaf = l.Deaf && devconf(value, devconfARPIgnore) >= arpIgnoreForeign &&
					devconf(value, devconfRPFilter) == 0 && devconf(value, devconfSendRedirects) == 0
			case family == unix.AF_INET6 && kind == unix.IFLA_INET6_CONF:
				l.Deaf = l.Deaf && devconf(value, devconfAcceptRA) == 0 && devconf(value, devconfAutoconf) == 0
			case family == unix.AF_INET6 && kind == unix.IFLA_INET6_ADDR_GEN_MODE:
				l.Deaf = l.Deaf && len(value) == 1 && value[0] == addrGenModeNone
			}
		}
	}
}

// devconf reads one of an array of values.
func devconf(values []byte, position int) uint32 {
	if len(values) < 4*(position+1) {
		return 0
	}
	return binary.NativeEndian.Uint32(values[4*position:])
}

func isOn(value []byte) bool { return len(value) == 1 && value[0] != 0 }

// deafValues are what makes a device deaf below /proc/sys/net, where that exists.
func deafValues(device dataplane.Device) [][2]string {
	values := [][2]string{
		{"ipv6/conf/" + device.Name + "/addr_gen_mode", "1"},
		{"ipv6/conf/" + device.Name + "/accept_ra", "0"},
		{"ipv6/conf/" + device.Name + "/autoconf", "0"},
	}
	if device.Kind == dataplane.KindBridge {
		// What a guest sends may come back another way, and no way is the
		// shorter one for a guest to take by itself.
		values = append(values,
			[2]string{"ipv4/conf/" + device.Name + "/arp_ignore", "1"},
			[2]string{"ipv4/conf/" + device.Name + "/rp_filter", "0"},
			[2]string{"ipv4/conf/" + device.Name + "/send_redirects", "0"})
	}
	return values
}

// createDevice encodes a device and its alias: the kernel takes no alias with
// a new one, so it follows in the same system call and nothing can come between.
func (b *batch) createDevice(device dataplane.Device) {
	b.begin(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfomsg(0, 0)...)
	b.text(unix.IFLA_IFNAME, device.Name)
	if !device.MAC.IsZero() {
		b.attribute(unix.IFLA_ADDRESS, device.MAC[:])
	}
	b.attribute(unix.IFLA_LINKINFO, linkInfo(device, true))
	b.changeLink(device.Name)
	b.text(unix.IFLA_IFALIAS, device.Alias)
}

// changeDevice encodes everything of a device that can be changed in place.
// A port's attributes follow its bridge, and it comes up last: it never
// learns in between.
func (b *batch) changeDevice(device dataplane.Device, have overlayLink, bridge uint32) {
	b.begin(unix.RTM_NEWLINK, 0, ifinfomsg(0, 0)...)
	b.text(unix.IFLA_IFNAME, device.Name)
	b.attribute(unix.IFLA_LINKINFO, linkInfo(device, false))
	if have.MTU != device.MTU {
		b.changeLink(device.Name)
		b.number(unix.IFLA_MTU, uint32(device.MTU))
	}
	if have.Alias != device.Alias {
		b.changeLink(device.Name)
		b.text(unix.IFLA_IFALIAS, device.Alias)
	}
	if !device.MAC.IsZero() && have.MAC != device.MAC {
		b.changeLink(device.Name)
		b.attribute(unix.IFLA_ADDRESS, device.MAC[:])
	}
	if device.Kind == dataplane.KindVXLAN {
		if have.master != bridge {
			b.changeLink(device.Name)
			b.number(unix.IFLA_MASTER, bridge)
		}
		b.bridgePort(device, have.index)
	}
}

// changeLink begins a change of one link.
func (b *batch) changeLink(name string) {
	b.begin(unix.RTM_SETLINK, 0, ifinfomsg(0, 0)...)
	b.text(unix.IFLA_IFNAME, name)
}

// bridgePort encodes what a bridge does with a port (bridge-link(8)).
func (b *batch) bridgePort(device dataplane.Device, index uint32) {
	body := ifinfomsg(0, 0)
	body[0] = unix.AF_BRIDGE
	binary.NativeEndian.PutUint32(body[4:], index)
	b.begin(unix.RTM_SETLINK, 0, body...)
	var port []byte
	port = appendAttribute(port, unix.IFLA_BRPORT_LEARNING, octet(device.PortLearning))
	port = appendAttribute(port, unix.IFLA_BRPORT_NEIGH_SUPPRESS, octet(device.NeighSuppress))
	b.attribute(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, port)
}

// linkInfo encodes IFLA_LINKINFO; what tells one VXLAN device from another
// comes with its creation only.
func linkInfo(device dataplane.Device, creation bool) []byte {
	var data []byte
	switch device.Kind {
	case dataplane.KindBridge:
		data = appendAttribute(data, unix.IFLA_BR_STP_STATE, number32(device.STP))
		data = appendAttribute(data, unix.IFLA_BR_MCAST_SNOOPING, octet(device.MulticastSnooping))
		if !creation { // refused by a kernel without VLANs
			data = appendAttribute(data, unix.IFLA_BR_FDB_MAX_LEARNED, binary.NativeEndian.AppendUint32(nil, device.MaxLearned))
		}
	case dataplane.KindVXLAN:
		if creation {
			data = appendAttribute(data, unix.IFLA_VXLAN_ID, binary.NativeEndian.AppendUint32(nil, device.VNI))
			data = appendAttribute(data, unix.IFLA_VXLAN_PORT, binary.BigEndian.AppendUint16(nil, device.Port))
		}
		data = appendAttribute(data, vxlanLocal(device.Local), device.Local.AsSlice())
		data = appendAttribute(data, unix.IFLA_VXLAN_LEARNING, octet(device.Learning))
		data = appendAttribute(data, unix.IFLA_VXLAN_TOS, []byte{device.TOS})
	}
	info := appendAttribute(nil, unix.IFLA_INFO_KIND, append([]byte(device.Kind), 0))
	return appendAttribute(info, unix.IFLA_INFO_DATA|unix.NLA_F_NESTED, data)
}

func vxlanLocal(local netip.Addr) uint16 {
	if local.Is4() {
		return unix.IFLA_VXLAN_LOCAL
	}
	return unix.IFLA_VXLAN_LOCAL6
}

func (b *batch) text(kind uint16, text string) { b.attribute(kind, append([]byte(text), 0)) }

func octet(on bool) []byte {
	if on {
		return []byte{1}
	}
	return []byte{0}
}

func number32(on bool) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(octet(on)[0])) }
