package dns

import (
	"net/netip"
	"slices"
)

// Instance is a guest whose name its hypervisor vouches for. Nobody else on the
// segment is called so, whether it has an address at the moment or not.
type Instance struct {
	Name      string // one label; what is none is nobody's
	Segment   string
	Owner     string // as of Guest, whose own word counts for the name too
	Addresses []netip.Addr
}

// vouched are the instances of one name.
type vouched struct {
	owners    map[string]struct{}
	addresses []netip.Addr
}

// vouch takes in the instances that are not called as something in the document.
func (z *zone) vouch(all []Instance) {
	z.instances, z.instanceAt = make(map[string]*vouched), make(map[netip.Addr]string)
	for _, i := range all {
		below := nameBelow(i.Name, i.Segment)
		if _, taken := z.forward[below+"."+z.origin]; taken || !isLabel(i.Name) || !isLabel(i.Segment) {
			continue
		}
		v := z.instances[below]
		if v == nil {
			v = &vouched{owners: make(map[string]struct{})}
			z.instances[below] = v
		}
		v.owners[i.Owner] = struct{}{}
		for _, a := range i.Addresses {
			if len(v.addresses) < maxShared && !slices.Contains(v.addresses, a) {
				v.addresses = append(v.addresses, a)
				z.instanceAt[a] = below
			}
		}
	}
	for _, v := range z.instances {
		slices.SortFunc(v.addresses, netip.Addr.Compare)
	}
}

// below are the addresses of a name that the document does not have: those of
// an instance, or else those of the guest that calls itself so and may.
func (z *zone) below(name string) []netip.Addr {
	v, ok := z.instances[name]
	switch {
	case !ok:
		return z.guests.addresses(name, nil)
	case len(v.addresses) > 0:
		return v.addresses
	}
	return z.guests.addresses(name, v.owners)
}

// nameAt is what an address answers to that has no name by the document.
func (z *zone) nameAt(a netip.Addr) (below string, ok bool) {
	if below, ok := z.instanceAt[a]; ok {
		return below, true
	}
	below, owner, eldest := z.guests.name(a)
	if v, ok := z.instances[below]; ok {
		_, may := v.owners[owner]
		return below, may
	}
	return below, eldest
}
