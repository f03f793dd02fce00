package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
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

// LeasesRefused is the error of SetLeased when all that is not wanted is gone,
// and only these are not there.
type LeasesRefused map[dataplane.BridgeAddress]error

func (r LeasesRefused) Error() string {
	var all []string
	for a, err := range r {
		all = append(all, fmt.Sprintf("set address %s of %s: %v", a.Prefix, a.Bridge, err))
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// SetLeased makes wanted all that is there of addresses with a lifetime that
// are frond's: each has its lifetime from now on, and all others are gone,
// wherever an earlier document had them, but for those that are for somebody
// else to set: they stay as they are. Where the kernel does not say who made
// an address (before Linux 5.18), only those that are known are looked for.
//
// The kernel looks at lifetimes when the next one is over and when an address
// is set, but at most once a second (check_lifetime in net/ipv4/devinet.c,
// addrconf_verify_rtnl in net/ipv6/addrconf.c: ADDRCONF_TIMER_FUZZ_MAX), and
// rounds that to full seconds of its own by up to 0.25 s
// (ADDRCONF_TIMER_FUZZ). So it removes an address up to 0.25 s late, and
// up to 1 s if another address of the namespace was set in the last second.
// The timer is deferrable: a processor that sleeps is not woken for it.
// BenchmarkLifetime measures it.
func (k *Kernel) SetLeased(ctx context.Context, known, others []dataplane.BridgeAddress, wanted []LeasedAddress, clock func() time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var err error
	k.with(func(c *conn) {
		l := leasing{
			conn: c, clock: clock, indexes: make(map[string]uint32), there: make(map[indexedPrefix]interfaceAddress),
			refused: make(LeasesRefused),
		}
		err = l.set(known, others, wanted)
	})
	return err
}

type indexedPrefix struct {
	index  uint32
	prefix netip.Prefix
}

// leasing is one call of SetLeased.
type leasing struct {
	conn    *conn
	clock   func() time.Duration
	indexes map[string]uint32
	there   map[indexedPrefix]interfaceAddress
	refused LeasesRefused
	late    bool // some have not been prolonged
	batch   batch
}

func (l *leasing) set(known, others []dataplane.BridgeAddress, wanted []LeasedAddress) error {
	if err := l.look(); err != nil {
		return err
	}
	gone, err := l.unwanted(known, others, wanted)
	if err != nil {
		return err
	}
	if err := l.delete(gone); err != nil {
		return err
	}
	for chunk := range slices.Chunk(l.settable(wanted), leaseBatch) {
		if err := l.add(chunk); err != nil {
			return err
		}
	}
	switch {
	case len(l.refused) > 0:
		return l.refused
	case l.late:
		return errTooLate
	}
	return nil
}

// leaseBatch bounds the addresses of one message, and with it the time between a
// look at the clock and what it is for.
const leaseBatch = 500

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
				l.there[indexedPrefix{a.index, a.prefix}] = a
			}
		})
		if err != nil && !absent(err) {
			return fmt.Errorf("read addresses: %w", err)
		}
	}
	return nil
}

// unwanted are the addresses that have to go.
func (l *leasing) unwanted(known, others []dataplane.BridgeAddress, wanted []LeasedAddress) ([]indexedPrefix, error) {
	keep := make(map[indexedPrefix]bool, len(wanted)+len(others))
	stay := slices.Clone(others)
	for _, a := range wanted {
		stay = append(stay, a.BridgeAddress)
	}
	for _, a := range stay {
		key, err := l.key(a)
		if err != nil {
			return nil, err
		}
		keep[key] = true
	}
	var gone []indexedPrefix
	for key, a := range l.there {
		if a.leased() && a.protocol == Protocol && !keep[key] {
			gone = append(gone, key)
		}
	}
	for _, a := range known {
		key, err := l.key(a)
		if err != nil {
			return nil, err
		}
		if found, ok := l.there[key]; ok && found.leased() && found.protocol == 0 && !keep[key] {
			gone = append(gone, key)
		}
	}
	return gone, nil
}

// key is where an address is or would be; its index is 0 without the bridge.
func (l *leasing) key(a dataplane.BridgeAddress) (indexedPrefix, error) {
	index, ok := l.indexes[a.Bridge]
	if !ok {
		link, err := l.conn.link(a.Bridge)
		switch {
		case err == nil:
			index = uint32(link.Index)
		case !errors.Is(err, unix.ENODEV):
			return indexedPrefix{}, fmt.Errorf("find bridge %s: %w", a.Bridge, err)
		}
		l.indexes[a.Bridge] = index
	}
	return indexedPrefix{index, a.Prefix}, nil
}

func (l *leasing) delete(gone []indexedPrefix) error {
	for chunk := range slices.Chunk(gone, leaseBatch) {
		l.batch.reset()
		for _, a := range chunk {
			l.batch.deleteAddress(a.prefix, a.index)
		}
		refused, err := l.conn.execute(&l.batch)
		for i, a := range chunk {
			if err := refused[i]; err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
				return fmt.Errorf("delete address %s: %w", a.prefix, err)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// settable are those that get a lifetime now; the others are refused, or stay
// as they are.
func (l *leasing) settable(wanted []LeasedAddress) []LeasedAddress {
	var set []LeasedAddress
	for _, a := range wanted {
		key, _ := l.key(a.BridgeAddress) // unwanted has looked at it
		found, there := l.there[key]
		switch {
		case key.index == 0:
			l.refused[a.BridgeAddress] = errors.New("there is no such bridge")
		case there && !found.leased():
			l.refused[a.BridgeAddress] = errors.New("it is there already, not from a lease: remove it")
		case a.Lifetime > 0:
			set = append(set, a)
		case !there:
			l.refused[a.BridgeAddress] = errTooLate
		}
	}
	return set
}

// add sets what can still be set, and takes back what came too late.
func (l *leasing) add(wanted []LeasedAddress) error {
	l.batch.reset()
	before := time.Duration(1<<63 - 1)
	var keys []indexedPrefix
	for _, a := range wanted {
		key, _ := l.key(a.BridgeAddress)
		l.batch.leaseAddress(a.Prefix, key.index, a.Lifetime)
		keys, before = append(keys, key), min(before, a.Before)
	}
	if l.clock() > before {
		for i, a := range wanted {
			if _, there := l.there[keys[i]]; there {
				l.late = true // it has what is left of its lifetime
			} else {
				l.refused[a.BridgeAddress] = errTooLate
			}
		}
		return nil
	}
	refused, err := l.conn.execute(&l.batch)
	if l.clock() > before {
		for _, a := range wanted {
			l.refused[a.BridgeAddress] = errTooLate
		}
		return l.delete(keys)
	}
	for i, a := range wanted {
		if refused[i] != nil {
			l.refused[a.BridgeAddress] = refused[i]
		}
	}
	return err
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
