package guest

import (
	"slices"
	"strings"

	"frond/internal/dataplane"
)

// Plug is an interface of an instance and the port of a bridge that it is
// behind.
type Plug struct {
	Instance Key
	NIC      NIC
	Port     string
	Bridge   string
}

// Plugs finds the ports that instances' interfaces are behind, among the links
// of this node: the one that the hypervisor names, or the one whose other end,
// not yet taken into its instance, bears the interface's MAC. The hypervisor
// names it a moment after it has plugged it in, and does not answer then until
// the instance has started, which would be too late to tell other nodes.
func Plugs(instances []Instance, links map[string]dataplane.Link) []Plug {
	type owner struct {
		instance *Instance
		nic      *NIC
	}
	byPort, byMAC := make(map[string]owner), make(map[dataplane.MAC]owner)
	for i := range instances {
		for n := range instances[i].NICs {
			o := owner{&instances[i], &instances[i].NICs[n]}
			if o.nic.Port != "" {
				byPort[o.nic.Port] = o
			}
			byMAC[o.nic.MAC] = o
		}
	}
	var plugs []Plug
	for name, link := range links {
		if link.Master == "" {
			continue
		}
		o, ok := byPort[name]
		if peer, here := links[link.Peer]; !ok && here && peer.Master == "" {
			if mac, err := dataplane.ParseMAC(peer.MAC); err == nil {
				o, ok = byMAC[mac]
			}
		}
		if ok {
			plugs = append(plugs, Plug{Instance: o.instance.Key, NIC: *o.nic, Port: name, Bridge: link.Master})
		}
	}
	slices.SortFunc(plugs, func(a, b Plug) int { return strings.Compare(a.Port, b.Port) })
	return plugs
}
