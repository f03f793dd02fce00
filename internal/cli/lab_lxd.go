package cli

import (
	"github.com/spf13/cobra"
)

func labLXDCommand(name *string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lxd",
		Short: "Run containers in the lab's LXD cluster",
		Long: "Run containers in the LXD cluster of a lab that was made with --lxd. LXD's own client\n" +
			"works on each of its nodes: \"frond lab exec leaf1 -- lxc list\".",
		Example: "  frond lab up --lxd\n  frond lab lxd launch c1 --on leaf2\n  frond lab exec leaf1 -- lxc exec c1 -- ping -c 3 172.16.0.1",
	}
	cmd.AddCommand(labLXDLaunch(name))
	for _, verb := range cmd.Commands() {
		verb.RunE = labVerb(verb.RunE)
	}
	return cmd
}

func labLXDLaunch(name *string) *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use:               "launch INSTANCE",
		Short:             "Start a container, which gets its address by DHCP",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := openLab(*name)
			if err != nil {
				return err
			}
			i, err := l.Launch(cmd.Context(), args[0], node)
			if err != nil {
				return err
			}
			return printf(cmd, "Container %s runs on %s, with %s and %s.\n", i.Name, i.Node, i.MAC, i.Address)
		},
	}
	cmd.Flags().StringVar(&node, "on", "", "on which node (default: LXD chooses one)")
	_ = cmd.RegisterFlagCompletionFunc("on", completeNodes(name, 1))
	return cmd
}
