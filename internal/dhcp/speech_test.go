package dhcp

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv6"
)

// saying is what a simulated client wants.
type saying int

const (
	looks   saying = iota // for an address
	chooses               // one that it was offered
	returns               // to one that it had
	renews
	releases
)

// heardReply is what an answer says: without an address, that the client has none.
type heardReply struct {
	client  int
	xid     uint32
	offer   bool
	address netip.Addr
	term    time.Duration
}

// speech is how the clients of a world talk to servers.
type speech struct {
	segment Segment
	say     func(w *world, c *client, what saying, about netip.Addr) []byte
	hear    func(w *world, f Sending) heardReply
}

var speeches = []speech{
	{blue("172.16.0.11", "172.16.0.11"), say4, hear4},
	{blue6("fd00:16::1:0", "fd00:16::1:0"), say6, hear6},
}

func say4(w *world, c *client, what saying, about netip.Addr) []byte {
	kind, options := dhcpv4.MessageTypeRequest, []dhcpv4.Modifier{}
	switch what {
	case looks:
		kind = dhcpv4.MessageTypeDiscover
	case chooses:
		options = append(options, server(w.segment), wanting(about))
	case returns:
		options = append(options, wanting(about))
	case renews:
		options = append(options, having(about))
	case releases:
		kind, options = dhcpv4.MessageTypeRelease, append(options, having(about))
	}
	m := message(w.t, kind, guestMAC(c.number), options...)
	binary.BigEndian.PutUint32(m.TransactionID[:], c.xid)
	return clientFrame(guestMAC(c.number), m.ToBytes())
}

func hear4(w *world, f Sending) heardReply {
	m := replyIn(w.t, f)
	r := heardReply{
		client: int(m.ClientHWAddr[4])<<8 | int(m.ClientHWAddr[5]), xid: binary.BigEndian.Uint32(m.TransactionID[:]),
		offer: m.MessageType() == dhcpv4.MessageTypeOffer,
	}
	if m.MessageType() != dhcpv4.MessageTypeNak {
		r.address, r.term = addr(m.YourIPAddr), m.IPAddressLeaseTime(0)
	}
	return r
}

func say6(w *world, c *client, what saying, about netip.Addr) []byte {
	kinds := map[saying]dhcpv6.MessageType{
		looks: dhcpv6.MessageTypeSolicit, chooses: dhcpv6.MessageTypeRequest, returns: dhcpv6.MessageTypeRebind,
		renews: dhcpv6.MessageTypeRenew, releases: dhcpv6.MessageTypeRelease,
	}
	var options []dhcpv6.Modifier
	if about.IsValid() {
		options = append(options, identity(1, about))
	} else {
		options = append(options, identity(1))
	}
	if what != looks && what != returns {
		options = append(options, to(w.segment))
	}
	m := message6Of(w.t, kinds[what], c.number, options...)
	m.TransactionID = dhcpv6.TransactionID{byte(c.xid >> 16), byte(c.xid >> 8), byte(c.xid)}
	return clientFrame6(guestMAC(c.number), m.ToBytes())
}

func hear6(w *world, f Sending) heardReply {
	m := replyIn6(w.t, f)
	id := m.Options.ClientID().ToBytes()
	r := heardReply{
		client: int(id[len(id)-2])<<8 | int(id[len(id)-1]), offer: m.MessageType == dhcpv6.MessageTypeAdvertise,
		xid: uint32(m.TransactionID[0])<<16 | uint32(m.TransactionID[1])<<8 | uint32(m.TransactionID[2]),
	}
	if ia := m.Options.OneIANA(); ia != nil {
		if given := ia.Options.OneAddress(); given != nil && given.ValidLifetime > 0 {
			r.address, r.term = address6(given.IPv6Addr), given.ValidLifetime
		}
	}
	r.offer = r.offer && r.address.IsValid()
	return r
}
