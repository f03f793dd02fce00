package cli

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"frond/internal/api"
	"frond/internal/status"
)

func (p program) guardCommand() *cobra.Command {
	ask := func(ctx context.Context, c *api.Client) (status.Guard, error) { return c.Guard(ctx) }
	return question[status.Guard]{ask: ask, render: renderGuard}.command(p, "guard", "Show what peers and guests do that the document does not let them",
		"Show the routes that peers tell and that are refused, and how many packets of\n"+
			"which port were dropped by which rule since the rules were made. Packets to the\n"+
			"node or through it count for the segment's bridge.")
}

func renderGuard(g status.Guard, v view) string {
	if len(g.Routes)+len(g.Drops) == 0 {
		return "nobody does what the document does not let him\n"
	}
	var parts []string
	if len(g.Routes) > 0 {
		t := table{columns: []column{{name: "PORT"}, {name: "PEER"}, {name: "ROUTE"}, {name: "ORIGIN"}, {name: "REFUSED BECAUSE"}}}
		for _, r := range g.Routes {
			t.add(cell{text: r.Port}, cell{text: r.Peer}, cell{text: r.Route}, cell{text: originName(r)}, cell{text: r.Reason})
		}
		parts = append(parts, t.render(v))
	}
	if len(g.Drops) > 0 {
		t := table{columns: []column{{name: "PORT"}, {name: "SEGMENT"}, {name: "RULE"}, {name: "DROPPED", right: true}, {name: "GUESTS"}}}
		for _, d := range g.Drops {
			t.add(cell{text: d.Port}, cell{text: d.Segment}, cell{text: d.Rule}, cell{text: strconv.FormatUint(d.Packets, 10)}, cell{text: strings.Join(d.MACs, " ")})
		}
		parts = append(parts, t.render(v))
	}
	return strings.Join(parts, "\n")
}

func originName(r status.RefusedRoute) string {
	if r.Node != "" {
		return r.Node
	}
	return "AS " + number(r.Origin)
}
