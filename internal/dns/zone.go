package dns

import (
	"net/netip"
	"slices"
	"strings"

	wire "github.com/miekg/dns"
)

// Times to live, seconds. That a name is nobody's is remembered for less long
// (RFC 2308 §4): guests look for each other while they start.
const (
	nameTTL     = 60
	negativeTTL = 5
)

// zone is what the fabric knows of names. It never changes, but for what guests
// call themselves.
type zone struct {
	origin   string                  // with the final dot, lower case
	forward  map[string][]netip.Addr // by name; none of a name that others are below
	reverse  map[netip.Addr][]string
	prefixes []netip.Prefix
	guests   *guests // whose names are none of those

	instances  map[string]*vouched // by what nameBelow says
	instanceAt map[netip.Addr]string
}

func newZone(d Desired, own *guests) *zone {
	z := &zone{
		guests:   own,
		origin:   wire.CanonicalName(d.Fabric),
		forward:  make(map[string][]netip.Addr),
		reverse:  make(map[netip.Addr][]string),
		prefixes: d.Prefixes,
	}
	if d.Fabric == "" {
		z.origin = ""
		return z
	}
	z.forward[z.origin] = nil
	for _, n := range d.Names {
		if !isLabel(n.Name) || !isLabel(n.Segment) {
			continue
		}
		above := strings.ToLower(n.Segment) + "." + z.origin
		name := strings.ToLower(n.Name) + "." + above
		if _, ok := z.forward[above]; !ok {
			z.forward[above] = nil
		}
		for _, a := range n.Addresses {
			if a = a.Unmap().WithZone(""); a.IsValid() && !slices.Contains(z.forward[name], a) {
				z.forward[name] = append(z.forward[name], a)
				z.reverse[a] = append(z.reverse[a], name)
			}
		}
	}
	z.vouch(d.Instances)
	return z
}

// isLabel tells whether a name is that of a host in one label (RFC 1123 §2.1).
func isLabel(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// found is what a zone has to say.
type found struct {
	rcode     int
	answer    []wire.RR
	authority []wire.RR
}

// lookup answers a question about the fabric's own names. Whoever speaks for
// the zone is named server. It tells false of all other questions.
func (z *zone) lookup(q wire.Question, server string) (found, bool) {
	name := wire.CanonicalName(q.Name)
	if z.origin != "" && wire.IsSubDomain(z.origin, name) {
		addresses, exists := z.find(name)
		return say(z.origin, server, exists, z.addresses(q, name, addresses, server)), true
	}
	a, ok := reversed(name)
	if !ok {
		return found{}, false
	}
	i := slices.IndexFunc(z.prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
	if i < 0 {
		return found{}, false
	}
	names := z.names(a)
	var answer []wire.RR
	if q.Qtype == wire.TypePTR {
		for _, target := range names {
			answer = append(answer, &wire.PTR{Hdr: header(q.Name, wire.TypePTR, nameTTL), Ptr: target})
		}
	}
	return say(reverseOrigin(z.prefixes[i], a), server, len(names) > 0, answer), true
}

// find returns the addresses of a name, and whether there is such a name. What
// the document names, no guest does, and what a hypervisor names, no other guest.
func (z *zone) find(name string) ([]netip.Addr, bool) {
	if addresses, ok := z.forward[name]; ok {
		return addresses, true
	}
	below, ok := strings.CutSuffix(name, "."+z.origin)
	if !ok || !z.segment(below) {
		return nil, false
	}
	addresses := z.below(below)
	return addresses, len(addresses) > 0
}

// segment tells whether a name below the fabric's is in a segment that names
// are answered of.
func (z *zone) segment(below string) bool {
	_, segment, _ := strings.Cut(below, ".")
	_, ok := z.forward[segment+"."+z.origin]
	return ok
}

// names are what an address answers to.
func (z *zone) names(a netip.Addr) []string {
	if names := z.reverse[a]; len(names) > 0 {
		return names
	}
	below, ok := z.nameAt(a)
	if !ok || !z.segment(below) {
		return nil
	}
	name := below + "." + z.origin
	if _, taken := z.forward[name]; taken {
		return nil
	}
	return []string{name}
}

// addresses are the records of a name that a question is about.
func (z *zone) addresses(q wire.Question, name string, all []netip.Addr, server string) []wire.RR {
	var records []wire.RR
	for _, a := range all {
		switch {
		case q.Qtype == wire.TypeA && a.Is4():
			records = append(records, &wire.A{Hdr: header(q.Name, wire.TypeA, nameTTL), A: a.AsSlice()})
		case q.Qtype == wire.TypeAAAA && a.Is6():
			records = append(records, &wire.AAAA{Hdr: header(q.Name, wire.TypeAAAA, nameTTL), AAAA: a.AsSlice()})
		}
	}
	if name == z.origin && q.Qtype == wire.TypeNS {
		records = append(records, &wire.NS{Hdr: header(q.Name, wire.TypeNS, nameTTL), Ns: server})
	}
	if name == z.origin && q.Qtype == wire.TypeSOA {
		records = append(records, soa(z.origin, server))
	}
	return records
}

// say makes an answer of records: without any, one that may be remembered
// (RFC 2308 §3).
func say(origin, server string, exists bool, records []wire.RR) found {
	f := found{rcode: wire.RcodeSuccess, answer: records}
	if len(records) == 0 {
		f.authority = []wire.RR{soa(origin, server)}
	}
	if !exists {
		f.rcode = wire.RcodeNameError
	}
	return f
}

func header(name string, kind uint16, ttl uint32) wire.RR_Header {
	return wire.RR_Header{Name: name, Rrtype: kind, Class: wire.ClassINET, Ttl: ttl}
}

// soa begins a zone that nobody copies: only its last number counts.
func soa(origin, server string) wire.RR {
	return &wire.SOA{
		Hdr: header(origin, wire.TypeSOA, negativeTTL), Ns: server, Mbox: "hostmaster." + origin,
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: negativeTTL,
	}
}

const (
	arpa4 = ".in-addr.arpa."
	arpa6 = ".ip6.arpa."
)

// reversed reads the whole address that a name for PTR records is of.
func reversed(name string) (netip.Addr, bool) {
	if digits, ok := strings.CutSuffix(name, arpa4); ok {
		parts := strings.Split(digits, ".")
		slices.Reverse(parts)
		a, err := netip.ParseAddr(strings.Join(parts, "."))
		return a, err == nil && a.Is4()
	}
	digits, ok := strings.CutSuffix(name, arpa6)
	if !ok || len(digits) != 63 {
		return netip.Addr{}, false
	}
	var text strings.Builder
	for i := 31; i >= 0; i-- {
		if i < 31 && digits[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		text.WriteByte(digits[2*i])
		if i%4 == 0 && i > 0 {
			text.WriteByte(':')
		}
	}
	a, err := netip.ParseAddr(text.String())
	return a, err == nil && a.Is6() && !a.Is4In6()
}

// reverseOrigin is the zone of an address's PTR records: the smallest that
// begins at a dot and is the prefix's, or holds it.
func reverseOrigin(p netip.Prefix, a netip.Addr) string {
	unit, most, total := 8, 24, 32
	if a.Is6() {
		unit, most, total = 4, 124, 128
	}
	bits := min((p.Bits()+unit-1)/unit*unit, most)
	name, err := wire.ReverseAddr(a.String())
	if err != nil {
		return "."
	}
	for range (total - bits) / unit {
		_, name, _ = strings.Cut(name, ".")
	}
	return name
}
