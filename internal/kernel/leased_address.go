package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"frond/internal/dataplane"

	"golang.org/x/sys/unix"
)

// LeasedAddress is an address that is a bridge's for a limited time.
type LeasedAddress struct {
	dataplane.BridgeAddress
	// Lifetime is how long the kernel keeps it (valid_lft), in whole seconds.
	// 0: it stays as it is, there or not.
	Lifetime time.Duration
	// Before is when it has to be there, on the clock that SetLeased is given:
	// later, Lifetime would end too late.
	Before time.Duration
}

// errTooLate tells that the time to set an address had passed.
var errTooLate = errors.New("the time to set it had passed")

// SetLeased makes wanted all that is there of the addresses that are known:
// each has its lifetime from now on, and those that are not wanted are gone.
// Only addresses with a lifetime are touched, and where the kernel says who
// made them, only frond's.
//
// The kernel looks at lifetimes when the next one is over and when an address
// is set, but at most once a second (check_lifetime in net/ipv4/devinet.c,
// addrconf_verify_rtnl in net/ipv6/addrconf.c: ADDRCONF_TIMER_FUZZ_MAX), and
// rounds that to full seconds of its own by up to 0.25 s
// (ADDRCONF_TIMER_FUZZ). So it removes an address up to 0.25 s late, and
// up to 1 s if another address of the namespace was set in the last second.
// The timer is deferrable: a processor that sleeps is not woken for it.
// BenchmarkLifetime measures it.
func (k *Kernel) SetLeased(ctx context.Context, known []dataplane.BridgeAddress, wanted []LeasedAddress, clock func() time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var err error
	k.with(func(c *conn) {
		l := leasing{conn: c, clock: clock, indexes: make(map[string]uint32), there: make(map[indexedPrefix]interfaceAddress)}
		err = l.set(known, wanted)
	})
	return err
}

type indexedPrefix struct {
	index  uint32
	prefix string
}

// leasing is one call of SetLeased.
type leasing struct {
	conn    *conn
	clock   func() time.Duration
	indexes map[string]uint32
	there   map[indexedPrefix]interfaceAddress
	batch   batch
}

func (l *leasing) set(known []dataplane.BridgeAddress, wanted []LeasedAddress) error {
	if err := l.look(); err != nil {
		return err
	}
	keep := make(map[dataplane.BridgeAddress]bool, len(wanted))
	for _, a := range wanted {
		keep[a.BridgeAddress] = true
	}
	var gone []dataplane.BridgeAddress
	for _, a := range known {
		if found, ok := l.find(a); ok && !keep[a] && found.leased() {
			gone = append(gone, a)
		}
	}
	if err := l.delete(gone); err != nil {
		return err
	}
	return l.add(wanted)
}

// leased tells that an address is one that SetLeased has set.
func (a interfaceAddress) leased() bool {
	return a.flags&unix.IFA_F_PERMANENT == 0 && (a.protocol == Protocol || a.protocol == 0)
}

// look notes which addresses there are.
func (l *leasing) look() error {
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		reset := func() {}
		err := l.conn.dump(unix.RTM_GETADDR, ifaddrmsg(family, 0, 0), reset, func(m message) {
			if a, ok := parseAddress(m); ok {
				l.there[indexedPrefix{a.index, a.prefix.String()}] = a
			}
		})
		if err != nil && !absent(err) {
			return fmt.Errorf("read addresses: %w", err)
		}
	}
	return nil
}

func (l *leasing) find(a dataplane.BridgeAddress) (interfaceAddress, bool) {
	index, err := l.index(a.Bridge)
	if err != nil {
		return interfaceAddress{}, false
	}
	found, ok := l.there[indexedPrefix{index, a.Prefix.String()}]
	return found, ok
}

func (l *leasing) index(bridge string) (uint32, error) {
	if index, ok := l.indexes[bridge]; ok {
		return index, nil
	}
	link, err := l.conn.link(bridge)
	if err != nil {
		return 0, err
	}
	l.indexes[bridge] = uint32(link.Index)
	return l.indexes[bridge], nil
}

func (l *leasing) delete(gone []dataplane.BridgeAddress) error {
	if len(gone) == 0 {
		return nil
	}
	l.batch.reset()
	for _, a := range gone {
		l.batch.deleteAddress(a.Prefix, l.indexes[a.Bridge])
	}
	refused, err := l.conn.execute(&l.batch)
	for i, a := range gone {
		if err := refused[i]; err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("delete address %s from %s: %w", a.Prefix, a.Bridge, err)
		}
	}
	return err
}

// add sets what can still be set, and takes back what came too late.
func (l *leasing) add(wanted []LeasedAddress) error {
	l.batch.reset()
	var set []dataplane.BridgeAddress
	var failed []error
	before := time.Duration(1<<63 - 1)
	for _, a := range wanted {
		if a.Lifetime == 0 {
			continue
		}
		index, err := l.index(a.Bridge)
		if err != nil {
			failed = append(failed, fmt.Errorf("set address %s of %s: %w", a.Prefix, a.Bridge, err))
			continue
		}
		if found, ok := l.find(a.BridgeAddress); ok && !found.leased() {
			failed = append(failed, fmt.Errorf("%s has %s already, not from a lease: remove it", a.Bridge, a.Prefix))
			continue
		}
		l.batch.leaseAddress(a.Prefix, index, a.Lifetime)
		set, before = append(set, a.BridgeAddress), min(before, a.Before)
	}
	if len(set) == 0 {
		return errors.Join(failed...)
	}
	if l.clock() > before {
		return errors.Join(append(failed, errTooLate)...)
	}
	refused, err := l.conn.execute(&l.batch)
	if l.clock() > before {
		return errors.Join(append(failed, errTooLate, l.delete(set))...)
	}
	for i, a := range set {
		if refused[i] != nil {
			failed = append(failed, fmt.Errorf("set address %s of %s: %w", a.Prefix, a.Bridge, refused[i]))
		}
	}
	return errors.Join(append(failed, err)...)
}

// leaseAddress encodes an address with a lifetime, new or as it is there.
func (b *batch) leaseAddress(prefix netip.Prefix, link uint32, lifetime time.Duration) {
	b.beginAddress(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, prefix, link)
	b.number(unix.IFA_FLAGS, unix.IFA_F_NODAD)
	b.attribute(ifaProto, []byte{Protocol})
	b.attribute(unix.IFA_CACHEINFO, cacheinfo(uint32(lifetime/time.Second)))
}

// cacheinfo is struct ifa_cacheinfo: preferred and valid lifetime in seconds,
// and two times that the kernel fills in.
func cacheinfo(lifetime uint32) []byte {
	info := binary.NativeEndian.AppendUint32(nil, lifetime)
	info = binary.NativeEndian.AppendUint32(info, lifetime)
	return append(info, make([]byte, 8)...)
}
