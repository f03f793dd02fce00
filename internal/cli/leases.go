package cli

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"frond/internal/api"
	"frond/internal/status"
)

func (p program) leasesCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:               "leases [SEGMENT]",
		Short:             "Show which guest has which address, and for how long",
		GroupID:           groupAsk,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			segment := strings.Join(args, "")
			ask := func(ctx context.Context, c *api.Client) (api.Leases, error) {
				leases, err := c.Leases(ctx, segment)
				return api.Leases{Leases: leases}, err
			}
			return question[api.Leases]{ask: ask, render: renderLeases}.answer(cmd, p, o)
		},
	}
	o.flags(cmd)
	cmd.AddCommand(releaseCommand())
	return cmd
}

func releaseCommand() *cobra.Command {
	var to target
	cmd := &cobra.Command{
		Use:   "release IP",
		Short: "End the lease of a guest that is gone for good",
		Long: "End the lease of a guest that is gone for good, or have an address given again\n" +
			"that was declined. Only the node that gave it can do so: it may have promised it\n" +
			"to the guest since. A guest that is still there loses its address.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := to.client()
			if err != nil {
				return err
			}
			if err := client.Release(cmd.Context(), args[0]); err != nil {
				return fmt.Errorf("release %s: %w", args[0], err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), args[0]+": its lease is ended")
			return err
		},
	}
	to.flags(cmd)
	return cmd
}

func renderLeases(answer api.Leases, v view) string {
	if len(answer.Leases) == 0 {
		return "no leases: no guest was given an address\n"
	}
	t := table{columns: []column{
		{name: "SEGMENT"}, {name: "ADDRESS"}, {name: "MAC"}, {name: "STATE"}, {name: "NODE"}, {name: "PORT"},
		{name: "FOR", right: true}, {name: "KEPT", right: true}, {name: "NAME"}, {name: "CLIENT"},
	}}
	for _, l := range answer.Leases {
		kept := (time.Duration(l.KeptSeconds) * time.Second).String()
		t.add(cell{text: l.Segment}, cell{text: l.Address}, cell{text: l.MAC}, stateOfLease(l), cell{text: l.Node}, cell{text: l.Port},
			cell{text: forLease(l, v)}, cell{text: kept}, cell{text: cmp.Or(l.Name, l.Hostname)}, cell{text: clientOfLease(l)})
	}
	return t.render(v)
}

func stateOfLease(l status.Lease) cell {
	if l.State == "declined" {
		return cell{l.State, red}
	}
	return cell{text: l.State}
}

func forLease(l status.Lease, v view) string {
	if l.Since == nil {
		return ""
	}
	return v.since(*l.Since)
}

// clientOfLease is the identifier, unless it says no more than the MAC does.
func clientOfLease(l status.Lease) string {
	if l.Client == "01"+strings.ReplaceAll(l.MAC, ":", "") {
		return ""
	}
	return l.Client
}
