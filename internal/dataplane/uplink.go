package dataplane

import (
	"cmp"
	"maps"
	"slices"
)

// diffUplink compares the addresses of the uplink, and finds what an earlier
// document has left on other interfaces. An address that somebody else has put
// on the port is as good as frond's.
func diffUplink(now *State, in *intent) (adds, deletes []Op) {
	uplink := in.desired.Uplink
	link, there := now.Links[uplink.Port]
	if there && !link.Up && !in.raised[uplink.Port] {
		adds = append(adds, SetPort{Name: uplink.Port})
	}
	for _, prefix := range uplink.Addresses {
		a := PortAddress{uplink.Port, prefix}
		if _, has := now.PortAddresses[a]; there && !has {
			adds = append(adds, AddPortAddress{a})
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(now.PortAddresses), comparePortAddresses) {
		stays := uplink.wants(a) || uplink.Unsettled && a.Port == uplink.Port
		if now.PortAddresses[a] && !stays {
			deletes = append(deletes, DeletePortAddress{a})
		}
	}
	return adds, deletes
}

// wants tells whether the address is one of the uplink's.
func (u Uplink) wants(a PortAddress) bool {
	return a.Port == u.Port && slices.Contains(u.Addresses, a.Prefix)
}

func comparePortAddresses(a, b PortAddress) int {
	return cmp.Or(cmp.Compare(a.Port, b.Port), a.Prefix.Compare(b.Prefix))
}
