package kernel

import (
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"frond/internal/dataplane"
)

// guardTable is the name of the guard's two tables: of family netdev for what
// guests send, and of family inet for what other nodes do. All that is in them is
// frond's.
const guardTable = "frond-guard"

// table is a table of the guard as it should be.
type guardFamily struct {
	family nftables.TableFamily
	sets   []guardSet
	chains []guardChain
	// onDevices are chains of devices, which come and go.
	onDevices func(dataplane.Guard) []guardChain
	drops     []string // rules whose packets are counted
	meters    []string // sets of limits, one for each port
}

// guardSet is a set whose elements change while the rules stay.
type guardSet struct {
	name     string
	types    []nftables.SetDatatype // more than one: concatenated
	interval bool
	// restricts: what is in it is kept from something; other sets let something be.
	restricts bool
	elements  func(dataplane.Guard) [][]byte // their keys; of intervals, see prefixKeys
}

type guardChain struct {
	name string
	hook *nftables.ChainHook // nil: reached from other chains
	prio int32
	// device is what a chain of family netdev hears.
	device string
	rules  [][]expr.Any
}

// Offsets of fields in the header that the base of a payload names.
const (
	linkDestination, linkSource   = 0, 6
	arpSenderMAC, arpSenderIP     = 8, 14
	ip4Fragment, ip4From, ip4To   = 6, 12, 16
	ip6From, ip6To                = 8, 24
	portFrom, portTo              = 0, 2
	icmpType, neighborTargetField = 0, 8
)

// Registers: reg takes 16 octets, and within it reg4, reg8 and reg12 begin behind
// so many; regNext comes after it.
const (
	reg     = unix.NFT_REG_1
	regNext = unix.NFT_REG_2
	reg4    = unix.NFT_REG32_00 + 1
	reg8    = unix.NFT_REG32_00 + 2
	reg12   = unix.NFT_REG32_00 + 3
)

// Ports of services that nobody but nodes speaks to.
const (
	portBGP   = 179
	portVXLAN = 4789
)

// Messages of ICMPv6 (RFC 4861).
const (
	routerAdvert = 134
	redirect     = 137
)

func seq(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func equal(to ...byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: to}}
}

func differs(to ...byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpNeq, Register: reg, Data: to}}
}

func in(set string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: reg, SetName: set}}
}

func load(to uint32, base expr.PayloadBase, offset, length uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: to, Base: base, Offset: offset, Len: length}}
}

// link loads a MAC of the frame.
func link(offset uint32) []expr.Any {
	return load(reg, expr.PayloadBaseLLHeader, offset, 6)
}
func network(offset, length uint32) []expr.Any {
	return load(reg, expr.PayloadBaseNetworkHeader, offset, length)
}
func transport(offset, length uint32) []expr.Any {
	return load(reg, expr.PayloadBaseTransportHeader, offset, length)
}

func masked(mask ...byte) []expr.Any {
	return []expr.Any{&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: uint32(len(mask)), Mask: mask, Xor: make([]byte, len(mask))}}
}

func meta(key expr.MetaKey) []expr.Any { return []expr.Any{&expr.Meta{Key: key, Register: reg}} }

func portIn(set string) []expr.Any { return seq(meta(expr.MetaKeyIIFNAME), in(set)) }

// protocol is of the frame, which bridges know; family of the packet, which
// the family inet does.
func protocol(etherType uint16) []expr.Any {
	return seq(meta(expr.MetaKeyPROTOCOL), equal(binary.BigEndian.AppendUint16(nil, etherType)...))
}
func ipFamily(nfproto byte) []expr.Any { return seq(meta(expr.MetaKeyNFPROTO), equal(nfproto)) }
func layer4(proto byte) []expr.Any     { return seq(meta(expr.MetaKeyL4PROTO), equal(proto)) }
func layer4Differs(proto byte) []expr.Any {
	return seq(meta(expr.MetaKeyL4PROTO), differs(proto))
}

func port(number uint16) []expr.Any { return equal(binary.BigEndian.AppendUint16(nil, number)...) }
func portDiffers(number uint16) []expr.Any {
	return differs(binary.BigEndian.AppendUint16(nil, number)...)
}

func goTo(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain}}
}
func back() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}} }

// pass ends the guard's look at a packet.
func pass() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }

// drop has the packet counted and dropped.
func drop(rule string) []expr.Any { return goTo(dropSet(rule)) }

// dropChains count packets for the port that they came in by, and drop them,
// those too that find no room to be counted.
func dropChains(rules []string) []guardChain {
	var chains []guardChain
	for _, rule := range rules {
		count := seq(meta(expr.MetaKeyIIFNAME), []expr.Any{
			&expr.Dynset{SrcRegKey: reg, SetName: dropSet(rule), Operation: uint32(unix.NFT_DYNSET_OP_ADD), Exprs: []expr.Any{&expr.Counter{}}},
		})
		chains = append(chains, guardChain{name: dropSet(rule), rules: [][]expr.Any{count, {&expr.Verdict{Kind: expr.VerdictDrop}}}})
	}
	return chains
}

// dropSet names both the chain that drops by a rule and the set of what it counts.
func dropSet(rule string) string { return "drop-" + rule }

// fragmentHeader tells that there is one of IPv6.
func fragmentHeader() []expr.Any {
	return seq([]expr.Any{&expr.Exthdr{DestRegister: reg, Type: unix.IPPROTO_FRAGMENT, Offset: 0, Len: 1,
		Flags: unix.NFT_EXTHDR_F_PRESENT, Op: expr.ExthdrOpIpv6}}, equal(1))
}
