package fabric

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// DHCP6 is how a segment's guests are given IPv6 addresses (RFC 8415), which
// they do not make themselves then. What else they are told is the segment's.
type DHCP6 struct {
	Ranges []AddressRange // inside the segment's IPv6 prefix, disjoint, without the gateway
	// Lease and Grace are as those of DHCP.
	Lease, Grace time.Duration
	Reservations []Reservation // in the document's order
}

// maxAddresses6 bounds the addresses of a segment's ranges: each costs some
// bits of every node's memory.
const maxAddresses6 = 1 << 20

func decodeDHCP6(v value) (*DHCP6, bool) {
	m, ok := v.object(keysOf["dhcp6"])
	if !ok {
		return nil, false
	}
	return &DHCP6{
		Ranges:       decodeRanges(m, ipv6, "fd00:172:16::1:0-fd00:172:16::1:ffff"),
		Lease:        optional(m, "lease", defaultLease, duration(time.Minute, 365*24*time.Hour, time.Second, "10m")),
		Grace:        optional(m, "grace", defaultGrace, duration(time.Minute, maxGrace, time.Second, "1h")),
		Reservations: optional(m, "reservations", nil, decodeReservations(decodeReservation6)),
	}, true
}

func decodeReservation6(name string, v value) Reservation {
	m, ok := v.object(keysOf["reservation6"])
	if !ok {
		return Reservation{}
	}
	r := Reservation{
		Name:     name,
		MAC:      optional(m, "mac", "", mac),
		ClientID: optional(m, "duid", "", duid),
		Address:  required(m, "address", `name the address, as in address: "fd00:172:16::10"`, address(ipv6, "fd00:172:16::10")),
	}
	_, byMAC := m.values["mac"]
	_, byDUID := m.values["duid"]
	if byMAC == byDUID {
		v.wrong("needs either mac or duid", `write what the guest is known by, as in mac: "02:00:00:00:00:01"`)
	}
	return r
}

// duid takes the octets of a DUID: 3 to 130 (RFC 8415 §11.1).
func duid(v value) (string, bool) {
	const hint = `write its 3 to 130 octets as hexadecimal digits in quotes, as in "00:03:00:01:02:00:00:00:00:01"`
	text, ok := v.text(hint)
	if !ok {
		return "", false
	}
	octets, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
	if err != nil || len(octets) < 3 || len(octets) > 130 {
		v.wrong(show(text)+" is no DUID", hint)
		return "", false
	}
	return hex.EncodeToString(octets), true
}

func validateDHCP6(s Segment, r *report) {
	if s.DHCP6 == nil {
		return
	}
	field := segmentField(s.Name, "dhcp6")
	if s.Gateway == nil || !s.Gateway.Address6.IsValid() || !s.Prefix6.IsValid() {
		r.failField(field, "the segment has no gateway with an IPv6 address, which answers guests",
			`set prefix6 and gateway, as in gateway: {address6: "fd00:172:16::1"}`)
		return
	}
	validateRanges(s.Prefix6, s.Gateway.Address6, s.DHCP6.Ranges, field, r)
	validateSizes(s.DHCP6.Ranges, field, r)
	validateReservations(s.Prefix6, s.Gateway.Address6, s.DHCP6.Reservations, field+".reservations", r)
}

// validateSizes wants ranges small enough to be looked through.
func validateSizes(ranges []AddressRange, field string, r *report) {
	left := uint64(maxAddresses6)
	for i, a := range ranges {
		size, ok := a.size()
		if !ok || size > left {
			r.failField(rangeField(field, i, r), fmt.Sprintf("%s is too large: guests get at most %d addresses in all", a, maxAddresses6),
				"write a smaller range; where each guest may choose among all addresses, leave dhcp6 out and have it make its own")
			return
		}
		left -= size
	}
}

// size is how many addresses a range of IPv6 has, if its ends have the same
// first 64 bits and it is not all that these have.
func (r AddressRange) size() (uint64, bool) {
	first, last := r.First.As16(), r.Last.As16()
	if [8]byte(first[:]) != [8]byte(last[:]) {
		return 0, false
	}
	size := low64(r.Last) - low64(r.First) + 1
	return size, size > 0
}

func low64(a netip.Addr) (n uint64) {
	b := a.As16()
	for _, octet := range b[8:] {
		n = n<<8 | uint64(octet)
	}
	return n
}
