package native

import (
	"encoding/binary"
	"net/netip"

	seam "frond/internal/bgp"
)

// batchSize is how many destinations one batch of messages tells: enough to
// share attributes well, few enough that no peer waits long for its turn.
const batchSize = 2000

// compose takes the next destinations off a neighbor's queue and encodes
// them, and after the last its End-of-RIB markers.
func (s *Speaker) compose(n *neighbor) []byte {
	var b []byte
	if n.owesRefresh {
		n.owesRefresh = false
		b = appendRefreshes(b, n.session.families)
	}
	b, n.queue.unicast = composeTable(b, s, n, s.unicast, n.queue.unicast, unicastFamily, appendPrefix)
	b, n.queue.evpn = composeTable(b, s, n, s.evpn, n.queue.evpn, evpnFamily, appendEVPN)
	if n.queue.empty() && s.pending.settled() {
		for _, f := range n.owesEnd {
			b = appendEndOfRIB(b, f)
		}
		n.owesEnd = nil
	}
	return b
}

func unicastFamily(p netip.Prefix) seam.Family {
	if p.Addr().Is4() {
		return seam.IPv4
	}
	return seam.IPv6
}

func evpnFamily(string) seam.Family { return seam.EVPN }

// bundle is what goes into messages together: same family, same attributes.
type bundle struct {
	family seam.Family
	attrs  *attributes // nil: withdrawn
}

func composeTable[K comparable](b []byte, s *Speaker, n *neighbor, t *table[K], queue []*entry[K],
	family func(K) seam.Family, appendNLRI func([]byte, *entry[K]) []byte) ([]byte, []*entry[K]) {
	bundles := make(map[bundle][]*entry[K])
	var order []bundle
	count := min(len(queue), batchSize)
	for _, e := range queue[:count] {
		e.queue.remove(n.index)
		f := family(e.key)
		key := bundle{family: f}
		switch {
		case n.wants(e.told, f) && s.fits(n, e.told.attrs):
			key.attrs = e.told.attrs
			if !e.sent.has(n.index) {
				e.sent.add(n.index)
				n.status.Sent[f]++
			}
		case e.sent.has(n.index):
			e.sent.remove(n.index)
			n.status.Sent[f]--
		default:
			t.collect(e)
			continue
		}
		if _, ok := bundles[key]; !ok {
			if len(order) == 0 { // mostly there is but one
				bundles[key] = make([]*entry[K], 0, count)
			}
			order = append(order, key)
		}
		bundles[key] = append(bundles[key], e)
		t.collect(e)
	}
	for _, key := range order {
		b = appendUpdates(b, s, n, key, bundles[key], appendNLRI)
	}
	rest := queue[count:]
	if len(rest) == 0 {
		rest = nil // let the array go
	}
	return b, rest
}

// longestShared bounds encoded attributes so that every message has room for
// its header, next hop and one destination. A peer can send longer ones;
// they end here, as in every speaker that adds to a full message.
const longestShared = maxMessageLen - 512

func (s *Speaker) fits(n *neighbor, a *attributes) bool {
	return len(a.encode(s.desired.ASN, n.internal, s.desired.Shutdown)) <= longestShared
}

// appendUpdates encodes one bundle into as many UPDATE messages as it takes.
func appendUpdates[K comparable](b []byte, s *Speaker, n *neighbor, key bundle, entries []*entry[K], appendNLRI func([]byte, *entry[K]) []byte) []byte {
	const longestNLRI = 257
	var shared, hop []byte
	kind := uint8(attrUnreach)
	if key.attrs != nil {
		kind = attrReach
		shared = key.attrs.encode(s.desired.ASN, n.internal, s.desired.Shutdown)
		hop = nextHop(key.attrs, n.session)
	}
	afi, safi := families[key.family].Afi(), families[key.family].Safi()
	for len(entries) > 0 {
		start := len(b)
		b = beginMessage(b, typeUpdate)
		b = append(b, 0, 0) // no plain withdrawn routes
		attributesAt := len(b)
		b = append(b, 0, 0)
		b = append(b, flagOptional|flagExtended, kind)
		nlriAt := len(b)
		b = append(b, 0, 0)
		b = append(binary.BigEndian.AppendUint16(b, afi), safi)
		if kind == attrReach {
			b = append(b, uint8(len(hop)))
			b = append(b, hop...)
			b = append(b, 0)
		}
		for len(entries) > 0 && len(b)-start+longestNLRI+len(shared) <= maxMessageLen {
			b = appendNLRI(b, entries[0])
			entries = entries[1:]
		}
		binary.BigEndian.PutUint16(b[nlriAt:], uint16(len(b)-nlriAt-2))
		b = append(b, shared...)
		binary.BigEndian.PutUint16(b[attributesAt:], uint16(len(b)-attributesAt-2))
		b = endMessage(b, start)
		n.status.Messages.UpdatesOut++
	}
	return b
}

// nextHop is what MP_REACH_NLRI says: our own link-local address on the
// cable (RFC 2545 §3, RFC 8950 §3), or for EVPN the VTEP, unchanged.
func nextHop(a *attributes, s *session) []byte {
	if a.nextHop.IsValid() {
		return a.nextHop.AsSlice()
	}
	own := s.conn.LocalAddr()
	return linkLocalOf(own).AsSlice()
}

func appendPrefix(b []byte, e *entry[netip.Prefix]) []byte {
	p := e.key
	b = append(b, uint8(p.Bits()))
	return append(b, p.Addr().AsSlice()[:(p.Bits()+7)/8]...)
}

func appendEVPN(b []byte, e *entry[string]) []byte { return append(b, e.wire...) }

// appendEndOfRIB encodes the marker of RFC 4724 §2.
func appendEndOfRIB(b []byte, f seam.Family) []byte {
	start := len(b)
	b = append(beginMessage(b, typeUpdate), 0, 0)
	if f == seam.IPv4 {
		return endMessage(append(b, 0, 0), start)
	}
	b = append(b, 0, 6, flagOptional, attrUnreach, 3)
	b = append(binary.BigEndian.AppendUint16(b, families[f].Afi()), families[f].Safi())
	return endMessage(b, start)
}
