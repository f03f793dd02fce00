package cli

import (
	"github.com/spf13/cobra"

	"frond/internal/bfd"
)

// bfdCommand is started by the agent, not by people.
func bfdCommand() *cobra.Command {
	var socket string
	cmd := &cobra.Command{
		Use:    "bfd",
		Short:  "Keep BFD sessions for an agent, across its restarts",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(cmd.ErrOrStderr(), "info")
			if err != nil {
				return err
			}
			return bfd.Serve(cmd.Context(), socket, log)
		},
	}
	cmd.Flags().StringVar(&socket, "socket", "/run/frond/bfd.sock", "where the agent finds this process")
	return cmd
}
