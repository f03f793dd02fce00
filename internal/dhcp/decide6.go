package dhcp

import (
	"bytes"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
)

// handle6 answers what is said by DHCPv6 alone, and tells whether that was all.
// Of the rest it says what it is in the terms of DHCPv4, whose leases are the
// same.
func (a *agent) handle6(s *segment, r *request, now time.Duration) (done bool) {
	m := r.six
	if m.server != nil && !bytes.Equal(m.server, serverDUID(s).ToBytes()) {
		return true // another server's matter
	}
	switch {
	case m.MessageType == dhcpv6.MessageTypeInformationRequest:
		a.counts.count(r.kind)
		a.inform6(s, r)
		return true
	case m.MessageType == dhcpv6.MessageTypeConfirm:
		a.confirm6(s, r)
		return true
	case m.ia == nil || !s.leases():
		a.none6(s, r, "no addresses are given here")
		return true
	case !a.synced:
		return true
	}
	r.client = s.client6(r)
	if !a.identify(s, r, now) {
		a.counts.Posed++
		return true
	}
	switch r.kind { //nolint:exhaustive // of the others there is nothing else to say
	case dhcpv4.MessageTypeRequest:
		if !m.hint.IsValid() {
			r.kind, r.rapid = dhcpv4.MessageTypeDiscover, true
		} else if m.MessageType == dhcpv6.MessageTypeRequest {
			r.server = s.Server
		}
	case dhcpv4.MessageTypeRelease, dhcpv4.MessageTypeDecline:
		a.tick(now)
		a.counts.count(r.kind)
		if r.kind == dhcpv4.MessageTypeRelease {
			a.release(s, r, now)
		} else {
			a.decline(s, r, now)
		}
		a.done6(s, r)
		return true
	}
	return false
}

// refuse6 tells a client that it cannot have the address that it names (RFC 8415
// §18.3.2, §18.3.4). One that only asks for an address is given another.
func (a *agent) refuse6(s *segment, r *request, why string, now time.Duration) {
	onLink := s.Prefix.Contains(r.six.hint)
	switch {
	case r.six.MessageType == dhcpv6.MessageTypeRequest && onLink:
		other := *r
		other.kind, other.rapid = dhcpv4.MessageTypeDiscover, true
		a.discover(s, other, now)
		return
	case r.six.MessageType == dhcpv6.MessageTypeRequest:
		a.reply6(s, r, statusIA(r.six.ia, notOnLink, why))
	case onLink:
		a.reply6(s, r, statusIA(r.six.ia, noBinding, why))
	default:
		a.reply6(s, r, leaseIA(r.six.ia, r.six.hint, 0))
	}
	a.counts.Naks++
}
