package fabric

import "go.yaml.in/yaml/v3"

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
	return Guard{
		Routes: optional(m, "routes", true, value.boolean),
		Guests: optional(m, "guests", true, value.boolean),
	}, true
}
