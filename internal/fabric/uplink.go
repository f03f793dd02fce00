package fabric

import (
	"fmt"
	"net/netip"
)

// validateUplink wants an uplink to lead out of the fabric, and to say either
// everything of a family or nothing.
func validateUplink(f *Fabric, n Node, space claims, r *report) {
	if n.Uplink == nil {
		return
	}
	u, field := *n.Uplink, nodeField(n.Name, "uplink")
	if n.Role != Exit {
		r.failField(field, fmt.Sprintf("only an exit has an uplink, and %s is a %s", n.Name, n.Role), "set role: exit, or leave uplink out")
	}
	validateUplinkPort(f, u, field+".port", r)
	if u.DHCP && u.Address.IsValid() {
		r.failField(field+".address", "is set although dhcp gives it", "keep one of the two")
	}
	if u.DHCP && u.NextHop.IsValid() {
		r.failField(field+".next_hop", "is set although dhcp gives it", "keep one of the two")
	}
	if !u.DHCP {
		validateUplinkFamily(u.Address, u.NextHop, field+".address", field+".next_hop", space, r)
	}
	validateUplinkFamily(u.Address6, u.NextHop6, field+".address6", field+".next_hop6", space, r)
}

func validateUplinkPort(f *Fabric, u Uplink, field string, r *report) {
	if u.Port == "lo" {
		r.failField(field, "lo leads nowhere", "name the interface that leads out, as in enp3s0")
	}
	for _, s := range f.Segments {
		if s.Bridge == u.Port {
			r.failField(field, fmt.Sprintf("%s is the bridge of segment %s", u.Port, s.Name), "an uplink leads to a network outside of the fabric")
		}
	}
}

// validateUplinkFamily looks at the address and the next hop of one family.
func validateUplinkFamily(own netip.Prefix, hop netip.Addr, ownField, hopField string, space claims, r *report) {
	outside := func(p netip.Prefix, field string) {
		if other, ok := space.overlap(p); ok {
			r.failField(field, fmt.Sprintf("%s overlaps with %s of %s", p, other.prefix, other.field),
				"an uplink leads to a network outside of the fabric")
		}
	}
	if !own.IsValid() {
		if hop.IsValid() {
			outside(netip.PrefixFrom(hop, hop.BitLen()), hopField)
		}
		return
	}
	switch {
	case !hop.IsValid():
		r.failField(hopField, "is missing", fmt.Sprintf("write the router's address in %s", own.Masked()))
	case hop.IsLinkLocalUnicast():
	case hop == own.Addr() || !isHost(own.Masked(), hop):
		r.failField(hopField, fmt.Sprintf("%s is no neighbour of %s", hop, own),
			fmt.Sprintf("take another machine's address in %s", own.Masked()))
	}
	outside(own.Masked(), ownField)
}
