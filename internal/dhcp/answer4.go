package dhcp

import (
	"net"
	"net/netip"
	"time"

	"frond/internal/dataplane"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/rfc1035label"
)

func (a *agent) offer4(s *segment, r *request, address netip.Addr) {
	m := a.answer(s, r, dhcpv4.MessageTypeOffer)
	m.YourIPAddr = address.AsSlice()
	times(s, m, s.Lease)
	a.configure(s, r, m)
	a.send(s, r, m)
}

func (a *agent) ack4(s *segment, r *request, e *entry, term time.Duration) {
	m := a.answer(s, r, dhcpv4.MessageTypeAck)
	m.YourIPAddr = e.address.AsSlice()
	if r.ciaddr.IsValid() {
		m.ClientIPAddr = r.ciaddr.AsSlice()
	}
	if r.kind == dhcpv4.MessageTypeDiscover {
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionRapidCommit, nil))
	}
	times(s, m, term)
	a.configure(s, r, m)
	a.send(s, r, m)
}

// inform gives a client that has an address all but one (RFC 2131 §4.3.5).
func (a *agent) inform(s *segment, r *request) {
	if !r.ciaddr.IsValid() || !s.Prefix.Contains(r.ciaddr) {
		return
	}
	m := a.answer(s, r, dhcpv4.MessageTypeAck)
	m.ClientIPAddr = r.ciaddr.AsSlice()
	a.configure(s, r, m)
	a.send(s, r, m)
}

func (a *agent) nak4(s *segment, r *request, why string) {
	m := a.answer(s, r, dhcpv4.MessageTypeNak)
	m.UpdateOption(dhcpv4.OptMessage(why))
	m.SetBroadcast()
	a.send(s, r, m)
}

// answer is what all answers have in common (RFC 2131 table 3). The client
// identifier is sent back (RFC 6842 §3), and so is what a relay, or who posed
// as one, has added (RFC 3046 §2.2), as the last of all.
func (a *agent) answer(s *segment, r *request, kind dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	q := r.message
	m := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootReply, HWType: q.HWType, TransactionID: q.TransactionID, Flags: q.Flags,
		ClientHWAddr: q.ClientHWAddr, ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4zero,
		ServerIPAddr: net.IPv4zero, GatewayIPAddr: net.IPv4zero, Options: make(dhcpv4.Options),
	}
	m.UpdateOption(dhcpv4.OptMessageType(kind))
	m.UpdateOption(dhcpv4.OptServerIdentifier(s.Server.AsSlice()))
	if id := q.Options.Get(dhcpv4.OptionClientIdentifier); id != nil {
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientIdentifier, id))
	}
	if info := q.Options.Get(dhcpv4.OptionRelayAgentInformation); info != nil {
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionRelayAgentInformation, info))
	}
	return m
}

// times sets how long the lease is, and when to ask for more: after a half.
// Where the server identifier is not an address of the segment, a client would
// ask it in vain: it asks everybody at the same time instead (RFC 2131 §4.4.5,
// T1 and T2).
func times(s *segment, m *dhcpv4.DHCPv4, term time.Duration) {
	t2 := term / 8 * 7
	if !s.Prefix.Contains(s.Server) {
		t2 = term / 2
	}
	m.UpdateOption(dhcpv4.OptIPAddressLeaseTime(term))
	m.UpdateOption(dhcpv4.OptRenewTimeValue(term / 2))
	m.UpdateOption(dhcpv4.OptRebindingTimeValue(t2))
}

// configure adds what the document says of the segment and the client asks
// for: everything if it does not say (RFC 2131 §4.3.1).
func (a *agent) configure(s *segment, r *request, m *dhcpv4.DHCPv4) {
	wishes := r.message.ParameterRequestList()
	wants := func(code dhcpv4.OptionCode) bool { return len(wishes) == 0 || wishes.Has(code) }
	m.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(s.Prefix.Bits(), 32)))
	if s.NextServer.IsValid() {
		m.ServerIPAddr = s.NextServer.AsSlice()
	}
	m.BootFileName = s.BootFile
	// In the order of what a client can do without the least: what does not fit
	// is left out.
	var options []dhcpv4.Option
	add := func(there bool, code dhcpv4.OptionCode, value dhcpv4.OptionValue) {
		if there && wants(code) {
			options = append(options, dhcpv4.Option{Code: code, Value: value})
		}
	}
	add(s.Router.IsValid(), dhcpv4.OptionRouter, dhcpv4.IPs{s.Router.AsSlice()})
	add(len(s.Routes) > 0, dhcpv4.OptionClasslessStaticRoute, routes(s))
	add(len(s.DNS) > 0, dhcpv4.OptionDomainNameServer, ips(s.DNS))
	add(s.MTU > 0, dhcpv4.OptionInterfaceMTU, dhcpv4.Uint16(min(s.MTU, 1<<16-1)))
	if s.NextServer.IsValid() {
		add(true, dhcpv4.OptionTFTPServerName, dhcpv4.String(s.NextServer.String()))
	}
	add(s.BootFile != "", dhcpv4.OptionBootfileName, dhcpv4.String(s.BootFile))
	if len(s.Search) > 0 {
		add(true, dhcpv4.OptionDomainName, dhcpv4.String(s.Search[0]))
	}
	add(len(s.Search) > 0, dhcpv4.OptionDNSDomainSearchList, &rfc1035label.Labels{Labels: s.Search})
	add(len(s.NTP) > 0, dhcpv4.OptionNTPServers, ips(s.NTP))
	if name := s.reservations[r.client].Hostname; name != "" {
		add(true, dhcpv4.OptionHostName, dhcpv4.String(name))
	}
	room := roomFor(r)
	for _, o := range options {
		m.UpdateOption(o)
		if len(m.ToBytes()) > room {
			delete(m.Options, o.Code.Code())
		}
	}
}

const (
	// leastMessage is what every client takes (RFC 2131 §2), and mostMessage
	// what any is sent, in octets of UDP payload.
	leastMessage = 576 - sizeHeaders
	mostMessage  = 1280 - sizeHeaders
)

// roomFor is how large an answer may be (RFC 2132 §9.10).
func roomFor(r *request) int {
	size, err := r.message.MaxMessageSize()
	if err != nil {
		return leastMessage
	}
	return max(leastMessage, min(int(size)-sizeHeaders, mostMessage))
}

func ips(list []netip.Addr) dhcpv4.IPs {
	var all dhcpv4.IPs
	for _, a := range list {
		if a.Is4() {
			all = append(all, a.AsSlice())
		}
	}
	return all
}

// routes are the static ones and the default: a client that knows of them
// looks at no router besides (RFC 3442).
func routes(s *segment) dhcpv4.Routes {
	var all dhcpv4.Routes
	for _, r := range s.Routes {
		p := r.Prefix.Masked()
		all = append(all, &dhcpv4.Route{
			Dest:   &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), 32)},
			Router: r.Via.AsSlice(),
		})
	}
	if s.Router.IsValid() {
		all = append(all, &dhcpv4.Route{
			Dest: &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}, Router: s.Router.AsSlice(),
		})
	}
	return all
}

// send sends an answer by the port that the client is behind, to its MAC, or
// to all if it says that it cannot hear otherwise (RFC 2131 §4.1).
func (a *agent) send(s *segment, r *request, m *dhcpv4.DHCPv4) {
	to, ip := r.mac, netip.AddrFrom4([4]byte{255, 255, 255, 255})
	kind := m.MessageType()
	switch {
	case r.ciaddr.IsValid() && kind != dhcpv4.MessageTypeNak:
		ip = r.ciaddr
	case m.IsBroadcast():
		to = dataplane.MAC{255, 255, 255, 255, 255, 255}
	case addr(m.YourIPAddr).IsValid():
		ip = addr(m.YourIPAddr)
	}
	a.out.frames = append(a.out.frames, Sending{Port: r.port, Frame: buildFrame(s.MAC, to, s.Server, ip, m.ToBytes())})
}
