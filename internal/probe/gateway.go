package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"frond/internal/netns"
)

// FrameWatch counts the frames to or from a MAC that a VTEP sends out.
type FrameWatch struct{ sockets []*os.File }

// WatchFrames begins to watch all interfaces of a namespace for frames to or
// from a MAC that leave it in VXLAN of that VNI, from local, an IPv4 address.
// Stop must be called in any case.
func WatchFrames(ns *netns.NS, local netip.Addr, vni uint32, mac net.HardwareAddr) (*FrameWatch, error) {
	w := &FrameWatch{}
	for _, offset := range []uint32{offsetInner, offsetInner + 6} { // destination, source
		socket, err := openPacket(ns, unix.SOCK_RAW, unix.ETH_P_ALL, matching(offsetInnerType, append(leaving(local, vni),
			match{offset, 4, binary.BigEndian.Uint32(mac[:4])},
			match{offset + 4, 2, uint32(binary.BigEndian.Uint16(mac[4:]))},
		)...))
		if err != nil {
			_ = w.close()
			return nil, err
		}
		w.sockets = append(w.sockets, socket)
	}
	return w, nil
}

// Stop ends the watch and tells how many frames left, at most as many as fit
// into a socket's buffer.
func (w *FrameWatch) Stop() (frames int, err error) {
	for _, socket := range w.sockets {
		err = errors.Join(err, drain(socket, make([]byte, 1), func(int) { frames++ }))
	}
	if err = errors.Join(err, w.close()); err != nil {
		return 0, fmt.Errorf("count frames: %w", err)
	}
	return frames, nil
}

func (w *FrameWatch) close() error {
	var err error
	for _, socket := range w.sockets {
		err = errors.Join(err, socket.Close())
	}
	w.sockets = nil
	return err
}
