package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"frond/internal/lab"
)

func labCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "lab",
		Short:   "Run a whole fabric on this machine",
		GroupID: groupTry,
		Long: `Run a whole fabric on this machine, to try it and to break it.

Every node is a network namespace with a real agent in it, every cable a veth
pair. Node leaf1 of lab frond is the namespace frond-leaf1, so that
"ip netns exec frond-leaf1 ..." looks inside as well as "frond lab exec leaf1".
A port is there as long as a cable is plugged into it. The agents' logs and
sockets are under ` + lab.Root + `/NAME/NODE.`,
		Example: `  frond lab up --spines 2 --leafs 3
  frond lab check
  frond lab cut leaf1 spine1
  frond lab status
  frond lab mend leaf1 spine1
  frond lab exec leaf1 -- frond routes
  frond lab down`,
	}
	name := cmd.PersistentFlags().String("name", "frond", "name of the lab")
	cmd.AddCommand(
		labUpCommand(name), labDownCommand(name), labStatusCommand(name), labCheckCommand(name), labTraceCommand(name), labExecCommand(name),
		labCutCommand(name), labMendCommand(name), labMuteCommand(name), labUnmuteCommand(name), labRecableCommand(name),
		labKillCommand(name), labStopCommand(name), labStartCommand(name), labFreezeCommand(name), labThawCommand(name), labIsolateCommand(name),
		labGuestCommand(name), labLXDCommand(name), labBenchCommand(), labCrowdCommand(),
	)
	for _, verb := range cmd.Commands() {
		if verb.HasSubCommands() {
			continue
		}
		verb.RunE = labVerb(verb.RunE)
	}
	return cmd
}

// labVerb makes what is wrong with the names of nodes, ports and shapes an
// error of the command line.
func labVerb(run func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		var input lab.InputError
		if errors.As(err, &input) {
			return usageError{err}
		}
		return err
	}
}

// openLab opens the lab that a verb is for; its agents are this very program.
func openLab(name string) (*lab.Lab, error) {
	binary, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return lab.Open(name, binary)
}

func labDownCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Remove the lab, or what a crash left of it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			removed, err := lab.Down(cmd.Context(), *name)
			if err != nil {
				return err
			}
			if removed == (lab.Removed{}) {
				return printf(cmd, "Nothing was there of lab %s.\n", *name)
			}
			return printf(cmd, "Lab %s is removed: %s, %s.\n", *name,
				count(removed.Namespaces, "namespace"), processes(removed.Processes))
		},
	}
}

func labExecCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:               "exec HOST -- COMMAND...",
		Short:             "Run a command on a node or a guest",
		Long:              "Run a command on a node. frond's own verbs ask the node's agent there.",
		Example:           "  frond lab exec leaf1 -- ip nexthop\n  frond lab exec leaf1 -- frond status",
		Args:              cobra.MinimumNArgs(2),
		ValidArgsFunction: completeNodes(name, 1),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := openLab(*name)
			if err != nil {
				return err
			}
			ns, err := l.Host(args[0])
			if err != nil {
				return err
			}
			path, err := labProgram(l, args[1])
			if err != nil {
				return err
			}
			return ns.Exec(path, args[1:], append(os.Environ(), socketVariable+"="+l.Socket(args[0]), "LXD_DIR="+l.LXDDir(args[0])))
		},
	}
}

// labProgram finds a command; frond is this one, installed or not.
func labProgram(l *lab.Lab, name string) (string, error) {
	if name == "frond" {
		return l.Binary, nil
	}
	return exec.LookPath(name)
}

// stopTime is how long an agent may take for an orderly end.
const stopTime = 30 * time.Second

func labKillCommand(name *string) *cobra.Command {
	return labNodeCommand(name, "kill", "Kill a node's agent (SIGKILL); its kernel keeps forwarding", "is killed", (*lab.Lab).Kill)
}

func labStopCommand(name *string) *cobra.Command {
	return labNodeCommand(name, "stop", "Stop a node's agent in order (SIGTERM)", "is stopped", (*lab.Lab).Stop)
}

func labStartCommand(name *string) *cobra.Command {
	return labNodeCommand(name, "start", "Start a node's agent", "is started",
		func(l *lab.Lab, _ context.Context, node string) error { return l.Start(node) })
}

func labFreezeCommand(name *string) *cobra.Command {
	return labNodeCommand(name, "freeze", "Have a node's agent stand still (SIGSTOP); its kernel keeps forwarding", "stands still",
		func(l *lab.Lab, _ context.Context, node string) error { return l.Freeze(node) })
}

func labThawCommand(name *string) *cobra.Command {
	return labNodeCommand(name, "thaw", "Have a node's agent that stands still go on", "goes on",
		func(l *lab.Lab, _ context.Context, node string) error { return l.Thaw(node) })
}

func labNodeCommand(name *string, verb, short, done string, do func(*lab.Lab, context.Context, string) error) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " NODE",
		Short:             short,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeNodes(name, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := openLab(*name)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), stopTime)
			defer cancel()
			if err := do(l, ctx, args[0]); err != nil {
				return err
			}
			return printf(cmd, "The agent of %s %s.\n", args[0], done)
		},
	}
}

// completeNodes offers the nodes of the lab for the first n arguments.
func completeNodes(name *string, n int) cobra.CompletionFunc {
	return completeLab(name, n, func(l *lab.Lab) (nodes []cobra.Completion) {
		for _, node := range l.Topology.Nodes {
			nodes = append(nodes, node.Name)
		}
		return nodes
	})
}

// completeHosts offers the nodes and guests of the lab.
func completeHosts(name *string, n int) cobra.CompletionFunc {
	return completeLab(name, n, func(l *lab.Lab) (hosts []cobra.Completion) {
		for _, node := range l.Topology.Nodes {
			hosts = append(hosts, node.Name)
		}
		for _, guest := range l.Topology.Guests {
			hosts = append(hosts, guest.Name)
		}
		return hosts
	})
}

func completeLab(name *string, n int, offers func(*lab.Lab) []cobra.Completion) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) >= n {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		l, err := openLab(*name)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return offers(l), cobra.ShellCompDirectiveNoFileComp
	}
}

func printf(cmd *cobra.Command, format string, args ...any) error {
	_, err := fmt.Fprintf(cmd.OutOrStdout(), format, args...)
	return err
}

func processes(n int) string {
	if n == 1 {
		return "1 process"
	}
	return fmt.Sprintf("%d processes", n)
}
