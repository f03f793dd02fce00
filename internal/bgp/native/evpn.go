package native

// EVPN route types whose NLRI holds more than the route's key (RFC 7432 §7,
// RFC 9136 §3.1).
const (
	evpnAutoDiscovery = 1
	evpnMACIP         = 2
	evpnIPPrefix      = 5
)

// evpnRoute is an EVPN route as a peer tells it.
type evpnRoute struct {
	key  string // see evpnKey
	wire string // its NLRI: type, length and value
}

// evpnKey is what tells EVPN routes apart: the NLRI without Ethernet segment,
// gateway and labels, which count as attributes (RFC 7432 §7.1, §7.2, RFC 9136
// §3.1). A withdrawal may have other values there than the announcement, or
// none. What is malformed or unknown is its own key.
func evpnKey(nlri string) string {
	const segmentAt, segmentEnd = 10, 20 // after type, length and RD
	if len(nlri) < segmentEnd {
		return nlri
	}
	end := len(nlri)
	switch nlri[0] {
	case evpnAutoDiscovery:
		return nlri[:1] + nlri[2:min(end, 24)]
	case evpnMACIP:
		const addressLengthAt = 31
		if end <= addressLengthAt {
			return nlri
		}
		end = min(end, addressLengthAt+1+int(nlri[addressLengthAt])/8)
	case evpnIPPrefix:
		// RD, segment, tag and prefix length are 23 bytes, label 3, and prefix
		// and gateway equally long.
		const prefixAt = 25
		if end < prefixAt+3 {
			return nlri
		}
		end = prefixAt + (end-prefixAt-3)/2
	default:
		return nlri
	}
	return nlri[:1] + nlri[2:segmentAt] + nlri[segmentEnd:end]
}
