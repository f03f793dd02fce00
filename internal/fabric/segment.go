package fabric

import (
	"net/netip"
	"path"

	"go.yaml.in/yaml/v3"
)

const (
	maxVNI = 1<<24 - 1 // RFC 7348 §5
	// minMTU is what IPv6 needs (RFC 8200 §5), maxMTU what is left of the
	// largest Ethernet device of Linux after VXLAN's outer headers over IPv4.
	minMTU = 1280
	maxMTU = 65535 - 50
	// maxMACLimit keeps what one port may ask of every node's memory within
	// some tens of MiB.
	maxMACLimit = 100000
)

func decodeSegments(v value, nodes []string) ([]Segment, bool) {
	names, values := v.named("write a mapping of segment names, as in blue: {vni: 100, nodes: [leaf1]}, or leave segments out")
	segments := make([]Segment, len(names))
	for i, name := range names {
		if !hostLabel(name) {
			values[i].wrong(show(name)+" is no name of a segment", "write lower-case letters, digits and hyphens, at most 63")
		}
		segments[i] = decodeSegment(name, values[i], nodes)
	}
	return segments, true
}

func decodeSegment(name string, v value, nodes []string) Segment {
	m, ok := v.object(keysOf["segment"])
	if !ok {
		return Segment{}
	}
	members := func(v value) ([]string, bool) { return decodeMembers(v, nodes) }
	s := Segment{
		Name:     name,
		VNI:      uint32(required(m, "vni", "give the segment a number of its own from 1 to 16777215, as in vni: 100", integer(1, maxVNI))),
		Nodes:    required(m, "nodes", `name the nodes that take part, as in nodes: ["leaf*"]`, members),
		Bridge:   optional(m, "bridge", "br-"+name, interfaceName),
		MTU:      int(optional(m, "mtu", 0, integer(minMTU, maxMTU))),
		MACLimit: int(optional(m, "mac_limit", defaultMACLimit, integer(1, maxMACLimit))),
		Prefix:   optional(m, "prefix", netip.Prefix{}, network(ipv4, 8, 30, "172.16.0.0/24")),
		Prefix6:  optional(m, "prefix6", netip.Prefix{}, network(ipv6, 16, 126, "fd00:172:16::/64")),
		Gateway:  optional(m, "gateway", nil, decodeGateway),
		DHCP:     optional(m, "dhcp", nil, decodeDHCP),
		DHCP6:    optional(m, "dhcp6", nil, decodeDHCP6),
		DNS:      optional(m, "dns", nil, list(0, address(anyFamily, "1.1.1.1"))),
		DNSNames: optional(m, "dns_names", true, value.boolean),
		NTP:      optional(m, "ntp", nil, list(0, address(anyFamily, "192.0.2.123"))),
		RA:       optional(m, "ra", true, value.boolean),
	}
	if len(s.Bridge) > maxInterfaceName {
		v.wrong("its bridge would be "+show(s.Bridge)+", which is too long for an interface",
			"shorten the segment's name to 12 characters, or set bridge to a name of at most 15")
	}
	return s
}

// decodeMembers resolves the globs of a segment's nodes. One that matches
// nothing is most likely a typing mistake.
func decodeMembers(v value, nodes []string) ([]string, bool) {
	chosen := make([]bool, len(nodes))
	take := func(v value) (string, bool) {
		pattern, ok := glob(v)
		if !ok {
			return "", false
		}
		matches := false
		for i, n := range nodes {
			if matched, _ := path.Match(pattern, n); matched {
				chosen[i], matches = true, true
			}
		}
		if !matches && len(nodes) > 0 { // without nodes, the fault lies there
			v.wrong(show(pattern)+" matches no node", choice(pattern, nodes))
		}
		return pattern, matches
	}
	if _, ok := list(1, take)(v); !ok {
		return nil, false
	}
	var members []string
	for i, n := range nodes {
		if chosen[i] {
			members = append(members, n)
		}
	}
	return members, true
}

func decodeGateway(v value) (*Gateway, bool) {
	m, ok := v.object(keysOf["gateway"])
	if !ok {
		return nil, false
	}
	return &Gateway{
		Address:    optional(m, "address", netip.Addr{}, address(ipv4, "172.16.0.1")),
		Address6:   optional(m, "address6", netip.Addr{}, address(ipv6, "fd00:172:16::1")),
		Mode:       optional(m, "mode", Anycast, choose("mode of a gateway", Anycast, Elected)),
		Election:   optional(m, "election", "", choose("election", ByStore, ByLXD)),
		HostRoutes: optional(m, "host_routes", true, value.boolean),
		Locality:   optional(m, "locality", false, value.boolean),
	}, true
}

// oneOrMore takes a list, or a single item without its brackets.
func oneOrMore[T any](parse func(value) (T, bool)) func(value) ([]T, bool) {
	return func(v value) ([]T, bool) {
		if v.node.Kind == yaml.SequenceNode {
			return list(1, parse)(v)
		}
		t, ok := parse(v)
		return []T{t}, ok
	}
}
