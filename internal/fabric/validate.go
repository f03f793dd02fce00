package fabric

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

func nodeField(node, key string) string {
	return "nodes." + show(node) + "." + key
}

func segmentField(segment, key string) string {
	return "segments." + show(segment) + "." + key
}

func item(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }

// validate looks at the document as a whole: what each field is by itself is
// right already, and all is derived.
func validate(f *Fabric, r *report) {
	validateTimers(f.Underlay, r)
	space := validatePrefixes(f, r)
	validateLoopbacks(f, r)
	if r.first() != nil {
		return // the same loopback twice means the same of all that is derived from it
	}
	validateLoopbacks6(f, r)
	validateASNs(f, r)
	for _, n := range f.Nodes {
		validateOriginated(f, n, space, r)
		validateUplink(f, n, space, r)
	}
	validateSegmentNames(f, r)
	for _, s := range f.Segments {
		validateGateway(s, r)
		validateElection(f, s, r)
		validateDHCP(s, r)
		validateDHCP6(s, r)
		validateDNS(s, r)
		validateNTP(s, r)
	}
}

// validateTimers enforces RFC 4271 §4.2, a hold time of zero or at least
// three seconds, and §4.4, keepalives no rarer than a third of it.
func validateTimers(u Underlay, r *report) {
	const hold, keepalive = "underlay.timers.hold", "underlay.timers.keepalive"
	switch {
	case u.Hold != 0 && u.Hold < 3*time.Second:
		r.failField(hold, brief(u.Hold)+" is too short", "write 0, or at least 3s (RFC 4271)")
	case u.Hold == 0 && u.Keepalive != 0:
		r.failField(keepalive, "a hold time of 0 means that there are no keepalives", "leave keepalive out, or set hold")
	case u.Hold != 0 && u.Keepalive == 0:
		r.failField(keepalive, "without keepalives each session ends after "+brief(u.Hold), "write at least 1s")
	case u.Keepalive > u.Hold/3:
		r.failField(keepalive, brief(u.Keepalive)+" is more than a third of the hold time "+brief(u.Hold),
			"write at most "+brief((u.Hold/3).Truncate(time.Second)))
	}
}

// validatePrefixes gives the fabric's address space: each prefix belongs to
// one segment, or to the loopbacks.
func validatePrefixes(f *Fabric, r *report) claims {
	var space claims
	claim := func(p netip.Prefix, field string) {
		if !p.IsValid() {
			return
		}
		if other, ok := space.add(p, field); !ok {
			r.failField(field, fmt.Sprintf("%s overlaps with %s of %s", p, other.prefix, other.field), "give each its own")
		}
	}
	for i, p := range f.Underlay.Loopbacks {
		claim(p, item("underlay.loopbacks", i))
	}
	for _, s := range f.Segments {
		claim(s.Prefix, segmentField(s.Name, "prefix"))
		claim(s.Prefix6, segmentField(s.Name, "prefix6"))
	}
	if !slices.ContainsFunc(f.Underlay.Loopbacks, func(p netip.Prefix) bool { return p.Addr().Is4() }) {
		r.failField("underlay.loopbacks", "has no IPv4 prefix", "add one such as 10.0.0.0/16")
	}
	return space
}

// validateLoopbacks wants each node's address to be its own and from the
// prefixes that are for it.
func validateLoopbacks(f *Fabric, r *report) {
	owners := map[netip.Addr]string{}
	for _, n := range f.Nodes {
		validateLoopback(f, n.Name, "loopback", n.Loopback, owners, r)
	}
	validateAnycast(f, owners, r)
}

func validateLoopbacks6(f *Fabric, r *report) {
	owners := map[netip.Addr]string{}
	for _, n := range f.Nodes {
		validateLoopback(f, n.Name, "loopback6", n.Loopback6, owners, r)
	}
	validateAnycast(f, owners, r)
}

func validateLoopback(f *Fabric, node, key string, a netip.Addr, owners map[netip.Addr]string, r *report) {
	field := nodeField(node, key)
	if !slices.ContainsFunc(f.Underlay.Loopbacks, func(p netip.Prefix) bool { return p.Contains(a) }) {
		r.failField(field, fmt.Sprintf("%s is outside underlay.loopbacks", a),
			"take one from "+join(f.Underlay.Loopbacks, a.Is4())+", or add a prefix there")
	}
	if owner, taken := owners[a]; taken {
		r.failField(field, fmt.Sprintf("%s is the %s of %s too", a, key, owner), "give each node its own")
	}
	owners[a] = node
}

func validateAnycast(f *Fabric, loopbacks map[netip.Addr]string, r *report) {
	for _, n := range f.Nodes {
		for i, p := range n.Anycast {
			if owner, taken := loopbacks[p.Addr()]; taken {
				r.failField(item(nodeField(n.Name, "anycast"), i), fmt.Sprintf("%s is the loopback of %s", p.Addr(), owner),
					"an anycast address is nobody's loopback")
			}
		}
	}
}

// join lists the prefixes of one family.
func join(prefixes []netip.Prefix, ipv4 bool) string {
	var text string
	for _, p := range prefixes {
		if p.Addr().Is4() != ipv4 {
			continue
		}
		if text != "" {
			text += " or "
		}
		text += p.String()
	}
	return text
}

// validateASNs wants one AS number per node, but for spines that all say to
// share theirs.
func validateASNs(f *Fabric, r *report) {
	first := map[uint32]Node{}
	for _, n := range f.Nodes {
		other, taken := first[n.ASN]
		if !taken {
			first[n.ASN] = n
			continue
		}
		if n.InternalPeers && other.InternalPeers {
			continue
		}
		field := nodeField(n.Name, "asn")
		if r.sets(field) {
			r.failField(field, fmt.Sprintf("%d is the AS number of %s too", n.ASN, other.Name),
				"give each node its own; only spines may share one, and all of them must set it")
			continue
		}
		r.failField(field, fmt.Sprintf("%d, derived from loopback %s, is the AS number of %s too", n.ASN, n.Loopback, other.Name),
			"set asn, or take a loopback that differs in its last three bytes")
	}
}

// validateOriginated looks at what a node announces besides its loopbacks.
func validateOriginated(f *Fabric, n Node, space claims, r *report) {
	seen := map[netip.Prefix]bool{}
	once := func(p netip.Prefix, field string) {
		if seen[p] {
			r.failField(field, p.String()+" is named twice", "name it once")
		}
		seen[p] = true
	}
	for i, p := range n.Advertise {
		field := item(nodeField(n.Name, "advertise"), i)
		once(p, field)
		if other, ok := space.overlap(p); ok {
			r.failField(field, fmt.Sprintf("%s overlaps with %s of %s, which frond announces itself", p, other.prefix, other.field),
				"leave it out; an address that several nodes share belongs into anycast")
		}
	}
	for i, p := range n.Anycast {
		field := item(nodeField(n.Name, "anycast"), i)
		once(p, field)
		if other, ok := space.overlap(p); ok && !slices.Contains(f.Underlay.Loopbacks, other.prefix) {
			r.failField(field, fmt.Sprintf("%s is inside %s of %s", p, other.prefix, other.field), "take an address outside of all segments")
		}
	}
}

// validateSegmentNames wants VNIs and bridges to be one segment's alone.
func validateSegmentNames(f *Fabric, r *report) {
	vnis, bridges := map[uint32]string{}, map[string]string{}
	for _, s := range f.Segments {
		if other, taken := vnis[s.VNI]; taken {
			r.failField(segmentField(s.Name, "vni"), fmt.Sprintf("%d is the VNI of %s too", s.VNI, other), "give each segment its own")
		}
		if other, taken := bridges[s.Bridge]; taken {
			r.failField(segmentField(s.Name, "bridge"), fmt.Sprintf("%s is the bridge of %s too", s.Bridge, other), "give each segment its own")
		}
		vnis[s.VNI], bridges[s.Bridge] = s.Name, s.Name
	}
}

func validateGateway(s Segment, r *report) {
	if s.Gateway == nil {
		return
	}
	field := segmentField(s.Name, "gateway")
	if !s.Prefix.IsValid() && !s.Prefix6.IsValid() {
		r.failField(field, "the segment has neither prefix nor prefix6", "set the prefix that the gateway is in")
		return
	}
	check := func(a netip.Addr, p netip.Prefix, key, prefixKey string) {
		switch {
		case !p.IsValid() && !a.IsValid():
		case !p.IsValid():
			r.failField(field+"."+key, "the segment has no "+prefixKey, "set "+prefixKey+", or leave "+key+" out")
		case !a.IsValid():
			r.failField(field+"."+key, "is missing", "write one of the addresses in "+p.String()+", as in "+p.Addr().Next().String())
		case !isHost(p, a):
			r.failField(field+"."+key, fmt.Sprintf("%s is no address for a machine in %s", a, p), "write one as in "+p.Addr().Next().String())
		}
	}
	check(s.Gateway.Address, s.Prefix, "address", "prefix")
	check(s.Gateway.Address6, s.Prefix6, "address6", "prefix6")
}

// validateElection wants whoever decides to be there, and to be asked no more
// than can be known.
func validateElection(f *Fabric, s Segment, r *report) {
	if s.Gateway == nil || s.Gateway.Election == "" {
		return
	}
	field := segmentField(s.Name, "gateway")
	switch {
	case s.Gateway.Mode != Elected:
		r.failField(field+".election", "is of an elected gateway, and this one is on every node", "leave election out, or write mode: elected")
	case s.Gateway.Election != ByLXD:
	case s.Gateway.Locality:
		r.failField(field+".locality", "nodes tell each other of their guests in the store, and lxd decides without it", "leave locality out, or write election: store")
	case f.Guests.LXD.Off:
		r.failField("guests.lxd", "is off, but lxd decides who has the gateway of segment "+s.Name, "write auto, or leave guests out")
	}
}

// validateDNS wants name servers to be named in one place, and to be others
// than the gateway, which asks them.
func validateDNS(s Segment, r *report) {
	field := segmentField(s.Name, "dns")
	if inner := segmentField(s.Name, "dhcp.dns"); r.sets(inner) {
		if r.sets(field) {
			r.failField(field, "name servers are set in dhcp.dns too", "keep one of the two: dns holds for DHCP as well")
			return
		}
		field = inner
	}
	for i, a := range s.DNS {
		if g := s.Gateway; g != nil && (a == g.Address || a == g.Address6) {
			r.failField(item(field, i), fmt.Sprintf("%s is the segment's own gateway, which asks these servers itself", a),
				"name a server outside of the fabric, or leave it out: guests are told of the gateway anyway")
		}
	}
}

// validateNTP wants time servers to be named in one place.
func validateNTP(s Segment, r *report) {
	if field := segmentField(s.Name, "ntp"); r.sets(field) && r.sets(segmentField(s.Name, "dhcp.ntp")) {
		r.failField(field, "time servers are set in dhcp.ntp too", "keep one of the two: ntp holds for DHCP as well")
	}
}
