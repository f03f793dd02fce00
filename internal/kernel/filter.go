package kernel

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets into a notification, and where the body's protocol is.
const (
	offsetKind            = 4                       // nlmsg_type
	offsetPort            = 12                      // nlmsg_pid
	offsetNexthopProtocol = unix.SizeofNlMsghdr + 2 // nh_protocol
	offsetRouteProtocol   = unix.SizeofNlMsghdr + 5 // rtm_protocol
	verdictDrop           = uint32(0)
	verdictAccept         = uint32(0xffffffff) // the whole message
)

// notificationFilter lets through what tells something new: links, and what
// others do to addresses or to frond's own nexthop objects and routes. A
// full table of somebody else's routes never reaches the process, nor do the
// echoes of frond's own batches, which carry one of the ports.
func notificationFilter(ports []uint32) ([]bpf.RawInstruction, error) {
	// Jumps are counted in instructions, so each part is put together from
	// its end.
	var own []bpf.Instruction
	own = append(own, bpf.LoadAbsolute{Off: offsetPort, Size: 4})
	for i, port := range ports {
		own = append(own, bpf.JumpIf{Cond: bpf.JumpEqual, Val: swap32(port), SkipTrue: uint8(len(ports) - i)})
	}
	own = append(own,
		bpf.RetConstant{Val: verdictAccept},
		bpf.RetConstant{Val: verdictDrop},
	)
	protocol := func(offset uint32, after int) []bpf.Instruction {
		return []bpf.Instruction{
			bpf.LoadAbsolute{Off: offset, Size: 1},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: Protocol, SkipTrue: uint8(1 + after)},
			bpf.RetConstant{Val: verdictDrop},
		}
	}
	route := protocol(offsetRouteProtocol, 0)
	nexthop := protocol(offsetNexthopProtocol, len(route))
	accept := []bpf.Instruction{bpf.RetConstant{Val: verdictAccept}}

	kinds := []struct {
		kind uint16
		skip int // beyond the end of this list
	}{
		{unix.RTM_NEWNEXTHOP, len(accept)},
		{unix.RTM_DELNEXTHOP, len(accept)},
		{unix.RTM_NEWROUTE, len(accept) + len(nexthop)},
		{unix.RTM_DELROUTE, len(accept) + len(nexthop)},
		{unix.RTM_NEWADDR, len(accept) + len(nexthop) + len(route)},
		{unix.RTM_DELADDR, len(accept) + len(nexthop) + len(route)},
	}
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: offsetKind, Size: 2}}
	for i, k := range kinds {
		skip := len(kinds) - 1 - i + k.skip
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: swap16(k.kind), SkipTrue: uint8(skip)})
	}
	for _, part := range [][]bpf.Instruction{accept, nexthop, route, own} {
		program = append(program, part...)
	}
	raw, err := bpf.Assemble(program)
	if err != nil {
		return nil, fmt.Errorf("assemble the notification filter: %w", err)
	}
	return raw, nil
}

// swap16 and swap32 turn a number of the host, as netlink has it, into what
// BPF reads, which takes all numbers for the network's.
func swap16(v uint16) uint32 {
	return uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, v)))
}

func swap32(v uint32) uint32 {
	return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, v))
}

func attachFilter(fd int, program []bpf.RawInstruction) error {
	filter := make([]unix.SockFilter, len(program))
	for i, in := range program {
		filter[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
}
