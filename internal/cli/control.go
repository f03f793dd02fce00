package cli

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"frond/internal/api"
)

func reloadCommand() *cobra.Command {
	return controlCommand("reload", "Make the agent read its document again",
		"Make the agent read its document again and apply what differs. A document that\n"+
			"is not valid changes nothing: what is wrong with it is printed, the exit code is 1.",
		(*api.Client).Reload, "the document is in force")
}

func downCommand() *cobra.Command {
	return controlCommand("down", "Take the node out of the fabric: withdraw all that is frond's and stop",
		"Take the node out of the fabric: peers forget its routes, everything that frond\n"+
			"put into the kernel is removed and nothing else, and the agent stops.",
		(*api.Client).Down, "the node is out of the fabric, its agent stops")
}

// controlCommand has an agent do something, and says that it has.
func controlCommand(verb, short, long string, do func(*api.Client, context.Context) error, done string) *cobra.Command {
	var to target
	cmd := &cobra.Command{
		Use:               verb,
		Short:             short,
		Long:              long,
		GroupID:           groupRun,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := to.client()
			if err != nil {
				return err
			}
			if err := do(client, cmd.Context()); err != nil {
				return fmt.Errorf("%s: %w", verb, err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), done)
			return err
		},
	}
	to.flags(cmd)
	return cmd
}
