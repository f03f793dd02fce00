package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"frond/internal/lab"
)

func labGuestCommand(name *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "guest",
		Short: "Add, move and remove guests of a segment",
		Long: "Add, move and remove guests: namespaces whose eth0 is cabled to a segment's bridge\n" +
			"on a node. \"frond lab exec g1 -- ...\" runs a command on one.",
		Example: "  frond lab guest add leaf1\n  frond lab guest move g1 leaf2 --announce\n  frond lab exec g1 -- ping 172.16.0.12",
	}
	cmd.AddCommand(labGuestAdd(name), labGuestMove(name), labGuestRemove(name))
	for _, verb := range cmd.Commands() {
		verb.RunE = labVerb(verb.RunE)
	}
	return cmd
}

func labGuestAdd(name *string) *cobra.Command {
	var segment string
	var dhcp bool
	cmd := &cobra.Command{
		Use:               "add NODE",
		Short:             "Add a guest on a node",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeNodes(name, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := openLab(*name)
			if err != nil {
				return err
			}
			g, err := l.NextGuest(segment, args[0])
			if err != nil {
				return err
			}
			g.DHCP = dhcp
			if err := l.AddGuest(cmd.Context(), g); err != nil {
				return err
			}
			if g, err = l.Guest(g.Name); err != nil {
				return err
			}
			return printf(cmd, "Guest %s is on %s, segment %s, with %s and %s.\n", g.Name, g.Node, g.Segment, g.MAC, g.Address)
		},
	}
	cmd.Flags().BoolVar(&dhcp, "dhcp", false, "it asks for its address by udhcpc, and is known as NAME.SEGMENT.LAB then")
	cmd.Flags().StringVar(&segment, "segment", "", "which segment (default: the document's first)")
	return cmd
}

func labGuestMove(name *string) *cobra.Command {
	var announce bool
	cmd := &cobra.Command{
		Use:   "move GUEST NODE",
		Short: "Plug a guest into another node",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withGuest(cmd, *name, args[0], func(ctx context.Context, l *lab.Lab, g lab.Guest) error {
				if err := l.MoveGuest(ctx, g.Name, args[1], announce); err != nil {
					return err
				}
				return printf(cmd, "Guest %s moved from %s to %s.\n", g.Name, g.Node, args[1])
			})
		},
	}
	cmd.Flags().BoolVar(&announce, "announce", false, "have the guest announce itself there by a gratuitous ARP")
	return cmd
}

func labGuestRemove(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "remove GUEST",
		Short: "Remove a guest",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return withGuest(cmd, *name, args[0], func(ctx context.Context, l *lab.Lab, g lab.Guest) error {
				if err := l.RemoveGuest(ctx, g.Name); err != nil {
					return err
				}
				return printf(cmd, "Guest %s is removed.\n", g.Name)
			})
		},
	}
}

func withGuest(cmd *cobra.Command, name, guest string, do func(context.Context, *lab.Lab, lab.Guest) error) error {
	l, err := openLab(name)
	if err != nil {
		return err
	}
	g, err := l.Guest(guest)
	if err != nil {
		return err
	}
	return do(cmd.Context(), l, g)
}

// addGuests puts the guests that were asked for on the segments that are up.
func addGuests(cmd *cobra.Command, l *lab.Lab, n int, dhcp bool, p *progress) error {
	f, err := l.Fabric()
	if err != nil {
		return err
	}
	guests, err := lab.Guests(f, n)
	if err != nil {
		return err
	}
	for i, g := range guests {
		p.step("adding guests", i, n)
		g.DHCP = dhcp
		if err := l.AddGuest(cmd.Context(), g); err != nil {
			return err
		}
	}
	if n > 0 {
		p.step("adding guests", n, n)
	}
	return nil
}

// guestsText lists guests by node.
func guestsText(guests []lab.Guest) string {
	t := table{columns: []column{{name: "GUEST"}, {name: "NODE"}, {name: "SEGMENT"}, {name: "MAC"}, {name: "ADDRESS"}}}
	for _, g := range guests {
		t.add(cell{text: g.Name}, cell{text: g.Node}, cell{text: g.Segment}, cell{text: g.MAC}, cell{text: g.Address.String()})
	}
	return fmt.Sprintf("\n%s", t.render(view{}))
}
