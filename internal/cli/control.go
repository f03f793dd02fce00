package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

func reloadCommand() *cobra.Command {
	var to target
	cmd := &cobra.Command{
		Use:   "reload",
		Short: "Make the agent read its document again",
		Long: "Make the agent read its document again and apply what differs. A document that\n" +
			"is not valid changes nothing: what is wrong with it is printed, the exit code is 1.",
		GroupID:           groupRun,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := to.client()
			if err != nil {
				return err
			}
			if err := client.Reload(cmd.Context()); err != nil {
				return fmt.Errorf("reload: %w", err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "the document is in force")
			return err
		},
	}
	to.flags(cmd)
	return cmd
}

func downCommand() *cobra.Command {
	var to target
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Take the node out of the fabric: withdraw all that is frond's and stop",
		Long: "Take the node out of the fabric: peers forget its routes, everything that frond\n" +
			"put into the kernel is removed and nothing else, and the agent stops.",
		GroupID:           groupRun,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := to.client()
			if err != nil {
				return err
			}
			if err := client.Down(cmd.Context()); err != nil {
				return fmt.Errorf("down: %w", err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "the node is out of the fabric, its agent stops")
			return err
		},
	}
	to.flags(cmd)
	return cmd
}
