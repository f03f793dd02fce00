package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"frond/internal/fabric"
	"frond/internal/gateway"
)

// Drain has elected gateways leave a node and not come back until Undrain, or
// takes that back. It returns when the store knows, or this node has noted it;
// the gateways follow.
func (n *Node) Drain(ctx context.Context, node string, drained bool) error {
	var elections map[fabric.Election]bool
	var err error
	if !n.ask(ctx, func(l *loop) { elections, err = l.mayDrain(node) }) {
		return errStopping(ctx)
	}
	if err != nil {
		return err
	}
	if elections[fabric.ByLXD] {
		if err := n.noteDrained(drained); err != nil {
			return err
		}
		n.quorum.Drain(drained)
	}
	if elections[fabric.ByStore] {
		if _, err := n.leases.Commit(ctx, gateway.Drain(node, drained)); err != nil {
			return fmt.Errorf("tell the store: %w", err)
		}
	}
	return nil
}

// mayDrain tells which elections have to know.
func (l *loop) mayDrain(node string) (map[fabric.Election]bool, error) {
	elections := map[fabric.Election]bool{
		fabric.ByStore: len(l.plan.Elected(fabric.ByStore)) > 0,
		fabric.ByLXD:   len(l.plan.Elected(fabric.ByLXD)) > 0,
	}
	if !elections[fabric.ByStore] && !elections[fabric.ByLXD] {
		return nil, errors.New("no gateway of this fabric is elected: there is nothing to be moved; those of mode anycast are on every node")
	}
	var names []string
	for _, other := range l.plan.Nodes {
		switch {
		case other.Name != node:
			names = append(names, other.Name)
		case elections[fabric.ByLXD] && node != l.plan.Node.Name:
			return nil, fmt.Errorf("gateways of this fabric are elected by LXD, where nodes have no store to tell each other: ask the agent on %s itself", node)
		default:
			return elections, nil
		}
	}
	return nil, fmt.Errorf("no node %q: there are %s", node, strings.Join(names, ", "))
}

// drainedFile is there while this node is drained and no store knows it.
func (n *Node) drainedFile() string { return filepath.Join(n.cfg.StateDir, "drained") }

func (n *Node) noteDrained(drained bool) error {
	var err error
	if drained {
		err = os.WriteFile(n.drainedFile(), nil, 0o644)
	} else if err = os.Remove(n.drainedFile()); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("note it for the next start: %w", err)
	}
	return nil
}

func (n *Node) wasDrained() bool {
	_, err := os.Stat(n.drainedFile())
	return err == nil
}
