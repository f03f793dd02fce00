package dhcp

import (
	"encoding/binary"
	"net/netip"
)

// low is an address as a number: all of it, or the last 64 bits.
func low(a netip.Addr) uint64 {
	b := a.As16()
	return binary.BigEndian.Uint64(b[8:])
}

// plus is the n-th address behind one, with the same first 64 bits.
func plus(a netip.Addr, n uint64) netip.Addr {
	b := a.As16()
	binary.BigEndian.PutUint64(b[8:], low(a)+n)
	next := netip.AddrFrom16(b)
	if a.Is4() {
		return next.Unmap()
	}
	return next
}

// broadcast is the last address of an IPv4 prefix, zero of one of IPv6.
func broadcast(p netip.Prefix) netip.Addr {
	if !p.Addr().Is4() {
		return netip.Addr{}
	}
	return plus(p.Masked().Addr(), 1<<(32-p.Bits())-1)
}

// assignable tells that a client may have an address of a prefix: neither the
// network's, which is all its routers' of IPv6 (RFC 4291 §2.6.1), nor the
// broadcast address. Networks of two have neither (RFC 3021, RFC 6164).
func assignable(p netip.Prefix, a netip.Addr) bool {
	if !p.Contains(a) {
		return false
	}
	return p.Bits() >= a.BitLen()-1 || a != p.Masked().Addr() && a != broadcast(p)
}
