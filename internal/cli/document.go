package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"frond/internal/fabric"
)

func validateCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "validate FILE",
		Short:   "Check a document without using it",
		Long:    "Check a document without using it. The first thing that is wrong is printed as\nfile:line:column, the field and what would be right; the exit code is then 2.",
		GroupID: groupTry,
		Args:    cobra.ExactArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return []cobra.Completion{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := fabric.Load(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is valid: %s, %s\n",
				args[0], count(len(f.Nodes), "node"), count(len(f.Segments), "segment"))
			return err
		},
	}
}

func schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "schema",
		Short:             "Print the document's JSON Schema, for editors",
		GroupID:           groupTry,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(fabric.Schema())
			return err
		},
	}
}
