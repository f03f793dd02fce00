package cli

import (
	"github.com/spf13/cobra"

	"frond/internal/lab"
)

const labEndsHelp = `

A and B are nodes; where several cables are between them, all are meant, or
with NODE:PORT one. Without B, all cables of A are.`

func labCutCommand(name *string) *cobra.Command {
	return labCableCommand(name, "cut", "Cut a cable: both ends lose carrier", "is cut", (*lab.Lab).Cut)
}

func labMendCommand(name *string) *cobra.Command {
	return labCableCommand(name, "mend", "Mend a cable that is cut or muted", "is good", (*lab.Lab).Mend)
}

func labUnmuteCommand(name *string) *cobra.Command {
	return labCableCommand(name, "unmute", "Let packets through a muted cable again", "lets packets through", (*lab.Lab).Unmute)
}

func labMuteCommand(name *string) *cobra.Command {
	var oneWay bool
	cmd := labCableCommand(name, "mute", "Let packets vanish in a cable; carrier stays", "is muted",
		func(l *lab.Lab, a, b lab.End) error { return l.Mute(a, b, oneWay) })
	cmd.Flags().BoolVar(&oneWay, "one-way", false, "only packets from A to B vanish")
	return cmd
}

func labIsolateCommand(name *string) *cobra.Command {
	cmd := labCableCommand(name, "isolate", "Let packets vanish in all cables of a node; carrier stays", "is muted",
		func(l *lab.Lab, a, _ lab.End) error { return l.Mute(a, lab.End{}, false) })
	cmd.Use, cmd.Args, cmd.ValidArgsFunction = "isolate NODE", cobra.ExactArgs(1), completeNodes(name, 1)
	cmd.Long = cmd.Short + ".\n\nmend NODE undoes it."
	return cmd
}

func labCableCommand(name *string, verb, short, done string, do func(l *lab.Lab, a, b lab.End) error) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " A[:PORT] [B[:PORT]]",
		Short:             short,
		Long:              short + "." + labEndsHelp,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: completeNodes(name, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, a, b, err := labAndEnds(*name, args)
			if err != nil {
				return err
			}
			if err := do(l, a, b); err != nil {
				return err
			}
			cables, err := l.Topology.Between(a, b)
			if err != nil {
				return err
			}
			for _, c := range cables {
				if err := printf(cmd, "Cable %s %s.\n", c, done); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func labRecableCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "recable A:PORT B:PORT",
		Short: "Cable two ports to each other, whatever they were cabled to",
		Long: `Cable two ports to each other, whatever they were cabled to.

The cable at A:PORT stays plugged in there, and its other end moves to B:PORT.
The port that it left is gone, and so are a cable that was plugged into B:PORT
and the port at its other end.`,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeNodes(name, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, a, b, err := labAndEnds(*name, args)
			if err != nil {
				return err
			}
			if err := l.Recable(a, b); err != nil {
				return err
			}
			return printf(cmd, "%s is cabled to %s.\n", a, b)
		},
	}
}

func labAndEnds(name string, args []string) (l *lab.Lab, a, b lab.End, err error) {
	if a, err = lab.ParseEnd(args[0]); err == nil && len(args) > 1 {
		b, err = lab.ParseEnd(args[1])
	}
	if err != nil {
		return nil, a, b, err
	}
	l, err = openLab(name)
	return l, a, b, err
}
