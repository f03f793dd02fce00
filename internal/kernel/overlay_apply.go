package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"frond/internal/dataplane"

	"golang.org/x/sys/unix"
)

var _ dataplane.OverlayTarget = (*Kernel)(nil)

// ApplyOverlay carries out the operations in their order and returns one
// error per operation that failed. Deleting what is absent is no error.
func (k *Kernel) ApplyOverlay(ctx context.Context, ops []dataplane.OverlayOp) []dataplane.OpError {
	a := &overlayApplication{kernel: k, ops: ops, indexes: make(map[string]uint32)}
	k.with(func(c *conn) {
		a.conn = c
		for i := 0; i < len(ops); i++ {
			if err := ctx.Err(); err != nil {
				a.flush()
				for ; i < len(ops); i++ {
					a.fail(i, err)
				}
				return
			}
			if n := deletions(ops[i:]); n > 0 {
				a.deleteDevices(i, n)
				i += n - 1
				continue
			}
			a.take(i)
		}
		a.flush()
	})
	a.announceMoved()
	return a.failed
}

// overlayApplication is the carrying out of a list of operations.
type overlayApplication struct {
	kernel  *Kernel
	conn    *conn
	ops     []dataplane.OverlayOp
	batch   batch
	pending []int             // index of the operation of each message in batch
	indexes map[string]uint32 // of links by name
	failed  []dataplane.OpError
}

func (a *overlayApplication) take(i int) {
	switch op := a.ops[i].(type) {
	case dataplane.SetDevice:
		a.flush()
		clear(a.indexes)
		a.fail(i, a.kernel.setDevice(a.conn, op.Device))
	case dataplane.SetMAC:
		a.encode(i, op.VXLAN, func(vxlan uint32) { a.batch.setMAC(op, vxlan) })
	case dataplane.DeleteMAC:
		a.encode(i, op.VXLAN, func(vxlan uint32) { a.batch.deleteMAC(op, vxlan, unix.NTF_SELF) })
		a.encode(i, op.VXLAN, func(vxlan uint32) { a.batch.deleteMAC(op, vxlan, unix.NTF_MASTER) })
	case dataplane.AddBridgeAddress:
		a.encode(i, op.Bridge, func(bridge uint32) { a.batch.addAddress(op.Prefix, bridge) })
	case dataplane.DeleteBridgeAddress:
		a.encode(i, op.Bridge, func(bridge uint32) { a.batch.deleteAddress(op.Prefix, bridge) })
	case dataplane.SetNeighbor:
		a.encode(i, op.Bridge, func(bridge uint32) { a.batch.setNeighbor(op, bridge) })
	case dataplane.DeleteNeighbor:
		a.encode(i, op.Bridge, func(bridge uint32) { a.batch.deleteNeighbor(op, bridge) })
	case dataplane.AddFlood:
		a.encode(i, op.VXLAN, func(vxlan uint32) { a.batch.addFlood(op, vxlan) })
	case dataplane.DeleteFlood:
		a.encode(i, op.VXLAN, func(vxlan uint32) { a.batch.deleteFlood(op, vxlan) })
	default:
		a.fail(i, errors.ErrUnsupported)
	}
}

// encode adds one message of an operation on a device to the batch.
func (a *overlayApplication) encode(i int, device string, encode func(index uint32)) {
	index, ok := a.indexes[device]
	if !ok {
		a.flush()
		link, err := a.conn.link(device)
		if err != nil {
			a.fail(i, err)
			return
		}
		index = uint32(link.Index)
		a.indexes[device] = index
	}
	encode(index)
	a.pending = append(a.pending, i)
	if len(a.pending) == batchSize {
		a.flush()
	}
}

// flush sends what is pending.
func (a *overlayApplication) flush() {
	a.conn.flush(&a.batch, a.pending, a.fail)
	a.pending = a.pending[:0]
}

// fail notes why an operation failed, once: its messages come one after another.
func (a *overlayApplication) fail(i int, err error) {
	if err == nil || isOverlayDone(a.ops[i], err) {
		return
	}
	if n := len(a.failed); n > 0 && a.failed[n-1].Index == i {
		return
	}
	a.failed = append(a.failed, dataplane.OpError{Index: i, Op: a.ops[i], Err: err})
}

// isOverlayDone tells that an error says no more than that all is as it should be.
func isOverlayDone(op dataplane.OverlayOp, err error) bool {
	switch op.(type) {
	case dataplane.DeleteMAC, dataplane.DeleteFlood, dataplane.DeleteNeighbor, dataplane.DeleteDevice:
		return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
	case dataplane.AddBridgeAddress:
		return errors.Is(err, unix.EEXIST)
	case dataplane.DeleteBridgeAddress:
		return errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.ENODEV)
	}
	return false
}

// setDevice makes a device, or changes the one that there is.
func (k *Kernel) setDevice(c *conn, want dataplane.Device) error {
	have, err := c.overlayLink(want.Name)
	if errors.Is(err, unix.ENODEV) {
		var create batch
		create.createDevice(want)
		if err := c.executeAll(&create); err != nil {
			return fmt.Errorf("create: %w", err)
		}
		have, err = c.overlayLink(want.Name)
	}
	if err != nil {
		return err
	}
	if !have.Owned || have.Kind != want.Kind {
		return fmt.Errorf("a device of this name exists that is not frond's: %w", unix.EEXIST)
	}
	var bridge uint32
	if want.Bridge != "" {
		link, err := c.overlayLink(want.Bridge)
		if err != nil {
			return err
		}
		bridge = link.index
	}
	var change batch
	change.changeDevice(want, have, bridge)
	if err := c.executeAll(&change); err != nil {
		return err
	}
	if err := k.deafen(want); err != nil {
		return err
	}
	return c.setUp(want.Name)
}

// deafen writes the values that make a device deaf, where they exist.
func (k *Kernel) deafen(device dataplane.Device) error {
	for _, value := range deafValues(device) {
		err := k.writeSysctl("net/"+value[0], value[1])
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("write %s: %w", value[0], err)
		}
	}
	return nil
}

// overlayLink asks for one link by name.
func (c *conn) overlayLink(name string) (overlayLink, error) {
	body := appendAttribute(withoutStats(ifinfomsg(0, 0)), unix.IFLA_IFNAME, append([]byte(name), 0))
	m, err := c.get(unix.RTM_GETLINK, body)
	if err != nil {
		return overlayLink{}, fmt.Errorf("find link %s: %w", name, err)
	}
	link, ok := parseOverlayLink(m)
	if !ok {
		return overlayLink{}, fmt.Errorf("find link %s: the kernel's answer is no link", name)
	}
	return link, nil
}

// executeAll sends a batch and returns the first refusal.
func (c *conn) executeAll(b *batch) error {
	refused, err := c.execute(b)
	for i := range b.len() {
		if refused[i] != nil {
			return refused[i]
		}
	}
	return err
}

// withoutStats asks for links without their counters.
func withoutStats(body []byte) []byte {
	return appendAttribute(body, unix.IFLA_EXT_MASK, binary.NativeEndian.AppendUint32(nil, skipStats))
}
