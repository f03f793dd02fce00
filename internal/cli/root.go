package cli

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"frond/internal/node"
)

// program is what the verbs take from outside, so that tests can give it.
type program struct {
	now      func() time.Time
	newAgent func(node.Config, *slog.Logger) (agent, error)
}

func newRoot() *cobra.Command {
	return program{now: time.Now, newAgent: newAgent}.root()
}

func (p program) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "frond",
		Short:         "Make Linux machines one routed fabric",
		Long:          "frond makes a rack of Linux machines one routed fabric: BGP over unnumbered\ncables down to every machine. One binary, one document, the same on every node.",
		Version:       version().String(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetVersionTemplate("{{.Version}}\n")
	root.AddGroup(
		&cobra.Group{ID: groupAsk, Title: "Ask a node:"},
		&cobra.Group{ID: groupRun, Title: "Run a node:"},
		&cobra.Group{ID: groupTry, Title: "Write and try:"},
	)
	root.SetHelpCommandGroupID(groupTry)
	root.SetCompletionCommandGroupID(groupTry)
	root.AddCommand(
		p.statusCommand(), p.peersCommand(), p.routesCommand(), p.segmentsCommand(), p.macsCommand(), p.evpnCommand(), p.guardCommand(), p.gatewaysCommand(), p.leasesCommand(), p.lxdCommand(), p.traceCommand(),
		p.agentCommand(), reloadCommand(), drainCommand(), undrainCommand(), downCommand(), bfdCommand(), storeMemberCommand(),
		p.storeCommand(), p.pkiCommand(),
		labCommand(), validateCommand(), schemaCommand(), versionCommand(),
	)
	return root
}

// The groups that help lists verbs in.
const (
	groupAsk = "ask"
	groupRun = "run"
	groupTry = "try"
)

// strict makes every mistake on the command line a usageError of one line,
// through the whole tree.
func strict(cmd *cobra.Command) {
	cmd.SetFlagErrorFunc(usage)
	switch {
	case cmd.HasSubCommands() && !cmd.Runnable():
		cmd.Args = cobra.ArbitraryArgs
		cmd.RunE = unknownVerb
		cmd.SuggestionsMinimumDistance = 2 // typing mistakes
		cmd.DisableFlagsInUseLine = true
	case cmd.Args != nil:
		check := cmd.Args
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			return usage(cmd, check(cmd, args))
		}
	}
	for _, sub := range cmd.Commands() {
		strict(sub)
	}
}

func usage(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
}

func unknownVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	err := fmt.Errorf("%s has no verb %q", cmd.CommandPath(), args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		err = fmt.Errorf("%w, did you mean %s?", err, strings.Join(near, " or "))
	}
	return usage(cmd, err)
}
