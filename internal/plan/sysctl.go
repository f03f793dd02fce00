package plan

import "strings"

// Sysctls are the values below /proc/sys that make a machine a router of
// many equal paths (Documentation/networking/ip-sysctl.rst). What belongs to
// a port, the data plane sets with the port.
func Sysctls() map[string]string {
	return map[string]string{
		"net/ipv4/ip_forward":              "1",
		"net/ipv6/conf/all/forwarding":     "1",
		"net/ipv6/conf/default/forwarding": "1",

		// Packets of one flow may come back over another port: all/rp_filter
		// would override a port's value with a stricter one.
		"net/ipv4/conf/all/rp_filter":     "0",
		"net/ipv4/conf/default/rp_filter": "0",

		// A port without carrier leads nowhere, even while it is up.
		"net/ipv4/conf/all/ignore_routes_with_linkdown":     "1",
		"net/ipv4/conf/default/ignore_routes_with_linkdown": "1",
		"net/ipv6/conf/all/ignore_routes_with_linkdown":     "1",
		"net/ipv6/conf/default/ignore_routes_with_linkdown": "1",

		// Flows are spread by their ports as well as by their addresses, and
		// not over a next hop whose neighbour is known to be dead.
		"net/ipv4/fib_multipath_hash_policy": "1",
		"net/ipv6/fib_multipath_hash_policy": "1",
		"net/ipv4/fib_multipath_use_neigh":   "1",

		// Room for the guests of many segments. These exist in the initial
		// network namespace alone, where they hold for all.
		"net/ipv4/neigh/default/gc_thresh1": "8192",
		"net/ipv4/neigh/default/gc_thresh2": "32768",
		"net/ipv4/neigh/default/gc_thresh3": "65536",
		"net/ipv6/neigh/default/gc_thresh1": "8192",
		"net/ipv6/neigh/default/gc_thresh2": "32768",
		"net/ipv6/neigh/default/gc_thresh3": "65536",
	}
}

// OnlyInitial tells whether only the initial network namespace has the
// value: elsewhere its absence is no fault.
func OnlyInitial(path string) bool {
	return strings.HasPrefix(path, "net/ipv4/neigh/default/gc_thresh") ||
		strings.HasPrefix(path, "net/ipv6/neigh/default/gc_thresh")
}
