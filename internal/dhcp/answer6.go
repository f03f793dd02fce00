package dhcp

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv6"
	"github.com/insomniacslk/dhcp/iana"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

// Status codes (RFC 8415 §21.13).
const (
	success       = iana.StatusSuccess
	noAddrsAvail  = iana.StatusNoAddrsAvail
	noBinding     = iana.StatusNoBinding
	notOnLink     = iana.StatusNotOnLink
	noPrefixAvail = iana.StatusNoPrefixAvail
)

// refreshTime is after how long a client asks again for what is no address
// (RFC 8415 §21.23).
const refreshTime = 30 * time.Minute

// serverDUID is who answers: the same on every node, so that a guest that moves
// is answered as before.
func serverDUID(s *segment) dhcpv6.DUID {
	return &dhcpv6.DUIDLL{HWType: iana.HWTypeEthernet, LinkLayerAddr: net.HardwareAddr(s.MAC[:])}
}

// advertise6 tells a client which address is kept for it.
func (a *agent) advertise6(s *segment, r *request, address netip.Addr) {
	if r.six.MessageType != dhcpv6.MessageTypeSolicit {
		return // it has gone on meanwhile, and asks again
	}
	m := message6To(s, r, dhcpv6.MessageTypeAdvertise)
	m.AddOption(leaseIA(r.six.ia, address, s.Lease))
	a.send6(s, r, m)
}

// lease6 lets a client use an address for a term.
func (a *agent) lease6(s *segment, r *request, address netip.Addr, term time.Duration) {
	m := message6To(s, r, dhcpv6.MessageTypeReply)
	if r.six.MessageType == dhcpv6.MessageTypeSolicit {
		m.AddOption(&dhcpv6.OptionGeneric{OptionCode: dhcpv6.OptionRapidCommit})
	}
	m.AddOption(leaseIA(r.six.ia, address, term))
	a.send6(s, r, m)
}

// reply6 answers with what is said of the first identity.
func (a *agent) reply6(s *segment, r *request, ia *dhcpv6.OptIANA) {
	m := message6To(s, r, dhcpv6.MessageTypeReply)
	m.AddOption(ia)
	a.send6(s, r, m)
}

// none6 tells a client that there is no address for it (RFC 8415 §18.3.9).
func (a *agent) none6(s *segment, r *request, why string) {
	kind := dhcpv6.MessageTypeReply
	switch r.six.MessageType { //nolint:exhaustive // the rest of those that come here
	case dhcpv6.MessageTypeSolicit:
		kind = dhcpv6.MessageTypeAdvertise
	case dhcpv6.MessageTypeRelease, dhcpv6.MessageTypeDecline:
		a.done6(s, r)
		return
	}
	m := message6To(s, r, kind)
	if r.six.ia != nil {
		m.AddOption(statusIA(r.six.ia, noAddrsAvail, why))
	}
	a.send6(s, r, m)
}

// done6 tells a client that what it gives back is taken note of (RFC 8415
// §18.3.7), whether it had it or not.
func (a *agent) done6(s *segment, r *request) {
	m := message6To(s, r, dhcpv6.MessageTypeReply)
	m.AddOption(&dhcpv6.OptStatusCode{StatusCode: success})
	a.send6(s, r, m)
}

// confirm6 tells a client that may have moved whether its addresses are of this
// segment (RFC 8415 §18.3.3).
func (a *agent) confirm6(s *segment, r *request) {
	code, named := success, false
	for _, ia := range r.six.has {
		for _, given := range ia.Options.Addresses() {
			named = true
			if !s.Prefix.Contains(address6(given.IPv6Addr)) {
				code = notOnLink
			}
		}
	}
	if !named {
		return
	}
	m := message6To(s, r, dhcpv6.MessageTypeReply)
	m.AddOption(&dhcpv6.OptStatusCode{StatusCode: code})
	a.send6(s, r, m)
}

// inform6 tells a client all but an address (RFC 8415 §18.3.6). No guest is
// remembered.
func (a *agent) inform6(s *segment, r *request) {
	m := message6To(s, r, dhcpv6.MessageTypeReply)
	m.AddOption(dhcpv6.OptInformationRefreshTime(refreshTime))
	a.send6(s, r, m)
}

// message6To begins an answer, with what the document says of the segment and
// the client asks for.
func message6To(s *segment, r *request, kind dhcpv6.MessageType) *dhcpv6.Message {
	q := r.six
	m := &dhcpv6.Message{MessageType: kind, TransactionID: q.TransactionID}
	if id := q.Options.ClientID(); id != nil {
		m.AddOption(dhcpv6.OptClientID(id))
	}
	m.AddOption(dhcpv6.OptServerID(serverDUID(s)))
	wishes := q.Options.RequestedOptions()
	if servers := only6(s.DNS); len(servers) > 0 && wishes.Contains(dhcpv6.OptionDNSRecursiveNameServer) {
		m.AddOption(dhcpv6.OptDNS(servers...))
	}
	if len(s.Search) > 0 && wishes.Contains(dhcpv6.OptionDomainSearchList) {
		m.AddOption(dhcpv6.OptDomainSearchList(&rfc1035label.Labels{Labels: s.Search}))
	}
	if servers := only6(s.NTP); len(servers) > 0 && wishes.Contains(dhcpv6.OptionNTPServer) {
		option := &dhcpv6.OptNTPServer{}
		for _, server := range servers {
			address := dhcpv6.NTPSuboptionSrvAddr(server)
			option.Suboptions.Add(&address)
		}
		m.AddOption(option)
	}
	return m
}

func only6(list []netip.Addr) []net.IP {
	var all []net.IP
	for _, a := range list {
		if a.Is6() {
			all = append(all, a.AsSlice())
		}
	}
	return all
}

// leaseIA is the identity of a client with an address for a term. It asks for
// more as one of DHCPv4 does; nothing: it is to use the address no more.
func leaseIA(ia *dhcpv6.OptIANA, address netip.Addr, term time.Duration) *dhcpv6.OptIANA {
	own := &dhcpv6.OptIANA{IaId: ia.IaId, T1: term / 2, T2: term / 5 * 4}
	own.Options.Add(&dhcpv6.OptIAAddress{IPv6Addr: address.AsSlice(), PreferredLifetime: term, ValidLifetime: term})
	return own
}

// statusIA is the identity of a client without an address.
func statusIA(ia *dhcpv6.OptIANA, code iana.StatusCode, why string) *dhcpv6.OptIANA {
	own := &dhcpv6.OptIANA{IaId: ia.IaId}
	own.Options.Add(&dhcpv6.OptStatusCode{StatusCode: code, StatusMessage: why})
	return own
}

// send6 sends an answer by the port that the client is behind. Of what else it
// asks for it is told that there is none: further addresses, temporary ones,
// and prefixes.
func (a *agent) send6(s *segment, r *request, m *dhcpv6.Message) {
	if kind := r.six.MessageType; slices.Contains([]dhcpv6.MessageType{
		dhcpv6.MessageTypeSolicit, dhcpv6.MessageTypeRequest, dhcpv6.MessageTypeRenew, dhcpv6.MessageTypeRebind,
	}, kind) {
		for _, ia := range r.six.has[min(1, len(r.six.has)):] {
			m.AddOption(statusIA(ia, noAddrsAvail, ""))
		}
		for _, ia := range r.six.Options.IATA() {
			ia = &dhcpv6.OptIATA{IaId: ia.IaId}
			ia.Options.Add(&dhcpv6.OptStatusCode{StatusCode: noAddrsAvail})
			m.AddOption(ia)
		}
		for _, ia := range r.six.Options.IAPD() {
			ia = &dhcpv6.OptIAPD{IaId: ia.IaId}
			ia.Options.Add(&dhcpv6.OptStatusCode{StatusCode: noPrefixAvail})
			m.AddOption(ia)
		}
	}
	a.out.frames = append(a.out.frames, Sending{Port: r.port, Frame: buildFrame6(s.MAC, r.mac, s.Server, r.six.from, m.ToBytes())})
}
