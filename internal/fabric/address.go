package fabric

import (
	"errors"
	"net/netip"
	"path"
	"strings"
)

// special are the addresses that no node, guest or network has: "this
// network", host loopback, link-local, multicast, reserved (RFC 6890).
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/3"),
	netip.MustParsePrefix("::/127"),
	netip.MustParsePrefix("::ffff:0:0/96"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

// family is IPv4, IPv6 or either of them.
type family int

const (
	anyFamily family = iota
	ipv4
	ipv6
)

func (f family) has(a netip.Addr) bool {
	return f == anyFamily || (f == ipv4) == a.Is4()
}

func (f family) String() string { return [...]string{"IP", "IPv4", "IPv6"}[f] }

// address takes a unicast address of that family.
func address(f family, example string) func(value) (netip.Addr, bool) {
	hint := "write an " + f.String() + " address such as " + example
	return func(v value) (netip.Addr, bool) {
		text, ok := v.text(hint)
		if !ok {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(text)
		switch {
		case err != nil:
			v.wrong(show(text)+" is no address", hint)
		case a.Zone() != "":
			v.wrong(show(text)+" has a zone", "write it without "+show("%"+a.Zone()))
		case !f.has(a):
			v.wrong(show(text)+" is no "+f.String()+" address", hint)
		case isSpecial(netip.PrefixFrom(a, a.BitLen())):
			v.wrong(show(text)+" is no unicast address that a machine can have", hint)
		default:
			return a, true
		}
		return netip.Addr{}, false
	}
}

// network takes a prefix of that family without host bits, of a length
// within both limits.
func network(f family, least, most int, example string) func(value) (netip.Prefix, bool) {
	hint := "write an " + f.String() + " prefix such as " + example
	return func(v value) (netip.Prefix, bool) {
		p, ok := v.prefix(f, hint)
		if !ok {
			return netip.Prefix{}, false
		}
		switch masked := p.Masked(); {
		case p != masked:
			v.wrong(p.String()+" has bits set behind its length", "write "+masked.String())
		case p.Bits() < least:
			v.wrong(p.String()+" is too short a prefix", hint)
		case p.Bits() > most:
			v.wrong(p.String()+" is too long a prefix", hint)
		case isSpecial(p):
			v.wrong(p.String()+" is not all unicast addresses that a machine can have", hint)
		default:
			return p, true
		}
		return netip.Prefix{}, false
	}
}

// prefix takes an address with a length.
func (v value) prefix(f family, hint string) (netip.Prefix, bool) {
	text, ok := v.text(hint)
	if !ok {
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(text)
	switch _, lonely := netip.ParseAddr(text); {
	case err == nil && f.has(p.Addr()):
		return p, true
	case err == nil:
		v.wrong(show(text)+" is no "+f.String()+" prefix", hint)
	case lonely == nil:
		v.wrong(show(text)+" has no length", hint)
	default:
		v.wrong(show(text)+" is no prefix", hint)
	}
	return netip.Prefix{}, false
}

// host takes a prefix of one address.
func host(v value) (netip.Prefix, bool) {
	const hint = "write an address with its full length such as 10.0.200.0/32"
	p, ok := v.prefix(anyFamily, hint)
	switch {
	case !ok:
	case !p.IsSingleIP():
		v.wrong(p.String()+" is more than one address", hint)
	case isSpecial(p):
		v.wrong(p.String()+" is no unicast address that a machine can have", hint)
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

// interfaceAddress takes an address of that family with the length of its
// network.
func interfaceAddress(f family, example string) func(value) (netip.Prefix, bool) {
	hint := "write the port's address with the length of its network such as " + example
	return func(v value) (netip.Prefix, bool) {
		p, ok := v.prefix(f, hint)
		switch {
		case !ok:
		case isSpecial(netip.PrefixFrom(p.Addr(), p.Addr().BitLen())):
			v.wrong(p.String()+" is no unicast address that a machine can have", hint)
		case !isHost(p.Masked(), p.Addr()):
			v.wrong(p.String()+" is the network itself or its broadcast address", hint)
		default:
			return p, true
		}
		return netip.Prefix{}, false
	}
}

// router6 takes an IPv6 router's address, which may be a link-local one: that
// is what routers advertise (RFC 4861 §4.2).
func router6(v value) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(v.node.Value); err == nil && a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "" {
		return a, true
	}
	return address(ipv6, "fe80::1")(v)
}

// addressRange takes first-last of that family; both ends belong to it.
func addressRange(f family, example string) func(value) (AddressRange, bool) {
	hint := "write first-last such as " + example
	return func(v value) (AddressRange, bool) {
		text, ok := v.text(hint)
		if !ok {
			return AddressRange{}, false
		}
		head, tail, _ := strings.Cut(text, "-")
		first, err1 := netip.ParseAddr(strings.TrimSpace(head))
		last, err2 := netip.ParseAddr(strings.TrimSpace(tail))
		switch {
		case err1 != nil || err2 != nil || first.Zone()+last.Zone() != "":
			v.wrong(show(text)+" is no range of addresses", hint)
		case !f.has(first) || !f.has(last):
			v.wrong(show(text)+" is no range of "+f.String()+" addresses", hint)
		case last.Less(first):
			v.wrong(show(text)+" ends before it begins", "write "+last.String()+"-"+first.String())
		default:
			return AddressRange{first, last}, true
		}
		return AddressRange{}, false
	}
}

// glob takes a pattern of interface or node names (path.Match).
func glob(v value) (string, bool) {
	const hint = `write a name, or a pattern such as "en*" or "eth[0-3]"`
	text, ok := v.text(hint)
	if !ok {
		return "", false
	}
	if _, err := path.Match(text, ""); errors.Is(err, path.ErrBadPattern) {
		v.wrong(show(text)+" is no pattern", hint)
		return "", false
	}
	if strings.ContainsAny(text, "/ \t\n") {
		v.wrong(show(text)+" matches no name, for none has a slash or a space in it", hint)
		return "", false
	}
	return text, true
}

// interfaceName takes a name that the kernel would (dev_valid_name,
// net/core/dev.c), and that is no pattern.
func interfaceName(v value) (string, bool) {
	const hint = "write the name of one interface, at most 15 characters without space, slash, colon or *?[\\"
	text, ok := v.text(hint)
	if !ok {
		return "", false
	}
	if len(text) > maxInterfaceName {
		v.wrong(show(text)+" is too long for an interface", hint)
		return "", false
	}
	if text == "." || text == ".." || strings.ContainsAny(text, "/: \t\n\v\f\r*?[\\") {
		v.wrong(show(text)+" is no name of an interface", hint)
		return "", false
	}
	return text, true
}

// maxInterfaceName is IFNAMSIZ less the closing NUL.
const maxInterfaceName = 15

// hostName tells whether the name is one of a host (RFC 1123 §2.1), in lower
// case: labels of letters, digits and inner hyphens, 63 characters in all.
func hostName(name string) bool {
	if len(name) > 63 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if !hostLabel(label) {
			return false
		}
	}
	return true
}

// hostLabel tells whether the name is one label of a host name.
func hostLabel(name string) bool {
	if name == "" || len(name) > 63 || name[0] == '-' || name[len(name)-1] == '-' {
		return false
	}
	odd := func(r rune) bool { return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') }
	return !strings.ContainsFunc(name, odd)
}

func isSpecial(p netip.Prefix) bool {
	for _, s := range special {
		if s.Overlaps(p) {
			return true
		}
	}
	return false
}

// isHost tells whether a machine on that network can have the address: it is
// inside and neither the network itself nor its broadcast address. Networks
// of two have neither (RFC 3021, RFC 6164).
func isHost(network netip.Prefix, a netip.Addr) bool {
	if !network.Contains(a) {
		return false
	}
	if network.Bits() >= a.BitLen()-1 {
		return true
	}
	return a != network.Addr() && (a.Is6() || a != lastOf(network))
}

// lastOf is the highest address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
