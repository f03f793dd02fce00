package fabric

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// Guests is who tells of guests on each node, besides their packets.
type Guests struct {
	LXD Hypervisor
}

// Hypervisor is where LXD or Incus is looked for. The zero value is wherever
// it usually is, and on nodes that have it.
type Hypervisor struct {
	Off    bool
	Socket string // full path; empty: where it usually is
}

// longestSocket is the size of a unix socket's path in bytes (unix(7)).
const longestSocket = 107

func decodeGuests(v value) (Guests, bool) {
	m, ok := v.object(keysOf["guests"])
	if !ok {
		return Guests{}, false
	}
	return Guests{LXD: optional(m, "lxd", Hypervisor{}, decodeHypervisor)}, true
}

func decodeHypervisor(v value) (Hypervisor, bool) {
	const hint = "write auto, off, or the path of its socket, as in /var/lib/incus/unix.socket"
	if v.node.Kind == yaml.ScalarNode {
		switch v.node.Value {
		case "auto":
			return Hypervisor{}, true
		case "off", "false":
			return Hypervisor{Off: true}, true
		}
	}
	socket, ok := v.text(hint)
	switch {
	case !ok:
		return Hypervisor{}, false
	case !strings.HasPrefix(socket, "/"):
		v.wrong(show(socket)+" is no full path", hint)
	case len(socket) > longestSocket:
		v.wrong("the path is longer than a socket's can be", "choose one of at most 107 bytes")
	default:
		return Hypervisor{Socket: socket}, true
	}
	return Hypervisor{}, false
}
