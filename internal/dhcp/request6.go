package dhcp

import (
	"net/netip"

	"frond/internal/dataplane"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
)

// message6 is what a client says by DHCPv6.
type message6 struct {
	*dhcpv6.Message
	from   netip.Addr
	duid   []byte            // of the client; nil: none
	server []byte            // whom it talks to; nil: everybody
	ia     *dhcpv6.OptIANA   // the first, which is answered; nil: none
	hint   netip.Addr        // the first address in it; zero: none
	has    []*dhcpv6.OptIANA // all
}

// mostDUID is how long a DUID is at most (RFC 8415 §11.1), in octets.
const mostDUID = 130

// parseRequest6 reads what a client says. It tells false if it is no client's
// message, or not as it has to be (RFC 8415 §16).
func parseRequest6(port dataplane.LocalPort, d datagram6) (request, bool) {
	m, err := dhcpv6.MessageFromBytes(d.payload)
	if err != nil {
		return request{}, false
	}
	six := &message6{Message: m, from: d.from, has: m.Options.IANA()}
	if id := m.Options.ClientID(); id != nil {
		six.duid = id.ToBytes()
	}
	if id := m.Options.ServerID(); id != nil {
		six.server = id.ToBytes()
	}
	if len(six.has) > 0 {
		six.ia = six.has[0]
		if given := six.ia.Options.OneAddress(); given != nil {
			six.hint = address6(given.IPv6Addr)
		}
	}
	r := request{port: port, mac: d.mac, source: d.mac, hostname: printable(hostname6(m)), six: six}
	return r, len(six.duid) <= mostDUID && r.classify()
}

// classify says what a message means in the terms of DHCPv4, and whether it is
// as it has to be.
func (r *request) classify() bool {
	m := r.six
	addressed := m.server != nil
	r.client = Client(m.duid) // until the segment is known
	switch m.MessageType {    //nolint:exhaustive // the others are no client's
	case dhcpv6.MessageTypeSolicit:
		r.kind, r.wanted = dhcpv4.MessageTypeDiscover, m.hint
		r.rapid = m.Options.GetOne(dhcpv6.OptionRapidCommit) != nil
		addressed = !addressed
	case dhcpv6.MessageTypeRequest:
		r.kind, r.wanted = dhcpv4.MessageTypeRequest, m.hint
	case dhcpv6.MessageTypeRenew:
		r.kind, r.ciaddr = dhcpv4.MessageTypeRequest, m.hint
	case dhcpv6.MessageTypeRebind:
		r.kind, r.ciaddr = dhcpv4.MessageTypeRequest, m.hint
		addressed = !addressed
	case dhcpv6.MessageTypeRelease:
		r.kind, r.ciaddr = dhcpv4.MessageTypeRelease, m.hint
	case dhcpv6.MessageTypeDecline:
		r.kind, r.wanted = dhcpv4.MessageTypeDecline, m.hint
	case dhcpv6.MessageTypeConfirm:
		return m.server == nil && m.duid != nil
	case dhcpv6.MessageTypeInformationRequest:
		r.kind = dhcpv4.MessageTypeInform
		return len(m.has)+len(m.Options.IATA())+len(m.Options.IAPD()) == 0 // §16.12
	default:
		return false
	}
	return addressed && m.duid != nil
}

// address6 is an IPv6 address of the library's.
func address6(ip []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(ip)
	if !ok || !a.Is6() || a.Is4In6() || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// hostname6 is what a client would be called in DNS (RFC 4704 §4).
func hostname6(m *dhcpv6.Message) string {
	if option := m.Options.FQDN(); option != nil && option.DomainName != nil && len(option.DomainName.Labels) > 0 {
		return option.DomainName.Labels[0]
	}
	return ""
}

// client6 is who a client is: whom an address is reserved for, by its MAC or
// its DUID, and otherwise one of the interfaces of a machine.
func (s *segment) client6(r *request) Client {
	for _, c := range []Client{ClientOf(r.mac), Client(r.six.duid)} {
		if _, reserved := s.reservations[c]; reserved {
			return c
		}
	}
	return Client(r.six.duid) + Client(r.six.ia.IaId[:])
}
