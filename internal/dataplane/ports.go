package dataplane

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// loopback is the interface that carries the node's own addresses.
const loopback = "lo"

// portSysctls are the values that make an interface a port of the fabric
// (Documentation/networking/ip-sysctl.rst). They are set before the port
// comes up: then it has its link-local address at once, without the second
// that duplicate address detection takes.
func portSysctls(port string) map[string]string {
	v4, v6 := "net/ipv4/conf/"+port+"/", "net/ipv6/conf/"+port+"/"
	return map[string]string{
		v6 + "disable_ipv6":  "0",
		v6 + "accept_dad":    "0",
		v6 + "dad_transmits": "0",
		v6 + "accept_ra":     "0",
		v6 + "autoconf":      "0",
		v6 + "forwarding":    "1",
		v4 + "forwarding":    "1",
		// Not even loose: a neighbour may send before the route back to it is
		// here, and packets of one flow come back over any port.
		v4 + "rp_filter":                   "0",
		v4 + "ignore_routes_with_linkdown": "1",
		v6 + "ignore_routes_with_linkdown": "1",
	}
}

// uplinkSysctls have an interface forward. Autoconfiguration stays as the
// operator has it: a kernel that forwards takes no router advertisements by
// accept_ra 1, but does by 2.
func uplinkSysctls(u Uplink) map[string]string {
	values := map[string]string{
		"net/ipv4/conf/" + u.Port + "/forwarding": "1",
		"net/ipv6/conf/" + u.Port + "/forwarding": "1",
	}
	if !slices.ContainsFunc(u.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		values[acceptRA(u)] = "2"
	}
	return values
}

func acceptRA(u Uplink) string { return "net/ipv6/conf/" + u.Port + "/accept_ra" }

// sysctls are values by their paths, and these sorted.
type sysctls struct {
	values map[string]string
	paths  []string
}

// sysctls are the values that are desired. They are made when something else is
// desired or the kernel was looked at, not each time: a node with many ports has
// thousands.
func (in *intent) sysctls(now *State) sysctls {
	if in.wanted.values == nil {
		in.wanted.values = wantedSysctls(in.desired, now.Links)
		in.wanted.paths = slices.Sorted(maps.Keys(in.wanted.values))
	}
	return in.wanted
}

// wantedSysctls are all values that are desired and have a place to go to:
// those of a port wait until the port exists.
func wantedSysctls(desired Desired, links map[string]Link) map[string]string {
	wanted := map[string]string{
		// Routes refer to nexthop objects only: changing a group then costs
		// one message however many routes use it.
		"net/ipv4/nexthop_compat_mode": "0",
	}
	absent := make(map[string]bool)
	for _, port := range desired.Ports {
		if _, ok := links[port.Name]; !ok {
			absent[port.Name] = true
			continue
		}
		maps.Copy(wanted, portSysctls(port.Name))
	}
	if _, ok := links[desired.Uplink.Port]; ok {
		maps.Copy(wanted, uplinkSysctls(desired.Uplink))
	}
	for path, value := range desired.Sysctls {
		if !absent[interfaceOf(path)] {
			wanted[path] = value
		}
	}
	return wanted
}

// interfaceOf returns NAME of net/ipv4/conf/NAME/… and its like.
func interfaceOf(path string) string {
	parts := strings.Split(path, "/")
	if len(parts) == 5 && parts[0] == "net" && (parts[2] == "conf" || parts[2] == "neigh") {
		return parts[3]
	}
	return ""
}

// diffPorts returns what makes the ports ready: values first, then up.
func diffPorts(now *State, in *intent) []Op {
	var ops []Op
	wanted := in.sysctls(now)
	for _, path := range wanted.paths {
		// What cannot be read does not exist in this kernel or namespace.
		have, ok := now.Sysctls[path]
		if path == acceptRA(in.desired.Uplink) && have == "0" {
			continue // the operator wants none
		}
		if want := wanted.values[path]; ok && !sameValue(have, want) {
			ops = append(ops, SetSysctl{Path: path, Value: want})
		}
	}
	if lo, ok := now.Links[loopback]; ok && !lo.Up {
		ops = append(ops, SetPort{Name: loopback})
	}
	for _, port := range in.desired.Ports {
		link, ok := now.Links[port.Name]
		if ok && !in.raised[port.Name] && (!link.Up || link.Carrier && !link.LinkLocal.IsValid()) {
			ops = append(ops, SetPort(port))
		}
	}
	return ops
}

// sameValue compares sysctls: where there are several numbers, the kernel
// separates them by tabs.
func sameValue(a, b string) bool {
	return a == b || slices.Equal(strings.Fields(a), strings.Fields(b))
}

// usable tells whether a leg can be made: the kernel refuses one over a link
// that is down or has no carrier.
func usable(leg NextHop, links map[string]Link) bool {
	link, ok := links[leg.Port]
	return ok && link.Up && link.Carrier
}
