package dataplane

import (
	"net/netip"
	"slices"
)

// Masquerade is source NAT: what leaves by the port and comes from one of the
// sources gets the port's address. Its zero value is none.
type Masquerade struct {
	Port    string
	Sources []netip.Prefix // disjoint, sorted
}

// Equal tells whether both are the same.
func (m Masquerade) Equal(other Masquerade) bool {
	return m.Port == other.Port && slices.Equal(m.Sources, other.Sources)
}
