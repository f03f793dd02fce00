package dns

import (
	"context"
	"slices"

	wire "github.com/miekg/dns"
)

// minQuery is a message's header, octets.
const minQuery = 12

// answer is what a guest's message is answered with; nil: nothing. limit is
// what the guest can take without saying more, octets.
func (s *Server) answer(ctx context.Context, segment Segment, packet []byte, stream bool) []byte {
	query, reply := new(wire.Msg), new(wire.Msg)
	err := query.Unpack(packet)
	if len(packet) < minQuery || query.Response {
		return nil // to answer answers would go on for ever
	}
	if err != nil {
		reply.SetRcodeFormatError(query)
		return pack(reply, wire.MinMsgSize)
	}
	reply.Id, reply.Opcode, reply.Response = query.Id, query.Opcode, true
	reply.RecursionDesired, reply.CheckingDisabled = query.RecursionDesired, query.CheckingDisabled
	reply.RecursionAvailable = len(segment.Forwarders) > 0
	reply.Question = query.Question[:min(len(query.Question), 1)]
	options, sound := edns(query)
	limit := wire.MinMsgSize
	if options != nil {
		reply.SetEdns0(udpSize, options.Do())
		limit = max(limit, min(int(options.UDPSize()), udpSize))
	}
	if stream {
		limit = wire.MaxMsgSize - 1
	}
	switch {
	case query.Opcode != wire.OpcodeQuery:
		reply.Rcode = wire.RcodeNotImplemented
	case len(query.Question) != 1 || !sound:
		reply.Rcode = wire.RcodeFormatError
	case options != nil && options.Version() != 0:
		reply.Rcode = wire.RcodeBadVers
	default:
		s.fill(ctx, segment, reply, options != nil && options.Do())
	}
	return pack(reply, limit)
}

// edns finds the options of a query, of which there is one record at most
// (RFC 6891 §6.1.1).
func edns(m *wire.Msg) (options *wire.OPT, sound bool) {
	for _, rr := range m.Extra {
		opt, ok := rr.(*wire.OPT)
		if !ok {
			continue
		}
		if options != nil {
			return options, false
		}
		options = opt
	}
	return options, true
}

// fill answers the question of a reply.
func (s *Server) fill(ctx context.Context, segment Segment, reply *wire.Msg, do bool) {
	q := reply.Question[0]
	z := s.zone.Load()
	switch {
	case q.Qclass != wire.ClassINET || !asksData(q.Qtype):
		reply.Rcode = wire.RcodeRefused
		return
	case q.Qtype == wire.TypeANY: // RFC 8482 §4.2
		reply.Answer = []wire.RR{&wire.HINFO{Hdr: header(q.Name, wire.TypeHINFO, nameTTL), Cpu: "RFC8482"}}
		return
	}
	if f, ours := z.lookup(q, serverName(segment, z)); ours {
		reply.Authoritative, reply.Rcode, reply.Answer, reply.Ns = true, f.rcode, f.answer, f.authority
		return
	}
	if !reply.RecursionDesired || len(segment.Forwarders) == 0 {
		reply.Rcode = wire.RcodeRefused
		return
	}
	m, err := s.pool.resolve(ctx, segment.Forwarders, q, do, reply.CheckingDisabled)
	if err != nil {
		s.log.Debug("a guest's question is not answered", "segment", segment.Name, "error", err)
		reply.Rcode = wire.RcodeServerFailure
		return
	}
	reply.Rcode, reply.Answer, reply.Ns = m.Rcode, m.Answer, m.Ns
	own := reply.Extra
	reply.Extra = append(slices.DeleteFunc(m.Extra, func(rr wire.RR) bool { return rr.Header().Rrtype == wire.TypeOPT }), own...)
}

// asksData tells whether a type is of records (RFC 6895 §3.1), or all of them.
func asksData(kind uint16) bool {
	switch kind {
	case wire.TypeANY:
		return true
	case wire.TypeNone, wire.TypeOPT:
		return false
	}
	return kind < 128 || kind > 255
}

// GatewayName is what a segment's gateway is called in it.
const GatewayName = "gateway"

// serverName is who answers: the gateway.
func serverName(segment Segment, z *zone) string {
	return GatewayName + "." + segment.Name + "." + z.origin
}

// pack makes a message of at most so many octets.
func pack(m *wire.Msg, limit int) []byte {
	m.Truncate(limit)
	packet, err := m.Pack()
	if err != nil {
		m.Rcode, m.Answer, m.Ns, m.Extra = wire.RcodeServerFailure, nil, nil, nil
		if packet, err = m.Pack(); err != nil {
			return nil
		}
	}
	return packet
}
