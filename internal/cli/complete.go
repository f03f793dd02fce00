package cli

import (
	"context"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"frond/internal/api"
	"frond/internal/fabric"
)

// completionPatience is how long a shell waits for the agent when somebody
// presses the tabulator key.
const completionPatience = 500 * time.Millisecond

// completePrefix offers the prefixes that the agent knows.
func completePrefix(socket *string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
		defer cancel()
		routes, err := api.NewClient(*socket).Routes(ctx, netip.Prefix{})
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		offers := make([]cobra.Completion, len(routes))
		for i, r := range routes {
			offers[i] = cobra.CompletionWithDesc(r.Prefix, nextHops(r))
		}
		return offers, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeFrozen offers the MACs that are frozen.
func completeFrozen(socket *string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
		defer cancel()
		macs, err := api.NewClient(*socket).MACs(ctx, "")
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var offers []cobra.Completion
		for _, m := range macs {
			if m.Frozen != nil {
				offers = append(offers, cobra.CompletionWithDesc(m.MAC, m.Segment+", "+whereMAC(m)))
			}
		}
		return offers, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeHost offers the nodes that the agent knows.
func completeHost(socket *string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completionPatience)
		defer cancel()
		hosts, err := api.NewClient(*socket).Nodes(ctx)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		offers := make([]cobra.Completion, len(hosts))
		for i, h := range hosts {
			offers[i] = cobra.CompletionWithDesc(h.Name, h.Role+" "+h.Loopback)
		}
		return offers, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeNode offers the nodes that a document describes.
func completeNode(document *string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		f, err := fabric.Load(*document)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		offers := make([]cobra.Completion, len(f.Nodes))
		for i, n := range f.Nodes {
			offers[i] = cobra.CompletionWithDesc(n.Name, string(n.Role)+" "+n.Loopback.String())
		}
		return offers, cobra.ShellCompDirectiveNoFileComp
	}
}
