package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"frond/internal/crowd"
	"frond/internal/fabric"
)

// labCrowdCommand is started by lab bench, not by people.
func labCrowdCommand() *cobra.Command {
	var document, socket string
	var size int
	cmd := &cobra.Command{
		Use:    "crowd",
		Short:  "Be many leafs of a spine in one process",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if size < 1 {
				return usageError{errors.New("--size: want at least 1")}
			}
			f, err := fabric.Load(document)
			if err != nil {
				return err
			}
			log, err := logger(cmd.ErrOrStderr(), "error")
			if err != nil {
				return err
			}
			binary, err := os.Executable()
			if err != nil {
				return fmt.Errorf("find this program: %w", err)
			}
			return crowd.Run(cmd.Context(), crowd.Config{
				Document: f, Size: size, Executable: binary, BFDSocket: socket,
				Tell: func(what string) { _ = printf(cmd, "%s\n", what) },
			}, log)
		},
	}
	cmd.Flags().StringVar(&document, "config", "", "the document that names the leafs")
	cmd.Flags().StringVar(&socket, "bfd-socket", "", "where the BFD process answers")
	cmd.Flags().IntVar(&size, "size", 0, "how many leafs: leafN at port ethN")
	return cmd
}
