package evpn

import "frond/internal/dataplane"

// Extended communities (RFC 4360) that travel with EVPN routes, type and
// sub-type in the highest two bytes.
const (
	kindTargetAS2     = 0x0002 // route target, two-octet AS (RFC 4360 §4)
	kindTargetIPv4    = 0x0102
	kindTargetAS4     = 0x0202 // RFC 5668
	kindEncapsulation = 0x030c // RFC 9012 §4.1
	kindMobility      = 0x0600 // RFC 7432 §7.7
	kindRouterMAC     = 0x0603 // RFC 9135 §8.1
)

const (
	tunnelVXLAN        = 8 // RFC 8365 §11
	encapsulationVXLAN = kindEncapsulation<<48 | tunnelVXLAN
	mobilitySticky     = 1 << 40
)

// routeTarget is derived from AS and VNI (RFC 8365 §5.1.2.1) in the plain form
// that FRR uses: two octets of AS and the VNI, no further fields.
func routeTarget(asn, vni uint32) uint64 {
	return kindTargetAS2<<48 | uint64(uint16(asn))<<32 | uint64(vni)
}

func mobility(sequence uint32, sticky bool) uint64 {
	c := uint64(kindMobility)<<48 | uint64(sequence)
	if sticky {
		c |= mobilitySticky
	}
	return c
}

func routerMAC(mac dataplane.MAC) uint64 {
	c := uint64(kindRouterMAC)
	for _, b := range mac {
		c = c<<8 | uint64(b)
	}
	return c
}

// communities is what the extended communities of one route say.
type communities struct {
	asn, vni  uint32 // of the first route target that names a VNI
	sequence  uint32
	sticky    bool
	routerMAC dataplane.MAC
	// foreign: encapsulations are named, and VXLAN is none of them.
	foreign bool
}

func decodeCommunities(list []uint64) communities {
	var c communities
	var moved, encapsulated, vxlan bool
	for _, e := range list {
		switch kind := e >> 48; kind {
		case kindTargetAS2, kindTargetIPv4, kindTargetAS4:
			if c.vni == 0 {
				c.asn, c.vni = decodeTarget(kind, e)
			}
		case kindEncapsulation:
			encapsulated = true
			vxlan = vxlan || uint16(e) == tunnelVXLAN
		case kindMobility:
			if !moved { // one is all there may be (RFC 7432 §7.7)
				c.sequence, c.sticky, moved = uint32(e), e&mobilitySticky != 0, true
			}
		case kindRouterMAC:
			for i := range c.routerMAC {
				c.routerMAC[i] = byte(e >> (40 - 8*i))
			}
		}
	}
	c.foreign = encapsulated && !vxlan
	return c
}

// decodeTarget returns the AS and the VNI of a route target. Whatever AS it
// names, the VNI is what counts: every node has an AS of its own.
func decodeTarget(kind, e uint64) (asn, vni uint32) {
	if kind == kindTargetAS2 {
		// RFC 8365 §5.1.2.1 puts type and domain above the 24 bits of the VNI.
		return uint32(uint16(e >> 32)), uint32(e) & maxVNI
	}
	return uint32(e >> 16), uint32(uint16(e))
}
