package dhcp

import (
	"net/netip"
	"strings"

	"frond/internal/dataplane"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// request is a client's message, and what of it decides.
type request struct {
	port     dataplane.LocalPort
	message  *dhcpv4.DHCPv4
	kind     dhcpv4.MessageType
	client   Client
	mac      dataplane.MAC // as the client says it is
	source   dataplane.MAC // that the message came from
	ciaddr   netip.Addr    // zero: none
	wanted   netip.Addr    // option 50; zero: none
	server   netip.Addr    // option 54; zero: none
	rapid    bool          // RFC 4039
	circuit  string        // RFC 3046 §3.1
	hostname string
	six      *message6 // of IPv6; nil: message is of IPv4
}

// link is where it was heard.
func (r *request) link() link { return link{r.port.VNI, r.six != nil} }

// maxText bounds what of a client's words is kept.
const maxText = 64

// parseRequest reads the payload of a datagram to a server. It tells false if
// it is none that this node answers: relayed ones are a relay's and its
// server's matter.
func parseRequest(port dataplane.LocalPort, payload []byte) (request, bool) {
	m, err := dhcpv4.FromBytes(payload)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootRequest || m.HWType != hardwareEthernet || len(m.ClientHWAddr) != 6 {
		return request{}, false
	}
	r := request{
		port: port, message: m, kind: m.MessageType(), mac: dataplane.MAC(m.ClientHWAddr),
		ciaddr: addr(m.ClientIPAddr), wanted: addr(m.RequestedIPAddress()), server: addr(m.ServerIdentifier()),
		rapid:    m.Options.Has(dhcpv4.OptionRapidCommit),
		hostname: printable(hostname(m)),
	}
	if addr(m.GatewayIPAddr).IsValid() || r.mac.IsZero() || r.mac.IsGroup() {
		return request{}, false
	}
	r.client = ClientOf(r.mac)
	// At least two octets (RFC 2132 §9.14).
	if id := m.Options.Get(dhcpv4.OptionClientIdentifier); len(id) >= 2 {
		r.client = Client(id)
	}
	if info := m.RelayAgentInfo(); info != nil {
		r.circuit = printable(string(info.Get(dhcpv4.AgentCircuitIDSubOption)))
	}
	return r, true
}

// hostname is what a client calls itself: by option 12, or the first label of
// the name that it would have in DNS (RFC 4702 §2).
func hostname(m *dhcpv4.DHCPv4) string {
	if name := m.HostName(); name != "" {
		return name
	}
	const header, encoded = 3, 1 << 2 // flags and two octets of old; E
	option := m.Options.Get(dhcpv4.OptionFQDN)
	switch {
	case len(option) <= header:
		return ""
	case option[0]&encoded == 0:
		return string(option[header:])
	}
	size := int(option[header])
	if len(option) < header+1+size {
		return ""
	}
	return string(option[header+1 : header+1+size])
}

// addr is an IPv4 address of the library's; 0.0.0.0 is none.
func addr(ip []byte) netip.Addr {
	a, ok := netip.AddrFromSlice(ip)
	if a = a.Unmap(); !ok || !a.Is4() || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// printable is text without what a terminal would take for commands.
func printable(text string) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, text)
	return text[:min(len(text), maxText)]
}

// asksFor is the address that the client says it has or wants to have.
func (r *request) asksFor() netip.Addr {
	if r.ciaddr.IsValid() {
		return r.ciaddr
	}
	return r.wanted
}
