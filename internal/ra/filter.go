package ra

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Where a packet filter finds the IPv6 header, while its data begins at the
// ICMPv6 header (SKF_NET_OFF in linux/filter.h; RFC 8200 §3).
const (
	networkHeader = 0xfff00000
	hopLimitField = networkHeader + 7
	sourceField   = networkHeader + 8
)

// wholePacket is how much of a packet an accepting filter keeps.
const wholePacket = 1 << 16

// openFilter accepts what a neighbour may say by RFC 4861 §6.1: a router
// solicitation or advertisement of code 0 that no router has forwarded, from
// a link-local address. What this machine sent itself and only hears because
// another socket asked for multicast to be looped back is no neighbour.
func openFilter() []bpf.Instruction {
	program := append(conditions(),
		bpf.LoadAbsolute{Off: sourceField, Size: 2},
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xffc0},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0xfe80, SkipTrue: 1},
		bpf.RetConstant{Val: 0},
	)
	return append(program, bpf.RetConstant{Val: wholePacket})
}

// closedFilter accepts the same, from these sources only. It stands while the
// table is full: then nobody else can be listed, and a flood of forged sources
// ends in the kernel, where it costs least and crowds out no neighbour.
func closedFilter(sources []netip.Addr) []bpf.Instruction {
	program := conditions()
	for _, source := range sources {
		program = append(program, acceptSource(source)...)
	}
	return append(program, bpf.RetConstant{Val: 0})
}

func conditions() []bpf.Instruction {
	var program []bpf.Instruction
	require := func(load bpf.Instruction, condition bpf.JumpTest, value uint32) {
		program = append(program, load,
			bpf.JumpIf{Cond: condition, Val: value, SkipTrue: 1},
			bpf.RetConstant{Val: 0})
	}
	icmpType := bpf.LoadAbsolute{Off: 0, Size: 1}
	require(bpf.LoadExtension{Num: bpf.ExtType}, bpf.JumpNotEqual, unix.PACKET_LOOPBACK)
	require(icmpType, bpf.JumpGreaterOrEqual, solicitation)
	require(icmpType, bpf.JumpLessOrEqual, advertisement)
	require(bpf.LoadAbsolute{Off: 1, Size: 1}, bpf.JumpEqual, 0) // code
	require(bpf.LoadAbsolute{Off: hopLimitField, Size: 1}, bpf.JumpEqual, 255)
	return program
}

// acceptSource accepts a packet from a source and goes on with any other.
func acceptSource(source netip.Addr) []bpf.Instruction {
	const words = 4
	var program []bpf.Instruction
	b := source.As16()
	for i := range words {
		rest := 2*(words-1-i) + 1 // the other words, and the acceptance
		program = append(program,
			bpf.LoadAbsolute{Off: sourceField + uint32(4*i), Size: 4},
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: binary.BigEndian.Uint32(b[4*i:]), SkipTrue: uint8(rest)})
	}
	return append(program, bpf.RetConstant{Val: wholePacket})
}
