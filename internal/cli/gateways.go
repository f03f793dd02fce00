package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"frond/internal/api"
	"frond/internal/status"
)

func (p program) gatewaysCommand() *cobra.Command {
	ask := func(ctx context.Context, c *api.Client) (api.Gateways, error) {
		gateways, err := c.Gateways(ctx)
		return api.Gateways{Gateways: gateways}, err
	}
	return question[api.Gateways]{ask: ask, render: renderGateways}.command(p, "gateways", "Show which node has the gateway of each segment, and why", "")
}

func renderGateways(answer api.Gateways, v view) string {
	if len(answer.Gateways) == 0 {
		return "no gateways: no segment of the document has one\n"
	}
	t := table{columns: []column{
		{name: "SEGMENT"}, {name: "MODE"}, {name: "ADDRESSES"}, {name: "HOLDER"}, {name: "FOR", right: true},
		{name: "LEASE", right: true}, {name: "TERM", right: true}, {name: "HASH", right: true}, {name: "WEIGHT", right: true}, {name: "WHY"},
	}}
	for _, g := range answer.Gateways {
		row := []cell{{text: g.Segment}, {text: g.Mode}, {text: strings.Join(g.Addresses, " ")}, holder(g)}
		if g.Holder != "" {
			row = append(row, cell{text: v.since(sinceOf(g))},
				cell{text: strconv.FormatFloat(g.LeftSeconds, 'f', 1, 64) + "s"}, cell{text: known(g.Term != 0, strconv.FormatUint(g.Term, 10))},
				cell{text: known(g.Weight != 0, strconv.FormatFloat(g.Score, 'f', 2, 64))},
				cell{text: known(g.Weight != 0, strconv.FormatFloat(g.Weight, 'f', 0, 64))})
		} else {
			row = append(row, cell{}, cell{}, cell{}, cell{}, cell{})
		}
		t.add(append(row, cell{text: whyHolder(g)})...)
	}
	return t.render(v)
}

// known is a text, or nothing where it is not known: what LXD decides about has
// no weight, and another node's term is its own business.
func known(is bool, text string) string {
	if is {
		return text
	}
	return ""
}

func sinceOf(g status.Gateway) time.Time {
	if g.Since == nil {
		return time.Time{}
	}
	return *g.Since
}

func holder(g status.Gateway) cell {
	switch {
	case g.Mode == "anycast":
		return cell{text: "everywhere"}
	case g.Holder == "":
		return cell{"nobody", red}
	}
	return cell{text: g.Holder}
}

func whyHolder(g status.Gateway) string {
	if g.Next != "" && g.Next != g.Holder {
		return g.Why + "; moves to " + g.Next
	}
	return g.Why
}

func drainCommand() *cobra.Command {
	return drainingCommand("drain", true, "Have the elected gateways of a node move away and not come back",
		"Have the elected gateways of a node move to other nodes, one after the other and\n"+
			"without a pause, and none come back until \"frond undrain\". The store remembers\n"+
			"it over restarts. Anycast gateways are on every node and need no drain.",
		"its elected gateways move to other nodes")
}

func undrainCommand() *cobra.Command {
	return drainingCommand("undrain", false, "Have elected gateways come to a node again",
		"Take a drain back: elected gateways come to the node again as they fall to it.",
		"elected gateways may come to it again")
}

func drainingCommand(verb string, drained bool, short, long, done string) *cobra.Command {
	var to target
	cmd := &cobra.Command{
		Use:               verb + " NODE",
		Short:             short,
		Long:              long,
		GroupID:           groupRun,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeHost(&to.socket),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := to.client()
			if err != nil {
				return err
			}
			if err := client.Drain(cmd.Context(), args[0], drained); err != nil {
				return fmt.Errorf("%s: %w", verb, err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), args[0]+": "+done)
			return err
		},
	}
	to.flags(cmd)
	return cmd
}
