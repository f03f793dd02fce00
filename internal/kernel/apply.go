package kernel

import (
	"context"
	"errors"

	"frond/internal/dataplane"

	"golang.org/x/sys/unix"
)

// batchSize is how many messages one system call carries.
const batchSize = 500

// Apply carries out the operations in their order and returns one error per
// operation that failed. Deleting what is absent is no error.
func (k *Kernel) Apply(ctx context.Context, ops []dataplane.Op) []dataplane.OpError {
	a := &application{kernel: k, ops: ops, indexes: make(map[string]uint32)}
	k.with(func(c *conn) {
		a.conn = c
		for i := range ops {
			if err := ctx.Err(); err != nil {
				a.flush()
				a.failAll(i, err)
				return
			}
			a.take(i)
		}
		a.flush()
	})
	return a.failed
}

// application is the carrying out of a list of operations.
type application struct {
	kernel  *Kernel
	conn    *conn
	ops     []dataplane.Op
	batch   batch
	pending []int             // index of the operation of each message in batch
	indexes map[string]uint32 // of links by name
	failed  []dataplane.OpError
}

func (a *application) take(i int) {
	switch op := a.ops[i].(type) {
	case dataplane.SetSysctl:
		a.flush()
		a.fail(i, a.kernel.writeSysctl(op.Path, op.Value))
		return
	case dataplane.SetPort:
		a.flush()
		a.fail(i, a.kernel.setPort(a.conn, op.Name))
		return
	case dataplane.AddAddress:
		if lo, ok := a.index(i, "lo"); ok {
			a.batch.addAddress(op.Prefix, lo)
		}
	case dataplane.DeleteAddress:
		if lo, ok := a.index(i, "lo"); ok {
			a.batch.deleteAddress(op.Prefix, lo)
		}
	case dataplane.AddPortAddress:
		if index, ok := a.index(i, op.Port); ok {
			a.batch.addAddress(op.Prefix, index)
		}
	case dataplane.DeletePortAddress:
		if index, ok := a.index(i, op.Port); ok {
			a.batch.deleteAddress(op.Prefix, index)
		}
	case dataplane.SetNextHop:
		if !op.NextHop.Via.IsValid() {
			a.fail(i, errors.New("the next hop has no address"))
			return
		}
		if oif, ok := a.index(i, op.NextHop.Port); ok {
			a.batch.addNextHop(op, oif)
		}
	case dataplane.SetGroup:
		a.batch.setGroup(op)
	case dataplane.DeleteNextHop:
		a.batch.deleteNextHop(op)
	case dataplane.SetRoute:
		a.batch.setRoute(op)
	case dataplane.DeleteRoute:
		a.batch.deleteRoute(op)
	default:
		a.fail(i, errors.ErrUnsupported)
		return
	}
	if a.batch.len() > len(a.pending) {
		a.pending = append(a.pending, i)
	}
	if len(a.pending) == batchSize {
		a.flush()
	}
}

// index returns the index of a link; without one, the operation has failed.
func (a *application) index(i int, name string) (uint32, bool) {
	if index, ok := a.indexes[name]; ok {
		return index, true
	}
	a.flush()
	link, err := a.conn.link(name)
	if err != nil {
		a.fail(i, err)
		return 0, false
	}
	a.indexes[name] = uint32(link.Index)
	return uint32(link.Index), true
}

// flush sends what is pending.
func (a *application) flush() {
	a.conn.flush(&a.batch, a.pending, a.fail)
	a.pending = a.pending[:0]
}

func (a *application) fail(i int, err error) {
	if err != nil && !isDone(a.ops[i], err) {
		a.failed = append(a.failed, dataplane.OpError{Index: i, Op: a.ops[i], Err: err})
	}
}

func (a *application) failAll(first int, err error) {
	for i := first; i < len(a.ops); i++ {
		a.fail(i, err)
	}
}

// isDone tells that an error says no more than that all is as it should be.
func isDone(op dataplane.Op, err error) bool {
	switch op.(type) {
	case dataplane.DeleteNextHop:
		return errors.Is(err, unix.ENOENT)
	case dataplane.DeleteRoute:
		return errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT)
	case dataplane.AddAddress, dataplane.AddPortAddress:
		return errors.Is(err, unix.EEXIST)
	case dataplane.DeleteAddress, dataplane.DeletePortAddress:
		return errors.Is(err, unix.EADDRNOTAVAIL)
	}
	return false
}
