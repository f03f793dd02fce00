package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"frond/internal/api"
	"frond/internal/status"
)

func (p program) statusCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the node, its peers, its routes and what is wrong, on one screen",
		Long: "Show the node, its peers, its routes and what is wrong, on one screen.\n" +
			"The exit code is 0 if the node is ready and no problem is a failure, otherwise 1.",
		GroupID:           groupAsk,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return question[status.Snapshot]{
				ask:     func(ctx context.Context, c *api.Client) (status.Snapshot, error) { return c.Status(ctx) },
				render:  renderStatus,
				verdict: healthy,
			}.answer(cmd, p, o)
		},
	}
	o.flags(cmd)
	return cmd
}

// healthy is the verdict on a node. Warnings do not count: what the document
// asks for works.
func healthy(s status.Snapshot) error {
	if !s.Ready || slices.ContainsFunc(s.Conditions, isFailure) {
		return errUnhealthy
	}
	return nil
}

func isFailure(c status.Condition) bool { return c.Severity == status.Failure }

func renderStatus(s status.Snapshot, v view) string {
	var b strings.Builder
	b.WriteString(heading(s, v) + "\n")
	facts := table{columns: []column{{}, {}}}
	fact := func(name, text string, t tint) { facts.add(cell{name, faint}, cell{text, t}) }
	fact("agent", fmt.Sprintf("%s, engine %s, pid %d, up %s", s.Version, s.Engine, s.PID, v.since(s.Started)), noTint)
	fact("address", fmt.Sprintf("%s, %s, AS %d", s.Loopback, s.Loopback6, s.ASN), noTint)
	fact("document", fmt.Sprintf("%s, loaded %s ago, sha256 %.12s", s.Document.Path, v.since(s.Document.Loaded), s.Document.SHA256), noTint)
	if s.Document.Error != "" {
		fact("", "reload refused: "+s.Document.Error, red)
	}
	fact("routes", routeTotals(s.Routes), totalsTint(s.Routes))
	if s.Uplink != nil {
		fact("uplink", uplinkText(*s.Uplink, v), noTint)
	}
	b.WriteString(facts.body(v) + "\n")
	b.WriteString(renderPeers(api.Peers{Peers: s.Peers}, v) + "\n")
	b.WriteString(renderProblems(s.Conditions, v))
	return b.String()
}

func heading(s status.Snapshot, v view) string {
	role := s.Role
	if role == "" {
		role = "node"
	}
	state, t := "ready", green
	switch {
	case !s.Ready:
		state, t = "not ready", yellow
	case healthy(s) != nil:
		state, t = "failing", red
	}
	return v.paint(printable(s.Node), bold) + printable(fmt.Sprintf(", %s of fabric %s: ", role, s.Fabric)) + v.paint(state, t)
}

// uplinkText says which routers lead out. What does not work is a problem, and
// named as one.
func uplinkText(u status.Uplink, v view) string {
	var working []string
	for _, r := range u.Routers {
		if r.Works {
			working = append(working, fmt.Sprintf("%s for %s", r.Address, v.since(r.Since)))
		}
	}
	if len(working) == 0 {
		return u.Port + ", no way out"
	}
	return u.Port + ", by " + strings.Join(working, ", ")
}

func routeTotals(t status.Totals) string {
	return fmt.Sprintf("%d wanted, %d in the kernel", t.Desired, t.Installed)
}

func totalsTint(t status.Totals) tint {
	if t.Desired != t.Installed {
		return yellow
	}
	return noTint
}

func renderProblems(conditions []status.Condition, v view) string {
	if len(conditions) == 0 {
		return v.paint("no problems", green) + "\n"
	}
	t := table{columns: []column{{name: "PROBLEM"}, {name: "ABOUT"}, {name: "NAME"}, {name: "FOR", right: true}, {name: "WHAT"}}}
	for _, c := range conditions {
		severity := cell{string(c.Severity), yellow}
		if isFailure(c) {
			severity.tint = red
		}
		t.add(severity, cell{text: c.Subject}, cell{text: c.Name}, cell{text: v.since(c.Since)}, cell{text: c.Text})
	}
	return t.render(v)
}
