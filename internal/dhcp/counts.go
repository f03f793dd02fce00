package dhcp

import "github.com/insomniacslk/dhcp/dhcpv4"

// Counts are what has happened since the start.
type Counts struct {
	Discovers, Requests, Declines, Releases, Informs uint64
	Acks, Naks                                       uint64
	Malformed                                        uint64 // messages that are no client's
	Posed                                            uint64 // messages in the name of a client that is elsewhere
	Dropped                                          uint64 // messages while too many were waiting
	Exhausted                                        uint64 // messages that no address was left for
	Crowded                                          uint64 // messages of clients whose port has its share
	Conflicts                                        uint64 // addresses that somebody had without a lease
}

func (c *Counts) count(kind dhcpv4.MessageType) {
	switch kind { //nolint:exhaustive // the others are a server's
	case dhcpv4.MessageTypeDiscover:
		c.Discovers++
	case dhcpv4.MessageTypeRequest:
		c.Requests++
	case dhcpv4.MessageTypeDecline:
		c.Declines++
	case dhcpv4.MessageTypeRelease:
		c.Releases++
	case dhcpv4.MessageTypeInform:
		c.Informs++
	}
}
