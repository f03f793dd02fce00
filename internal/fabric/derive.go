package fabric

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
)

// asnBase is where the private 4-octet AS numbers begin (RFC 6996).
const asnBase = 4_200_000_000

// deriveASN gives every loopback an AS number of its own: the low 24 bits of
// the address above asnBase, so that any shape of cabling works.
func deriveASN(loopback netip.Addr) uint32 {
	b := loopback.As4()
	return asnBase + binary.BigEndian.Uint32(b[:])&0xffffff
}

// derivePrefix6 is the fabric's IPv6 loopback prefix where the document names
// none: a unique local /48 (RFC 4193 §3.2) whose 40 bits of global ID are the
// last of the SHA-256 of the fabric's name, the same on all nodes.
func derivePrefix6(fabric string) netip.Prefix {
	sum := sha256.Sum256([]byte(fabric))
	addr := [16]byte{0xfd}
	copy(addr[1:6], sum[len(sum)-5:])
	return netip.PrefixFrom(netip.AddrFrom16(addr), 48)
}

// deriveLoopback6 puts the IPv4 loopback into the low 32 bits of the prefix.
func deriveLoopback6(prefix netip.Prefix, loopback netip.Addr) netip.Addr {
	addr, low := prefix.Addr().As16(), loopback.As4()
	copy(addr[12:], low[:])
	return netip.AddrFrom16(addr)
}

// prefix6 is the first of the prefixes that is IPv6.
func prefix6(prefixes []netip.Prefix) (netip.Prefix, bool) {
	for _, p := range prefixes {
		if p.Addr().Is6() {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// derive fills in what the document leaves to frond.
func derive(f *Fabric, r *report) {
	first6, ok := prefix6(f.Underlay.Loopbacks)
	if !ok {
		first6 = derivePrefix6(f.Name)
		f.Underlay.Loopbacks = append(f.Underlay.Loopbacks, first6)
	}
	nodesOfASN := map[uint32]int{}
	for i := range f.Nodes {
		n := &f.Nodes[i]
		if n.ASN == 0 {
			n.ASN = deriveASN(n.Loopback)
		}
		if !n.Loopback6.IsValid() {
			n.Loopback6 = deriveLoopback6(first6, n.Loopback)
		}
		if n.Ports == nil {
			n.Ports = f.Underlay.Ports
		}
		if n.Uplink != nil {
			n.ReservedPorts = append(n.ReservedPorts, n.Uplink.Port)
		}
		nodesOfASN[n.ASN]++
	}
	for i := range f.Segments {
		s := &f.Segments[i]
		if s.DHCP == nil {
			continue
		}
		if s.DNS == nil {
			s.DNS = s.DHCP.DNS
		}
		if s.NTP == nil {
			s.NTP = s.DHCP.NTP
		}
	}
	for i := range f.Nodes {
		n := &f.Nodes[i]
		n.InternalPeers = nodesOfASN[n.ASN] > 1 && mayShareASN(*n, r)
	}
}

// mayShareASN tells whether a node may have the AS number of others: spines
// that all say so (RFC 7938 §5.2.1).
func mayShareASN(n Node, r *report) bool {
	return n.Role == Spine && r.sets(nodeField(n.Name, "asn"))
}
