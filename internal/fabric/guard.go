package fabric

import "go.yaml.in/yaml/v3"

// maxBroadcast is more than any port carries, in packets a second.
const maxBroadcast = 10_000_000

// decodeGuard takes what is guarded, or off for nothing.
func decodeGuard(v value) (Guard, bool) {
	if v.node.Kind == yaml.ScalarNode && (v.node.Value == "off" || v.node.Value == "false") {
		return Guard{}, true
	}
	if v.node.Kind != yaml.MappingNode {
		v.wrong("is neither a mapping nor off", "write {guests: on, routes: off}, or off, or leave guard out")
		return Guard{}, false
	}
	m, ok := v.object(keysOf["guard"])
	if !ok {
		return Guard{}, false
	}
	g := Guard{
		Routes:    optional(m, "routes", true, value.boolean),
		Guests:    optional(m, "guests", true, value.boolean),
		Strict:    optional(m, "strict", false, value.boolean),
		Broadcast: int(optional(m, "broadcast", 0, integer(1, maxBroadcast))),
	}
	for _, key := range []string{"strict", "broadcast"} {
		if part, ok := m.values[key]; ok && !g.Guests && (key != "strict" || g.Strict) {
			part.wrong("has guests off beside it", "leave it out, or guests: off")
			return Guard{}, false
		}
	}
	return g, true
}
