package fabric

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"go.yaml.in/yaml/v3"

	"frond/internal/secret"
)

// keysOf are the keys that each mapping of the document may have. schema.json
// has the same ones.
var keysOf = map[string][]string{
	"document": {"fabric", "underlay", "nodes", "segments", "store", "guard", "guests"},
	"underlay": {"loopbacks", "ports", "password_file", "previous_password_file", "bfd", "timers"},
	"bfd":      {"interval", "multiplier"},
	"timers":   {"hold", "keepalive"},
	"node":     {"role", "loopback", "loopback6", "asn", "ports", "reserved_ports", "advertise", "anycast", "uplink"},
	"uplink":   {"port", "address", "address6", "dhcp", "next_hop", "next_hop6", "masquerade", "preference"},
	"segment":  {"vni", "nodes", "prefix", "prefix6", "bridge", "mtu", "mac_limit", "gateway", "dhcp", "dhcp6", "dns", "dns_names", "ntp", "ra"},
	"gateway":  {"address", "address6", "mode", "election", "host_routes", "locality"},
	"dhcp": {
		"range", "dns", "search", "ntp", "lease", "grace", "routes", "boot_file", "next_server", "reservations", "port_limit",
	},
	"dhcp6":        {"range", "lease", "grace", "reservations"},
	"route":        {"to", "via"},
	"reservation":  {"mac", "client_id", "address"},
	"reservation6": {"mac", "duid", "address"},
	"store":        {"members", "endpoints", "ca_file", "cert_file", "key_file", "lxd"},
	"lxd":          {"gateways"},
	"guard":        {"routes", "guests", "strict", "broadcast"},
	"guests":       {"lxd"},
}

// Defaults of what the document leaves out.
const (
	defaultBFDInterval   = 100 * time.Millisecond
	defaultBFDMultiplier = 3
	defaultHold          = 9 * time.Second
	defaultPreference    = 100
	defaultLease         = 10 * time.Minute
	defaultGrace         = time.Hour
	defaultMACLimit      = 1000
)

func defaultPorts() []string { return []string{"en*", "eth*"} }

// decode takes each field by itself; what fields mean to each other is the
// business of validate.
func decode(v value, dir string) (*Fabric, *storeChoice) {
	m, ok := v.object(keysOf["document"])
	if !ok {
		return nil, nil
	}
	underlay := func(v value) (Underlay, bool) { return decodeUnderlay(v, dir) }
	f := &Fabric{
		Name:     required(m, "fabric", "name the fabric, as in fabric: apollo", label("a fabric")),
		Underlay: required(m, "underlay", "it needs at least loopbacks, as in underlay: {loopbacks: [10.0.0.0/16]}", underlay),
		Nodes:    required(m, "nodes", "name each node, as in leaf1: {loopback: 10.0.200.1}", decodeNodes),
	}
	nodes := make([]string, len(f.Nodes))
	for i, n := range f.Nodes {
		nodes[i] = n.Name
	}
	segments := func(v value) ([]Segment, bool) { return decodeSegments(v, nodes) }
	f.Segments = optional(m, "segments", nil, segments)
	f.Guard = optional(m, "guard", Guard{Routes: true, Guests: true}, decodeGuard)
	f.Guests = optional(m, "guests", Guests{}, decodeGuests)
	store := func(v value) (*storeChoice, bool) { return decodeStore(v, nodes, dir) }
	return f, optional(m, "store", nil, store)
}

func decodeUnderlay(v value, dir string) (Underlay, bool) {
	m, ok := v.object(keysOf["underlay"])
	if !ok {
		return Underlay{}, false
	}
	password := func(v value) (secret.Text, bool) { return decodePassword(v, dir) }
	u := Underlay{
		Loopbacks:        required(m, "loopbacks", "name the prefixes that node addresses come from, as in [10.0.0.0/16]", list(1, loopbackPrefix)),
		Ports:            optional(m, "ports", defaultPorts(), list(1, glob)),
		Password:         optional(m, "password_file", "", password),
		PreviousPassword: optional(m, "previous_password_file", "", password),
		BFD:              optional(m, "bfd", BFD{true, defaultBFDInterval, defaultBFDMultiplier}, decodeBFD),
		Hold:             defaultHold,
		Keepalive:        defaultHold / 3,
	}
	if previous, ok := m.values["previous_password_file"]; ok {
		checkPrevious(previous, u, m)
	}
	if timers, ok := m.values["timers"]; ok {
		u.Hold, u.Keepalive = decodeTimers(timers)
	}
	return u, true
}

// loopbackPrefix takes an IPv4 prefix, or an IPv6 one with room for the IPv4
// loopback in its low 32 bits.
func loopbackPrefix(v value) (netip.Prefix, bool) {
	p, ok := network(anyFamily, 8, 128, "10.0.0.0/16 or fd00:10::/48")(v)
	if ok && p.Addr().Is6() && p.Bits() > 96 {
		v.wrong(p.String()+" is too long a prefix", "write one of at most /96, for a loopback's low 32 bits are the node's IPv4 loopback")
		return netip.Prefix{}, false
	}
	return p, ok
}

func decodeBFD(v value) (BFD, bool) {
	if v.node.Kind == yaml.ScalarNode && (v.node.Value == "off" || v.node.Value == "false") {
		return BFD{}, true
	}
	if v.node.Kind != yaml.MappingNode {
		v.wrong("is neither a mapping nor off", "write {interval: 100ms, multiplier: 3}, or off")
		return BFD{}, false
	}
	m, ok := v.object(keysOf["bfd"])
	if !ok {
		return BFD{}, false
	}
	interval := duration(10*time.Millisecond, time.Minute, time.Microsecond, "100ms")
	return BFD{
		Enabled:    true,
		Interval:   optional(m, "interval", defaultBFDInterval, interval),
		Multiplier: int(optional(m, "multiplier", defaultBFDMultiplier, integer(2, 50))),
	}, true
}

// decodeTimers takes BGP's timers, which the wire carries in whole seconds
// (RFC 4271 §4.2). Keepalive is a third of hold unless set.
func decodeTimers(v value) (hold, keepalive time.Duration) {
	m, ok := v.object(keysOf["timers"])
	if !ok {
		return 0, 0
	}
	seconds := duration(0, math.MaxUint16*time.Second, time.Second, "9s")
	hold = optional(m, "hold", defaultHold, seconds)
	keepalive = optional(m, "keepalive", (hold / 3).Truncate(time.Second), seconds)
	return hold, keepalive
}

func decodeNodes(v value) ([]Node, bool) {
	names, values := v.named("write a mapping of node names, as in leaf1: {loopback: 10.0.200.1}")
	if len(names) == 0 && v.node.Kind == yaml.MappingNode && len(v.node.Content) == 0 {
		v.wrong("names no node", "name each node, as in leaf1: {loopback: 10.0.200.1}")
		return nil, false
	}
	nodes := make([]Node, len(names))
	for i, name := range names {
		if !hostName(name) {
			values[i].wrong(show(name)+" is no host name",
				"write it as `hostname` prints it: lower-case letters, digits, hyphens and dots, at most 63 in all")
		}
		nodes[i] = decodeNode(name, values[i])
	}
	return nodes, true
}

func decodeNode(name string, v value) Node {
	m, ok := v.object(keysOf["node"])
	if !ok {
		return Node{Name: name}
	}
	loopback := address(ipv4, "10.0.200.1")
	return Node{
		Name:          name,
		Role:          optional(m, "role", Leaf, choose("role", Leaf, Spine, Exit)),
		Loopback:      required(m, "loopback", "give the node an address of its own, as in loopback: 10.0.200.1", loopback),
		Loopback6:     optional(m, "loopback6", netip.Addr{}, address(ipv6, "fd00:10::1")),
		ASN:           optional(m, "asn", 0, asn),
		Ports:         optional(m, "ports", nil, list(1, glob)),
		ReservedPorts: optional(m, "reserved_ports", nil, list(0, glob)),
		Advertise:     optional(m, "advertise", nil, list(0, advertised)),
		Anycast:       optional(m, "anycast", nil, list(0, host)),
		Uplink:        optional(m, "uplink", nil, decodeUplink),
	}
}

// asn takes an AS number that may be used: not 0 (RFC 7607), AS_TRANS
// (RFC 6793) or the last of either size (RFC 7300).
func asn(v value) (uint32, bool) {
	n, ok := integer(1, math.MaxUint32-1)(v)
	if ok && (n == 23456 || n == math.MaxUint16) {
		v.wrong(fmt.Sprintf("%d is a reserved AS number", n), "write a private one such as 4200000001 or 64512")
		return 0, false
	}
	return uint32(n), ok
}

func advertised(v value) (netip.Prefix, bool) {
	p, ok := v.prefix(anyFamily, "write a prefix such as 192.0.2.0/24")
	if ok && p.Bits() == 0 {
		v.wrong("the default route is not a node's to advertise", "give an exit an uplink")
		return netip.Prefix{}, false
	}
	if !ok {
		return netip.Prefix{}, false
	}
	return network(anyFamily, 1, 128, "192.0.2.0/24")(v)
}

func decodeUplink(v value) (*Uplink, bool) {
	m, ok := v.object(keysOf["uplink"])
	if !ok {
		return nil, false
	}
	return &Uplink{
		Port:       required(m, "port", "name the interface that leads out, as in port: enp3s0", interfaceName),
		Address:    optional(m, "address", netip.Prefix{}, interfaceAddress(ipv4, "192.0.2.2/24")),
		Address6:   optional(m, "address6", netip.Prefix{}, interfaceAddress(ipv6, "2001:db8::2/64")),
		DHCP:       optional(m, "dhcp", false, value.boolean),
		NextHop:    optional(m, "next_hop", netip.Addr{}, address(ipv4, "192.0.2.1")),
		NextHop6:   optional(m, "next_hop6", netip.Addr{}, router6),
		Masquerade: optional(m, "masquerade", false, value.boolean),
		Preference: int(optional(m, "preference", defaultPreference, integer(0, math.MaxInt32))),
	}, true
}

// choose takes one of the words that there are for what.
func choose[T ~string](what string, words ...T) func(value) (T, bool) {
	texts := make([]string, len(words))
	for i, w := range words {
		texts[i] = string(w)
	}
	return func(v value) (T, bool) {
		hint := choice("", texts)
		text, ok := v.text(hint)
		if !ok {
			return "", false
		}
		for _, w := range words {
			if string(w) == text {
				return w, true
			}
		}
		v.wrong(show(text)+" is no "+what, choice(text, texts))
		return "", false
	}
}

// label takes a name of one DNS label.
func label(what string) func(value) (string, bool) {
	const hint = "write lower-case letters, digits and hyphens, at most 63"
	return func(v value) (string, bool) {
		text, ok := v.text(hint)
		if ok && !hostLabel(text) {
			v.wrong(show(text)+" is no name of "+what, hint)
			return "", false
		}
		return text, ok
	}
}
