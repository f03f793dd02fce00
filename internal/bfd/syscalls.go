package bfd

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls that are made for every packet, done by hand. The wrappers of
// x/sys allocate addresses, and tell Go's scheduler that the thread may block,
// which wakes its monitor thread each time and doubles what a packet costs.
// None of these calls blocks: the sockets do not.

// recvmsg is recvmsg(2) on a socket that does not block.
func recvmsg(fd int, header *unix.Msghdr) (int, unix.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, uintptr(fd), uintptr(unsafe.Pointer(header)), 0)
	return int(n), errno
}

// sendto is sendto(2) on a socket that does not block.
func sendto(fd int, packet []byte, to *unix.RawSockaddrInet6) error {
	_, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd),
		uintptr(unsafe.Pointer(unsafe.SliceData(packet))), uintptr(len(packet)), 0,
		uintptr(unsafe.Pointer(to)), unix.SizeofSockaddrInet6)
	if errno != 0 {
		return errno
	}
	return nil
}

// ifreq is struct ifreq of netdevice(7) as SIOCGIFNAME uses it.
type ifreq struct {
	name  [unix.IFNAMSIZ]byte
	index int32
	_     [20]byte
}

// deviceHasName asks whether an interface index still belongs to a name. To
// ask for the index of a name would have the kernel run modprobe when there
// is none.
func deviceHasName(fd int, index uint32, name string) bool {
	request := ifreq{index: int32(index)}
	_, _, errno := unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGIFNAME, uintptr(unsafe.Pointer(&request)))
	return errno == 0 && len(name) < len(request.name) &&
		string(request.name[:len(name)]) == name && request.name[len(name)] == 0
}
