package cli

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"frond/internal/lab"
)

func labStatusCommand(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the fabric, its agents and what is wrong",
		Long:  "Show the fabric, its agents and what is wrong. The exit code is 1 if more than\nredundancy is lost, or a peer is missing though its cable is good.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := openLab(*name)
			if err != nil {
				return err
			}
			nodes, err := l.Status(cmd.Context())
			if err != nil {
				return err
			}
			if err := showLab(cmd, l, nodes); err != nil {
				return err
			}
			for _, n := range nodes {
				if !n.Whole() || slices.ContainsFunc(n.Snapshot.Conditions, isFailure) {
					return errUnhealthy
				}
			}
			return nil
		},
	}
}

// showLab prints the drawing, the table, and what is wrong.
func showLab(cmd *cobra.Command, l *lab.Lab, nodes []lab.NodeStatus) error {
	states, err := l.States()
	if err != nil {
		return err
	}
	v := program{now: time.Now}.view(cmd.OutOrStdout())
	guests := ""
	if len(l.Topology.Guests) > 0 {
		guests = guestsText(l.Topology.Guests)
	}
	return printf(cmd, "%s\n%s%s%s", lab.Draw(l.Topology, states), labTable(nodes).render(v), guests, labProblems(nodes).body(v))
}

func labTable(nodes []lab.NodeStatus) *table {
	t := &table{columns: []column{{name: "NODE"}, {name: "ROLE"}, {name: "LOOPBACK"}, {name: "LOOPBACK6"},
		{name: "AGENT", right: true}, {name: "PEERS", right: true}, {name: "ROUTES", right: true}, {name: "STATE"}}}
	for _, n := range nodes {
		s := n.Snapshot
		peers := fmt.Sprintf("%d/%d", n.Established(), n.Expected)
		routes := fmt.Sprintf("%d/%d", s.Routes.Installed, s.Routes.Desired)
		agent := cell{strconv.Itoa(n.PID), noTint}
		if n.PID == 0 {
			agent = cell{"none", red}
		}
		if n.Err != nil {
			peers, routes = "?", "?"
		}
		t.add(cell{n.Node.Name, bold}, cell{string(n.Node.Role), noTint}, cell{s.Loopback, noTint}, cell{s.Loopback6, noTint},
			agent, cell{peers, noTint}, cell{routes, noTint}, labState(n))
	}
	return t
}

func labState(n lab.NodeStatus) cell {
	switch {
	case n.Err != nil:
		return cell{"down", red}
	case !n.Snapshot.Ready:
		return cell{"starting", yellow}
	case len(n.Snapshot.Conditions) > 0:
		return cell{count(len(n.Snapshot.Conditions), "problem"), yellow}
	case !n.Whole():
		return cell{"peers missing", yellow}
	}
	return cell{"ready", green}
}

func labProblems(nodes []lab.NodeStatus) *table {
	t := &table{columns: []column{{name: ""}, {name: ""}, {name: ""}}}
	for _, n := range nodes {
		if n.Err != nil {
			t.add(cell{n.Node.Name, red}, cell{"agent", noTint}, cell{n.Err.Error(), noTint})
			continue
		}
		for _, c := range n.Snapshot.Conditions {
			t.add(cell{n.Node.Name, yellow}, cell{c.Subject, noTint}, cell{c.Text, noTint})
		}
	}
	return t
}
