package kernel

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"frond/internal/dataplane"

	"golang.org/x/sys/unix"
)

// dumper gathers the kernel's state over one connection.
type dumper struct {
	conn  *conn
	links *linkTable
	state dataplane.State
}

// Dump returns everything in the kernel that is recognisably frond's, and
// every link.
func (k *Kernel) Dump(ctx context.Context) (dataplane.State, error) {
	var state dataplane.State
	var err error
	k.with(func(c *conn) {
		d := &dumper{conn: c}
		err = d.all(ctx)
		state = d.state
	})
	state.UnmarkedAddresses = k.unmarked
	return state, err
}

func (d *dumper) all(ctx context.Context) error {
	d.state.Addresses = make(map[netip.Prefix]struct{})
	d.state.ForeignAddresses = make(map[netip.Prefix]struct{})
	d.state.PortAddresses = make(map[dataplane.PortAddress]bool)
	d.state.Routes = make(map[netip.Prefix]dataplane.InstalledRoute)
	var err error
	if d.links, err = readLinks(d.conn); err != nil {
		return err
	}
	d.state.Links = d.links.byName()
	tables := []struct {
		name string
		read func() error
	}{
		{"nexthop objects", d.nextHops},
		{"IPv4 routes", func() error { return d.routes(unix.AF_INET) }},
		{"IPv6 routes", func() error { return d.routes(unix.AF_INET6) }},
		{"IPv4 addresses", func() error { return d.addresses(unix.AF_INET) }},
		{"IPv6 addresses", func() error { return d.addresses(unix.AF_INET6) }},
	}
	for _, table := range tables {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := table.read(); err != nil && !absent(err) {
			return fmt.Errorf("read %s: %w", table.name, err)
		}
	}
	return nil
}

// absent tells whether a table does not exist: a kernel without IPv6 has
// none of its tables, and the main table comes with its first route.
func absent(err error) bool {
	return errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT)
}

// name returns a link's name by its index, empty if it is gone meanwhile.
func (d *dumper) name(index uint32) string { return d.links.links[index].Name }
