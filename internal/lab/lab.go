package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"frond/internal/fabric"
	"frond/internal/netns"
)

// Lab is a fabric that runs on this machine.
type Lab struct {
	Name     string
	Topology Topology
	// Binary is the program that nodes run, as BINARY agent …. Up starts none
	// where it is empty: then something else is to run on the nodes.
	Binary string
	// Taps has Up make ports of macvtap devices instead of macvlan ones, which
	// forward just the same: FRR 8.4's zebra ends by a segmentation fault when
	// carrier comes back to a macvlan device over one in another namespace
	// (zebra_vxlan_macvlan_up).
	Taps bool
}

// Progress is told each step of something that takes a while: done of total
// parts of it.
type Progress func(step string, done, total int)

// Up makes a lab and starts its agents; it does not wait for them to agree.
// Either all of it is there afterwards, or nothing.
func Up(ctx context.Context, l Lab, document Source, progress Progress) (_ *Lab, err error) {
	if err := l.checkNew(document); err != nil {
		return nil, err
	}
	if err := l.writeFiles(document); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_, downErr := Down(context.WithoutCancel(ctx), l.Name)
			err = errors.Join(err, downErr)
		}
	}()
	if err := l.makeNodes(ctx, progress); err != nil {
		return nil, err
	}
	if err := l.makeCables(ctx, progress); err != nil {
		return nil, err
	}
	if l.Binary == "" {
		return &l, nil
	}
	for i, n := range l.Topology.Nodes {
		progress("starting agents", i, len(l.Topology.Nodes))
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := l.startAgent(n.Name); err != nil {
			return nil, err
		}
	}
	progress("starting agents", len(l.Topology.Nodes), len(l.Topology.Nodes))
	return &l, nil
}

// Open finds a lab that Up made; binary is what nodes that are started run.
func Open(name, binary string) (*Lab, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	l := &Lab{Name: name, Binary: binary}
	err := l.load()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no lab %q: \"frond lab up --name %s\" makes it", name, name)
	case err != nil:
		return nil, fmt.Errorf("open lab %s: %w", name, err)
	}
	return l, nil
}

// Fabric is the lab's document as it is now.
func (l *Lab) Fabric() (*fabric.Fabric, error) { return fabric.Load(l.Document()) }

// Namespace opens a node's namespace.
func (l *Lab) Namespace(node string) (*netns.NS, error) {
	if err := l.Topology.checkPlace(node); err != nil {
		return nil, err
	}
	return netns.Open(namespace(l.Name, node))
}

func (l *Lab) checkNew(document Source) error {
	if err := CheckName(l.Name); err != nil {
		return err
	}
	there, err := exists(l.Name)
	if err != nil {
		return err
	}
	if there {
		return fmt.Errorf("lab %q is there already, or was left by a crash: remove it with \"frond lab down --name %s\", or choose another --name", l.Name, l.Name)
	}
	f, err := fabric.Parse("fabric.yaml", document.Content, document.Dir)
	if err != nil {
		return err
	}
	for _, n := range l.Topology.Nodes {
		if len(n.Name) > longestNode {
			return inputf("node name %s: a lab takes names of at most %d characters", n.Name, longestNode)
		}
		if n.Name != filepath.Base(n.Name) {
			return inputf("node name %q cannot be the name of a directory", n.Name)
		}
	}
	return l.Topology.check(f)
}

func (l *Lab) makeNodes(ctx context.Context, progress Progress) error {
	if err := createPatch(l.Name); err != nil {
		return err
	}
	for i, n := range l.Topology.Nodes {
		progress("making nodes", i, len(l.Topology.Nodes))
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := makeNode(namespace(l.Name, n.Name)); err != nil {
			return err
		}
		if err := l.sow(n.Name, i+1); err != nil {
			return err
		}
	}
	progress("making nodes", len(l.Topology.Nodes), len(l.Topology.Nodes))
	if len(l.Topology.Uplinks) > 0 {
		return makeNode(namespace(l.Name, Internet))
	}
	return nil
}

// sow has a node spread flows in a way of its own, as machines do: namespaces
// of one kernel share the secret that hashes begin with, so that a spine would
// send all that a leaf has sent to it by one leg (Linux 6.11 can tell them apart).
func (l *Lab) sow(node string, seed int) error {
	ns, err := l.Namespace(node)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	err = ns.Do(func() error {
		return writeSysctls(map[string]string{"ipv4/fib_multipath_hash_seed": strconv.Itoa(seed)})
	})
	if err != nil {
		return fmt.Errorf("seed the hash of %s: %w", node, err)
	}
	return nil
}

// makeNode makes a machine as it is before anything of frond's runs: lo is up.
func makeNode(name string) error {
	if err := netns.Create(name); err != nil {
		return err
	}
	ns, err := netns.Open(name)
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	nl, err := handleIn(ns)
	if err != nil {
		return err
	}
	defer nl.Close()
	lo, err := nl.LinkByName("lo")
	if err == nil {
		err = nl.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set lo up in %s: %w", name, err)
	}
	return nil
}

func (l *Lab) makeCables(ctx context.Context, progress Progress) error {
	p, err := openPatch(l.Name)
	if err != nil {
		return err
	}
	defer p.close()
	p.taps = l.Taps
	cables := l.Topology.AllCables()
	for i, c := range cables {
		progress("laying cables", i, len(cables))
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.connect(c); err != nil {
			return err
		}
	}
	progress("laying cables", len(cables), len(cables))
	return l.makeInternet()
}

// Names are the labs that have files on this machine.
func Names() ([]string, error) {
	entries, err := os.ReadDir(Root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list labs: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
