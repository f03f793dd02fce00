package lab

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// arpAnswers are the MACs that a guest is told when it asks who has an address
// (RFC 826), each once.
func (w *world) arpAnswers(guest string, ip netip.Addr) []string {
	w.t.Helper()
	g, err := w.Guest(guest)
	must(w.t, err)
	own, err := net.ParseMAC(g.MAC)
	must(w.t, err)
	socket := w.openPacketSocket(guest, unix.ETH_P_ARP)
	defer func() { must(w.t, unix.Close(socket)) }()
	wait := unix.NsecToTimeval(int64(200 * time.Millisecond))
	must(w.t, unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
	must(w.t, unix.Sendto(socket, arpRequest(own, g.Address.Addr(), ip), 0, &unix.SockaddrLinklayer{Ifindex: guestIndex}))
	var macs []string
	for buf := make([]byte, 256); ; {
		n, _, err := unix.Recvfrom(socket, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			return macs
		}
		must(w.t, err)
		if n < 42 || buf[21] != 2 || !bytes.Equal(buf[28:32], ip.AsSlice()) {
			continue // no reply, or one of another address
		}
		if mac := net.HardwareAddr(buf[22:28]).String(); !slices.Contains(macs, mac) {
			macs = append(macs, mac)
		}
	}
}

// arpRequest asks who has ip.
func arpRequest(mac net.HardwareAddr, from, ip netip.Addr) []byte {
	b := append(ethernet(broadcast, mac, unix.ETH_P_ARP), 0, 1, 8, 0, 6, 4, 0, 1)
	b = append(append(b, mac...), from.AsSlice()...)
	b = append(append(b, 0, 0, 0, 0, 0, 0), ip.AsSlice()...)
	return append(b, make([]byte, 60-len(b))...)
}
