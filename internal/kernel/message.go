package kernel

import (
	"encoding/binary"
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"
)

// message is one netlink message (struct nlmsghdr and what follows).
type message struct {
	kind  uint16
	flags uint16
	seq   uint32
	body  []byte
}

type messages = iter.Seq[message]

// parse splits a datagram; what does not fit its own length is left out.
func parse(data []byte) messages {
	return func(yield func(message) bool) {
		for rest := data; len(rest) >= unix.SizeofNlMsghdr; {
			length := int(binary.NativeEndian.Uint32(rest))
			if length < unix.SizeofNlMsghdr || length > len(rest) {
				return
			}
			m := message{
				kind:  binary.NativeEndian.Uint16(rest[4:]),
				flags: binary.NativeEndian.Uint16(rest[6:]),
				seq:   binary.NativeEndian.Uint32(rest[8:]),
				body:  rest[unix.SizeofNlMsghdr:length],
			}
			if !yield(m) {
				return
			}
			rest = rest[min(align(length), len(rest)):]
		}
	}
}

// refusal returns the error of NLMSG_ERROR or NLMSG_DONE, nil for success.
func (m message) refusal() error {
	if len(m.body) < 4 {
		return nil
	}
	errno := -int32(binary.NativeEndian.Uint32(m.body))
	if errno == 0 {
		return nil
	}
	refusal := &Error{Errno: unix.Errno(errno)}
	// After the error comes the header of what was refused (NETLINK_CAP_ACK).
	const explained = 4 + unix.SizeofNlMsghdr
	if m.kind == unix.NLMSG_ERROR && m.flags&unix.NLM_F_ACK_TLVS != 0 && len(m.body) > explained {
		for kind, value := range attributes(m.body[explained:]) {
			if kind == unix.NLMSGERR_ATTR_MSG {
				refusal.Text = unix.ByteSliceToString(value)
			}
		}
	}
	return refusal
}

// attributes walks through struct rtattr after struct rtattr.
func attributes(data []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for rest := data; len(rest) >= unix.SizeofRtAttr; {
			length := int(binary.NativeEndian.Uint16(rest))
			if length < unix.SizeofRtAttr || length > len(rest) {
				return
			}
			kind := binary.NativeEndian.Uint16(rest[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(kind, rest[unix.SizeofRtAttr:length]) {
				return
			}
			rest = rest[min(align(length), len(rest)):]
		}
	}
}

func align(n int) int { return (n + 3) &^ 3 }

// number reads an attribute of four octets, 0 if it has another size.
func number(value []byte) uint32 {
	if len(value) != 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(value)
}

// address reads an attribute of 4 or 16 octets.
func address(value []byte) netip.Addr {
	addr, _ := netip.AddrFromSlice(value)
	return addr
}

func family(addr netip.Addr) uint8 {
	if addr.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// batch is a run of requests that are sent together.
type batch struct {
	data   []byte
	starts []int
}

func (b *batch) len() int { return len(b.starts) }

func (b *batch) reset() { b.data, b.starts = b.data[:0], b.starts[:0] }

// begin opens a message with a fixed part; attributes follow.
func (b *batch) begin(kind, flags uint16, fixed ...byte) {
	b.starts = append(b.starts, len(b.data))
	b.data = append(b.data, make([]byte, unix.SizeofNlMsghdr)...)
	header := b.data[b.starts[len(b.starts)-1]:]
	binary.NativeEndian.PutUint16(header[4:], kind)
	binary.NativeEndian.PutUint16(header[6:], unix.NLM_F_REQUEST|flags)
	b.data = append(b.data, fixed...)
}

// seal fills in lengths and sequence numbers, and asks for the last answer.
func (b *batch) seal(first uint32) {
	for i, start := range b.starts {
		end := len(b.data)
		if i+1 < len(b.starts) {
			end = b.starts[i+1]
		}
		binary.NativeEndian.PutUint32(b.data[start:], uint32(end-start))
		binary.NativeEndian.PutUint32(b.data[start+8:], first+uint32(i))
	}
	last := b.data[b.starts[len(b.starts)-1]:]
	binary.NativeEndian.PutUint16(last[6:], binary.NativeEndian.Uint16(last[6:])|unix.NLM_F_ACK)
}

func (b *batch) attribute(kind uint16, value []byte) { b.data = appendAttribute(b.data, kind, value) }

func (b *batch) number(kind uint16, value uint32) {
	b.data = binary.NativeEndian.AppendUint16(b.data, unix.SizeofRtAttr+4)
	b.data = binary.NativeEndian.AppendUint16(b.data, kind)
	b.data = binary.NativeEndian.AppendUint32(b.data, value)
}

func (b *batch) address(kind uint16, addr netip.Addr) {
	if addr.Is4() {
		v4 := addr.As4()
		b.attribute(kind, v4[:])
		return
	}
	v6 := addr.As16()
	b.attribute(kind, v6[:])
}

func appendAttribute(data []byte, kind uint16, value []byte) []byte {
	data = binary.NativeEndian.AppendUint16(data, uint16(unix.SizeofRtAttr+len(value)))
	data = binary.NativeEndian.AppendUint16(data, kind)
	data = append(data, value...)
	return append(data, make([]byte, align(len(value))-len(value))...)
}
