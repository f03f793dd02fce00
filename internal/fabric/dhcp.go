package fabric

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"
)

// DHCP is what a segment's guests are offered (RFC 2131).
type DHCP struct {
	Ranges []AddressRange // inside the segment's IPv4 prefix, disjoint, without the gateway
	DNS    []netip.Addr
	Search []string // domains (RFC 3397), the first is the guest's own
	NTP    []netip.Addr
	Lease  time.Duration // 10 m unless set
	// Grace is how long after the end of its lease an address is still the
	// guest's, 1 h unless set: a guest outlives a store that is away by it.
	Grace        time.Duration
	Routes       []StaticRoute // besides the one by the gateway
	BootFile     string
	NextServer   netip.Addr    // that the boot file is at; zero: none
	Reservations []Reservation // in the document's order
	// PortLimit is how many addresses guests behind one port have at a time,
	// reserved ones aside: half of the ranges' unless set.
	PortLimit int
}

// AddressRange is an inclusive range of addresses.
type AddressRange struct{ First, Last netip.Addr }

// String gives the range as the document writes it.
func (r AddressRange) String() string { return r.First.String() + "-" + r.Last.String() }

// StaticRoute is a route that guests are told of (RFC 3442).
type StaticRoute struct {
	To  netip.Prefix
	Via netip.Addr // in the segment's prefix
}

// Reservation is an address for one guest alone, known by either its MAC or
// its identifier.
type Reservation struct {
	Name     string // that the guest is told to have
	MAC      string // six pairs of lower-case hexadecimal digits; empty: by identifier
	ClientID string // hexadecimal digits: client identifier (RFC 4361), or DUID (RFC 8415 §11)
	Address  netip.Addr
}

const maxGrace = 30 * 24 * time.Hour

func decodeDHCP(v value) (*DHCP, bool) {
	m, ok := v.object(keysOf["dhcp"])
	if !ok {
		return nil, false
	}
	d := &DHCP{
		Ranges:       decodeRanges(m, ipv4, "172.16.0.11-172.16.0.254"),
		DNS:          optional(m, "dns", nil, list(0, address(anyFamily, "1.1.1.1"))),
		Search:       optional(m, "search", nil, list(0, domain)),
		NTP:          optional(m, "ntp", nil, list(0, address(ipv4, "192.0.2.123"))),
		Lease:        optional(m, "lease", defaultLease, duration(time.Minute, 365*24*time.Hour, time.Second, "10m")),
		Grace:        optional(m, "grace", defaultGrace, duration(time.Minute, maxGrace, time.Second, "1h")),
		Routes:       optional(m, "routes", nil, list(0, decodeStaticRoute)),
		BootFile:     optional(m, "boot_file", "", bootFile),
		NextServer:   optional(m, "next_server", netip.Addr{}, address(ipv4, "192.0.2.69")),
		Reservations: optional(m, "reservations", nil, decodeReservations(decodeReservation)),
		PortLimit:    int(optional(m, "port_limit", 0, integer(1, 1<<24))),
	}
	if d.PortLimit == 0 {
		d.PortLimit = max(1, sizeOf(d.Ranges)/2)
	}
	return d, true
}

// decodeRanges takes what may be left out only where addresses are reserved.
func decodeRanges(m mapping, f family, example string) []AddressRange {
	parse := oneOrMore(addressRange(f, example))
	if _, reserved := m.values["reservations"]; reserved {
		return optional(m, "range", nil, parse)
	}
	if f == ipv6 {
		example = `"` + example + `"`
	}
	return required(m, "range", "say which addresses guests get, as in range: "+example, parse)
}

// sizeOf counts the addresses of IPv4 ranges, as far as they are some.
func sizeOf(ranges []AddressRange) (n int) {
	for _, r := range ranges {
		if !r.First.Is4() || !r.Last.Is4() {
			continue // what is wrong with it was said
		}
		first, last := r.First.As4(), r.Last.As4()
		n += int(binary.BigEndian.Uint32(last[:])-binary.BigEndian.Uint32(first[:])) + 1
	}
	return n
}

// domain takes a name of labels, with or without a dot at its end.
func domain(v value) (string, bool) {
	const hint = "write a domain such as example.net, in lower case"
	text, ok := v.text(hint)
	if !ok {
		return "", false
	}
	text = strings.TrimSuffix(text, ".")
	for label := range strings.SplitSeq(text, ".") {
		if !hostLabel(label) || len(text) > 253 { // RFC 1035 §2.3.4
			v.wrong(show(text)+" is no domain", hint)
			return "", false
		}
	}
	return text, true
}

// bootFile takes what fits into the header's field (RFC 2131 §2).
func bootFile(v value) (string, bool) {
	const hint = "write the path or URL of the file, at most 127 printable characters"
	text, ok := v.text(hint)
	if ok && (len(text) > 127 || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })) {
		v.wrong(show(text)+" is no name of a boot file", hint)
		return "", false
	}
	return text, ok
}

func decodeStaticRoute(v value) (StaticRoute, bool) {
	m, ok := v.object(keysOf["route"])
	if !ok {
		return StaticRoute{}, false
	}
	return StaticRoute{
		To:  required(m, "to", "name the network, as in to: 10.1.0.0/16", network(ipv4, 1, 32, "10.1.0.0/16")),
		Via: required(m, "via", "name the router on the segment, as in via: 172.16.0.2", address(ipv4, "172.16.0.2")),
	}, true
}

func decodeReservations(decode func(name string, v value) Reservation) func(value) ([]Reservation, bool) {
	return func(v value) ([]Reservation, bool) {
		names, values := v.named(`write a mapping of names, as in web1: {mac: "02:00:00:00:00:01", address: 172.16.0.10}`)
		reservations := make([]Reservation, len(names))
		for i, name := range names {
			if !hostLabel(name) {
				values[i].wrong(show(name)+" is no name of a guest", "write lower-case letters, digits and hyphens, at most 63")
			}
			reservations[i] = decode(name, values[i])
		}
		return reservations, true
	}
}

func decodeReservation(name string, v value) Reservation {
	m, ok := v.object(keysOf["reservation"])
	if !ok {
		return Reservation{}
	}
	r := Reservation{
		Name:     name,
		MAC:      optional(m, "mac", "", mac),
		ClientID: optional(m, "client_id", "", clientID),
		Address:  required(m, "address", "name the address, as in address: 172.16.0.10", address(ipv4, "172.16.0.10")),
	}
	_, byMAC := m.values["mac"]
	_, byID := m.values["client_id"]
	if byMAC == byID {
		v.wrong("needs either mac or client_id", `write what the guest is known by, as in mac: "02:00:00:00:00:01"`)
	}
	return r
}

func mac(v value) (string, bool) {
	const hint = `write six pairs of hexadecimal digits in quotes, as in "02:00:00:00:00:01"`
	text, ok := v.text(hint)
	if !ok {
		return "", false
	}
	hw, err := net.ParseMAC(text)
	switch {
	case err != nil || len(hw) != 6:
		v.wrong(show(text)+" is no MAC address", hint)
	case hw[0]&1 != 0:
		v.wrong(show(text)+" is the address of many", hint)
	default:
		return hw.String(), true
	}
	return "", false
}

// clientID takes the octets of option 61: two to 255 (RFC 2132 §9.14).
func clientID(v value) (string, bool) {
	const hint = `write two to 255 octets as hexadecimal digits in quotes, as in "ff:00:00:00:01"`
	text, ok := v.text(hint)
	if !ok {
		return "", false
	}
	octets, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
	if err != nil || len(octets) < 2 || len(octets) > 255 {
		v.wrong(show(text)+" is no client identifier", hint)
		return "", false
	}
	return hex.EncodeToString(octets), true
}

func validateDHCP(s Segment, r *report) {
	if s.DHCP == nil {
		return
	}
	field := segmentField(s.Name, "dhcp")
	if !s.Prefix.IsValid() {
		r.failField(field, "the segment has no prefix", "set the IPv4 prefix that the range is in")
		return
	}
	var gateway netip.Addr
	if s.Gateway != nil {
		gateway = s.Gateway.Address
	}
	validateRanges(s.Prefix, gateway, s.DHCP.Ranges, field, r)
	for i, route := range s.DHCP.Routes {
		if !isHost(s.Prefix, route.Via) {
			r.failField(item(field+".routes", i)+".via", fmt.Sprintf("%s is no machine in %s", route.Via, s.Prefix),
				"name a router that guests reach on the segment itself")
		}
	}
	validateReservations(s.Prefix, gateway, s.DHCP.Reservations, field+".reservations", r)
}

// validateRanges wants ranges to be of machines' addresses in a prefix, to leave
// the gateway out, and each address to be in one of them.
func validateRanges(p netip.Prefix, gateway netip.Addr, ranges []AddressRange, field string, r *report) {
	for i, a := range ranges {
		field := rangeField(field, i, r)
		if !isHost(p, a.First) || !isHost(p, a.Last) {
			r.failField(field, fmt.Sprintf("%s is not all addresses for machines in %s", a, p), "stay within "+machines(p))
		}
		if gateway.IsValid() && a.contains(gateway) {
			r.failField(field, fmt.Sprintf("%s contains the gateway %s", a, gateway), "begin behind it, or write two ranges around it")
		}
		for _, b := range ranges[:i] {
			if a.contains(b.First) || b.contains(a.First) {
				r.failField(field, fmt.Sprintf("%s overlaps with %s", a, b), "write each address once")
			}
		}
	}
}

// machines are the addresses of a prefix that machines can have; of IPv6 there
// is no broadcast address.
func machines(p netip.Prefix) string {
	last := lastOf(p)
	if p.Addr().Is4() {
		last = last.Prev()
	}
	return p.Addr().Next().String() + "-" + last.String()
}

func validateReservations(p netip.Prefix, gateway netip.Addr, reservations []Reservation, field string, r *report) {
	addresses, clients := map[netip.Addr]string{}, map[string]string{}
	for _, one := range reservations {
		field := field + "." + show(one.Name)
		switch other, taken := addresses[one.Address]; {
		case !one.Address.IsValid():
			continue
		case taken:
			r.failField(field+".address", fmt.Sprintf("%s is reserved for %s too", one.Address, other), "give each guest its own")
		case !isHost(p, one.Address):
			r.failField(field+".address", fmt.Sprintf("%s is no address for a machine in %s", one.Address, p), "write one that is inside")
		case gateway == one.Address:
			r.failField(field+".address", fmt.Sprintf("%s is the gateway", one.Address), "write another one")
		}
		addresses[one.Address] = one.Name
		key := one.ClientID
		if one.MAC != "" {
			key = "01" + strings.ReplaceAll(one.MAC, ":", "")
		}
		if other, taken := clients[key]; taken && key != "" {
			r.failField(field, fmt.Sprintf("is the same guest as %s", other), "reserve one address for each guest")
		}
		clients[key] = one.Name
	}
}

// rangeField is where a range stands: the field itself, or an item of it.
func rangeField(dhcp string, i int, r *report) string {
	if field := item(dhcp+".range", i); r.sets(field) {
		return field
	}
	return dhcp + ".range"
}

func (r AddressRange) contains(a netip.Addr) bool {
	return !a.Less(r.First) && !r.Last.Less(a)
}
