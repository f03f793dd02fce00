package kernel

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"frond/internal/dataplane"
)

const (
	// guardBuffer is room for a whole transaction, octets.
	guardBuffer = 16 << 20
	// maxCounted bounds the ports that drops are counted for. The kernel makes
	// room for all at once, in each set.
	maxCounted = 1024
)

// guardFamilies are all tables of the guard.
func guardFamilies(g dataplane.Guard) []guardFamily {
	return []guardFamily{guardGuests(g.Strict, g.Broadcast), guardNode(g.Local)}
}

// sameRules tells whether two guards differ in the elements of sets alone.
func sameRules(a, b dataplane.Guard) bool {
	other := func(f guardFamily) bool { return f.serves(a) != f.serves(b) }
	return a.Local == b.Local && a.Strict == b.Strict && a.Broadcast == b.Broadcast && !slices.ContainsFunc(guardFamilies(a), other)
}

func (k *Kernel) openGuard() (*nftables.Conn, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithNetNSFd(k.ns.Fd()), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetWriteBuffer(guardBuffer), c.SetReadBuffer(guardBuffer))
	}))
	if err != nil {
		return nil, fmt.Errorf("open nf_tables: %w", err)
	}
	return conn, nil
}

// SetGuard makes the kernel's guard exactly this. Elements of sets are changed
// one by one; only where somebody has damaged the rules are they made anew.
// It tells whether anything had to be changed. A kernel without one family of
// tables gets the other; the error says which is missing.
func (k *Kernel) SetGuard(g dataplane.Guard) (bool, error) {
	conn, err := k.openGuard()
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.CloseLasting() }()
	g, err = k.withDevices(g)
	if err != nil {
		return false, err
	}
	changed := false
	var failed []error
	for _, f := range append(guardFamilies(g), formerGuard) {
		did, err := f.set(conn, g)
		changed = changed || did
		if err != nil {
			failed = append(failed, fmt.Errorf("guard: tables of family %s: %w", f.name(), err))
		}
	}
	return changed, errors.Join(failed...)
}

// formerGuard is a table that the guard once had, and that may be there still.
var formerGuard = guardFamily{family: nftables.TableFamilyBridge}

// withDevices leaves out the devices of a guard that are gone: the kernel takes
// no chains for them.
func (k *Kernel) withDevices(g dataplane.Guard) (dataplane.Guard, error) {
	if len(g.GuestPorts)+len(g.Bridges) == 0 {
		return g, nil
	}
	var links map[uint32]overlayLink
	var err error
	k.with(func(c *conn) { links, err = readOverlayLinks(c) })
	if err != nil {
		return g, fmt.Errorf("guard: %w", err)
	}
	gone := func(d dataplane.GuardedDevice) bool { return links[uint32(d.Index)].Name != d.Name }
	g.GuestPorts = slices.DeleteFunc(slices.Clone(g.GuestPorts), gone)
	g.Bridges = slices.DeleteFunc(slices.Clone(g.Bridges), gone)
	return g, nil
}

// serves tells whether a guard needs the family's table: without segments,
// there are no guests.
func (f guardFamily) serves(g dataplane.Guard) bool {
	switch f.family {
	case nftables.TableFamilyNetdev:
		return len(g.Bridges) > 0
	case nftables.TableFamilyINet:
		return !g.IsZero()
	}
	return false
}

func (f guardFamily) name() string {
	switch f.family {
	case nftables.TableFamilyNetdev:
		return "netdev"
	case nftables.TableFamilyINet:
		return "inet"
	}
	return "bridge"
}

func (f guardFamily) table() *nftables.Table {
	return &nftables.Table{Family: f.family, Name: guardTable}
}

// set brings one table into line.
func (f guardFamily) set(conn *nftables.Conn, g dataplane.Guard) (changed bool, err error) {
	there, err := f.exists(conn)
	if err != nil {
		if !f.serves(g) && isUnsupported(err) {
			return false, nil
		}
		return false, err
	}
	switch {
	case !f.serves(g) && !there:
		return false, nil
	case !f.serves(g):
		conn.DelTable(f.table())
		return true, conn.Flush()
	}
	if !there {
		return true, f.make(conn, g)
	}
	held, whole, err := f.look(conn, g)
	if err != nil {
		return false, err
	} else if !whole {
		return true, f.make(conn, g)
	}
	changed = f.rehook(conn, held, f.hooked(g))
	var changes []guardChange
	for _, s := range f.sets {
		c, err := f.lookAt(conn, s, g)
		if err != nil {
			return false, err
		}
		changes = append(changes, c)
		changed = changed || !c.isNone()
	}
	return changed, carryOut(conn, changes)
}

// UpdateGuard changes what differs between two guards without a look at what
// there is, which is many times as quick. Where the kernel does not hold the
// first, it may fail.
func (k *Kernel) UpdateGuard(from, to dataplane.Guard) error {
	if !sameRules(from, to) {
		return fmt.Errorf("guard: %w: other rules are needed", errors.ErrUnsupported)
	}
	conn, err := k.openGuard()
	if err != nil {
		return err
	}
	defer func() { _ = conn.CloseLasting() }()
	for _, f := range guardFamilies(to) {
		if !f.serves(to) {
			continue
		}
		f.rehook(conn, f.hooked(from), f.hooked(to))
		var changes []guardChange
		for _, s := range f.sets {
			c, err := f.change(s, s.wanted(from), s.wanted(to))
			if err != nil {
				return err
			}
			changes = append(changes, c)
		}
		if err := carryOut(conn, changes); err != nil {
			return fmt.Errorf("guard: tables of family %s: %w", f.name(), err)
		}
	}
	return nil
}

func isUnsupported(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EAFNOSUPPORT)
}

func (f guardFamily) exists(conn *nftables.Conn) (bool, error) {
	tables, err := conn.ListTablesOfFamily(f.family)
	if err != nil {
		return false, fmt.Errorf("list tables: %w", err)
	}
	return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == guardTable }), nil
}

// make replaces the table by a new one.
func (f guardFamily) make(conn *nftables.Conn, g dataplane.Guard) error {
	table := conn.AddTable(f.table()) // so that there is one to delete
	conn.DelTable(table)
	table = conn.AddTable(f.table())
	ids := make(map[string]uint32)
	for _, s := range f.sets {
		set, err := s.in(table)
		if err != nil {
			return err
		}
		if err := conn.AddSet(set, nil); err != nil {
			return fmt.Errorf("encode set %s: %w", s.name, err)
		}
		ids[s.name] = set.ID
		if err := inChunks(without(s.wanted(g), nil), set, conn.SetAddElements); err != nil {
			return err
		}
	}
	for _, rule := range f.drops {
		set := &nftables.Set{Table: table, Name: dropSet(rule), KeyType: nftables.TypeIFName, Dynamic: true, Counter: true, Size: maxCounted, KeyByteOrder: binaryutil.NativeEndian}
		if err := conn.AddSet(set, nil); err != nil {
			return fmt.Errorf("encode set %s: %w", set.Name, err)
		}
		ids[set.Name] = set.ID
	}
	for _, name := range f.meters {
		set := &nftables.Set{Table: table, Name: name, KeyType: nftables.TypeIFName, Dynamic: true, Size: maxCounted, KeyByteOrder: binaryutil.NativeEndian}
		if err := conn.AddSet(set, nil); err != nil {
			return fmt.Errorf("encode set %s: %w", set.Name, err)
		}
		ids[set.Name] = set.ID
	}
	for _, c := range f.wanted(g) {
		c.add(conn, table, ids)
	}
	return conn.Flush()
}

// in is the set in the kernel's terms.
func (s guardSet) in(table *nftables.Table) (*nftables.Set, error) {
	set := &nftables.Set{Table: table, Name: s.name, KeyType: s.types[0], Interval: s.interval, KeyByteOrder: byteOrder(s.types)}
	if len(s.types) > 1 {
		var err error
		if set.KeyType, err = nftables.ConcatSetType(s.types...); err != nil {
			return nil, fmt.Errorf("set %s: %w", s.name, err)
		}
		set.Concatenation = true
	}
	return set, nil
}

// byteOrder is how nft(8) is to show keys: names of interfaces would be
// reversed otherwise.
func byteOrder(types []nftables.SetDatatype) binaryutil.ByteOrder {
	if len(types) == 1 && types[0] == nftables.TypeIFName {
		return binaryutil.NativeEndian
	}
	return nil
}

// withIDs names sets by their numbers in the transaction that makes them.
func withIDs(rule []expr.Any, ids map[string]uint32) []expr.Any {
	own := make([]expr.Any, len(rule))
	for i, e := range rule {
		switch e := e.(type) {
		case *expr.Lookup:
			named := *e
			named.SetID, own[i] = ids[e.SetName], &named
		case *expr.Dynset:
			named := *e
			named.SetID, own[i] = ids[e.SetName], &named
		default:
			own[i] = e
		}
	}
	return own
}

// GuardDrops returns what the guard has dropped since its rules were made,
// sorted by rule and port.
func (k *Kernel) GuardDrops() ([]dataplane.GuardDrop, error) {
	conn, err := k.openGuard()
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.CloseLasting() }()
	counts := make(map[[2]string]uint64)
	for _, f := range guardFamilies(dataplane.Guard{}) {
		there, err := f.exists(conn)
		if err != nil || !there {
			continue // SetGuard says so
		}
		for _, rule := range f.drops {
			elements, err := conn.GetSetElements(&nftables.Set{Table: f.table(), Name: dropSet(rule), KeyType: nftables.TypeIFName})
			if err != nil {
				return nil, fmt.Errorf("read what the guard has dropped: %w", err)
			}
			for _, e := range elements {
				if e.Counter != nil {
					counts[[2]string{rule, strings.TrimRight(string(e.Key), "\x00")}] += e.Counter.Packets
				}
			}
		}
	}
	drops := make([]dataplane.GuardDrop, 0, len(counts))
	for key, packets := range counts {
		drops = append(drops, dataplane.GuardDrop{Rule: key[0], Port: key[1], Packets: packets})
	}
	slices.SortFunc(drops, func(a, b dataplane.GuardDrop) int {
		return cmp.Or(strings.Compare(a.Rule, b.Rule), strings.Compare(a.Port, b.Port))
	})
	return drops, nil
}
