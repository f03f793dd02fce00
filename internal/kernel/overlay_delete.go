package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"

	"frond/internal/dataplane"

	"golang.org/x/sys/unix"
)

// doomedGroup is the group of devices (IFLA_GROUP) that those are put into
// that are about to be removed together. It is a number that nobody else is
// likely to use; whether somebody does is looked up each time.
const doomedGroup = 0x66726f6e

// deletions counts the operations up to the first that removes no device.
func deletions(ops []dataplane.OverlayOp) int {
	for i, op := range ops {
		if _, ok := op.(dataplane.DeleteDevice); !ok {
			return i
		}
	}
	return len(ops)
}

// deleteDevices carries out operations that all remove a device: together,
// because the kernel waits for all processors after each removal, or one by
// one where it refuses that.
func (a *overlayApplication) deleteDevices(first, count int) {
	a.flush()
	clear(a.indexes)
	var doomed []uint32
	operation := make(map[uint32]int)
	for i := first; i < first+count; i++ {
		index, err := a.conn.ownDevice(a.ops[i].(dataplane.DeleteDevice).Name)
		if err != nil {
			a.fail(i, err)
			continue
		}
		doomed = append(doomed, index)
		operation[index] = i
	}
	if len(doomed) > 1 && a.conn.deleteTogether(doomed) == nil {
		return
	}
	for _, index := range doomed {
		a.fail(operation[index], a.conn.deleteLink(index))
	}
}

// ownDevice finds a device that is frond's.
func (c *conn) ownDevice(name string) (uint32, error) {
	link, err := c.overlayLink(name)
	if err != nil {
		return 0, err
	}
	if !link.Owned {
		return 0, errors.New("it is not frond's")
	}
	return link.index, nil
}

// deleteTogether removes links in one call. After an error some may be left,
// and in the group.
func (c *conn) deleteTogether(links []uint32) error {
	var join, remove batch
	for _, index := range links {
		join.begin(unix.RTM_SETLINK, 0, linkWithIndex(index)...)
		join.number(unix.IFLA_GROUP, doomedGroup)
	}
	if err := c.executeAll(&join); err != nil {
		return fmt.Errorf("join the group of what is removed: %w", err)
	}
	members, err := c.membersOf(doomedGroup)
	if err != nil {
		return err
	}
	if members != len(links) {
		return fmt.Errorf("%d devices are in group %d, %d of them to be removed", members, uint32(doomedGroup), len(links))
	}
	remove.begin(unix.RTM_DELLINK, 0, ifinfomsg(0, 0)...)
	remove.number(unix.IFLA_GROUP, doomedGroup)
	return c.executeAll(&remove)
}

// membersOf counts the links of a group.
func (c *conn) membersOf(group uint32) (int, error) {
	members := 0
	err := c.dump(unix.RTM_GETLINK, withoutStats(ifinfomsg(0, 0)), func() { members = 0 }, func(m message) {
		if len(m.body) < unix.SizeofIfInfomsg {
			return
		}
		for kind, value := range attributes(m.body[unix.SizeofIfInfomsg:]) {
			if kind == unix.IFLA_GROUP && number(value) == group {
				members++
			}
		}
	})
	if err != nil {
		return 0, fmt.Errorf("read links: %w", err)
	}
	return members, nil
}

func (c *conn) deleteLink(index uint32) error {
	var b batch
	b.begin(unix.RTM_DELLINK, 0, linkWithIndex(index)...)
	return c.executeAll(&b)
}

func linkWithIndex(index uint32) []byte {
	body := ifinfomsg(0, 0)
	binary.NativeEndian.PutUint32(body[4:], index)
	return body
}
