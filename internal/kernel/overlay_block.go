package kernel

import (
	"encoding/binary"
	"errors"

	"frond/internal/dataplane"

	"golang.org/x/sys/unix"
)

// Values of a bridge's port (linux/if_bridge.h). Without spanning tree, a
// port's cost means nothing to the kernel: here it tells a port that frond
// has blocked from one that the operator has.
const (
	portDisabled   = 0 // BR_STATE_DISABLED; any other state the kernel changes by itself
	portForwarding = 3 // BR_STATE_FORWARDING
	costBlocked    = 0xf20d
	costUsual      = 100
)

// block takes a port out of its bridge's forwarding.
func (w *OverlayWatch) block(index uint32) error { return w.setPort(index, portDisabled, costBlocked) }

// unblock puts a port back.
func (w *OverlayWatch) unblock(index uint32) error {
	return w.setPort(index, portForwarding, costUsual)
}

func (w *OverlayWatch) setPort(index uint32, state byte, cost uint32) error {
	var b batch
	b.beginPort(index, func(port []byte) []byte {
		port = appendAttribute(port, unix.IFLA_BRPORT_COST, binary.NativeEndian.AppendUint32(nil, cost))
		return appendAttribute(port, unix.IFLA_BRPORT_STATE, []byte{state})
	})
	var err error
	w.kernel.with(func(c *conn) { err = c.executeAll(&b) })
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) {
		return nil // not a port any more
	}
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if link, ok := w.board.links[index]; ok { // the kernel does not tell of it
		link.blocked = state == portDisabled
		w.board.links[index] = link
	}
	return nil
}

// flush has a bridge forget what it has learned on a port.
func (w *OverlayWatch) flush(index uint32) {
	var b batch
	b.beginPort(index, func(port []byte) []byte { return appendAttribute(port, unix.IFLA_BRPORT_FLUSH, nil) })
	w.kernel.with(func(c *conn) { _ = c.executeAll(&b) }) // fails for what is not a port any more
}

// beginPort encodes a change of a bridge's port.
func (b *batch) beginPort(index uint32, attributes func([]byte) []byte) {
	body := ifinfomsg(0, 0)
	body[0] = unix.AF_BRIDGE
	binary.NativeEndian.PutUint32(body[4:], index)
	b.begin(unix.RTM_SETLINK, 0, body...)
	b.attribute(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, attributes(nil))
}

// guestLink returns a port that guests are behind.
func (w *OverlayWatch) guestLink(index uint32) (guestLink, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	port, ok := w.board.ports[index]
	if !ok {
		return guestLink{}, false
	}
	link := w.board.links[index]
	found := guestLink{LocalPort: port.LocalPort, index: index, bridge: w.board.links[link.master].MAC, blocked: link.blocked}
	for _, other := range w.board.links {
		if other.master == link.master && other.Kind == dataplane.KindVXLAN && other.Owned {
			found.vxlan = other.mac
		}
	}
	return found, true
}

// hasPort tells whether a port is still what it was.
func (w *OverlayWatch) hasPort(link guestLink) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	port, ok := w.board.ports[link.index]
	return ok && port.LocalPort == link.LocalPort
}

// portsOf returns the ports of a segment that guests are behind.
func (w *OverlayWatch) portsOf(vni uint32) []uint32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	var indexes []uint32
	for index, port := range w.board.ports {
		if port.VNI == vni {
			indexes = append(indexes, index)
		}
	}
	return indexes
}

// looped tells of a loop. What was learned on both ports is as wrong as the
// loop: kernel and board forget it, and everything is read anew.
func (w *OverlayWatch) looped(blocked, other guestLink) {
	w.flush(blocked.index)
	w.flush(other.index)
	w.mu.Lock()
	for _, s := range []guestLink{blocked, other} {
		if port, ok := w.board.ports[s.index]; ok {
			w.board.removePort(s.index, port)
			w.board.arrange(s.index)
		}
	}
	w.pending.loop(dataplane.LocalLoop{VNI: blocked.VNI, Port: blocked.Port, Other: other.Port, Looped: true})
	w.board.lost = true
	w.mu.Unlock()
	signal(w.reread)
	signal(w.news)
}

func (w *OverlayWatch) unlooped(s guestLink) {
	w.mu.Lock()
	w.pending.loop(dataplane.LocalLoop{VNI: s.VNI, Port: s.Port})
	w.mu.Unlock()
	signal(w.news)
}
