package cli

import (
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"frond/internal/store"
)

// storeMemberCommand is started by the agent, not by people.
func storeMemberCommand() *cobra.Command {
	return &cobra.Command{
		Use:    store.Verb,
		Short:  "Be a member of the store, for an agent",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := logger(cmd.ErrOrStderr(), "info")
			if err != nil {
				return err
			}
			// An agent that is gone no longer reads the log: that must not end
			// this process before it has handed its leadership over.
			signal.Ignore(syscall.SIGPIPE)
			return store.ServeMember(cmd.Context(), cmd.InOrStdin(), cmd.OutOrStdout(), log)
		},
	}
}
