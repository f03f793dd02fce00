package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/vishvananda/netlink"

	"frond/internal/netns"
)

// endOfNamespaces is how long the kernel may take for a lab's devices: about
// 6 ms for each of a segment.
const endOfNamespaces = 2 * time.Minute

func lastName(lab string) string { return lab + ".last" }

// deleteAll removes namespaces, and returns when the kernel has let go of what
// was in them: it holds its lock on all links of the machine meanwhile, so that
// whatever is built next would stand still. It takes namespaces down in the
// order of their end (cleanup_net in net/core/net_namespace.c), which shows by
// a veth pair: the end in the panel goes with that in a namespace that ends
// behind the others.
func deleteAll(ctx context.Context, lab string, namespaces []string) error {
	p, err := openPatch(lab)
	if errors.Is(err, fs.ErrNotExist) {
		return deleteNow(namespaces) // nobody to ask: Up has not come far
	}
	if err != nil {
		return err
	}
	defer p.close()
	if err := p.addLast(); err != nil {
		return fmt.Errorf("watch for the end of its namespaces: %w", err)
	}
	if err := deleteNow(append(namespaces, lastName(lab))); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, endOfNamespaces)
	defer cancel()
	return poll(ctx, func() bool {
		_, err := p.nl.LinkByName(lastPort)
		return err != nil
	}, "the kernel has not let go of its namespaces")
}

func deleteNow(namespaces []string) error {
	for _, n := range namespaces {
		if err := netns.Delete(n); err != nil {
			return err
		}
	}
	return nil
}

// lastPort is the panel's end of the pair that shows the end of namespaces.
const lastPort = "last"

func (p *patch) addLast() error {
	if err := netns.Create(lastName(p.lab)); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	ns, err := netns.Open(lastName(p.lab))
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = lastPort
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerNamespace = lastPort, netlink.NsFd(ns.Fd())
	err = p.nl.LinkAdd(pair)
	if errors.Is(err, fs.ErrExist) {
		return nil // of an end that was not waited for
	}
	return err
}
