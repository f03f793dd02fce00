package cli

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"frond/internal/api"
	"frond/internal/status"
)

func (p program) routesCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:               "routes [PREFIX]",
		Short:             "Show the fabric's routes, or those inside a prefix",
		Long:              "Show the fabric's routes and whether the kernel holds each just so.\nPREFIX, an address or a prefix, leaves those inside it; if there are none, the exit code is 1.",
		GroupID:           groupAsk,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completePrefix(&o.socket),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q := question[api.Routes]{render: renderRoutes}
		var prefix netip.Prefix
		if len(args) == 1 {
			var err error
			if prefix, err = api.ParsePrefix(args[0]); err != nil {
				return usage(cmd, fmt.Errorf("%q is no prefix: write it as 10.0.0.0/16 or 10.0.200.1", args[0]))
			}
			q.verdict = someRoutes
		}
		q.ask = func(ctx context.Context, c *api.Client) (api.Routes, error) {
			routes, err := c.Routes(ctx, prefix)
			return api.Routes{Routes: routes}, err
		}
		return q.answer(cmd, p, o)
	}
	o.flags(cmd)
	return cmd
}

// someRoutes is the verdict on a prefix that was asked for by name.
func someRoutes(answer api.Routes) error {
	if len(answer.Routes) == 0 {
		return errUnhealthy
	}
	return nil
}

func renderRoutes(answer api.Routes, v view) string {
	if len(answer.Routes) == 0 {
		return "no routes\n"
	}
	t := table{columns: []column{{name: "PREFIX"}, {name: "AS PATH"}, {name: "KERNEL"}, {name: "NEXT HOPS"}}}
	for _, r := range answer.Routes {
		kernel := cell{"yes", green}
		if !r.Installed {
			kernel = cell{"no", red}
		}
		t.add(cell{text: r.Prefix}, cell{text: asPath(r.ASPath)}, kernel, cell{text: nextHops(r)})
	}
	return t.render(v)
}

func asPath(path []uint32) string {
	return strings.Trim(fmt.Sprint(path), "[]")
}

func nextHops(r status.Route) string {
	if r.Local {
		return "local"
	}
	hops := make([]string, len(r.NextHops))
	for i, h := range r.NextHops {
		name := h.Name
		if name == "" {
			name = h.Address
		}
		hops[i] = name + " on " + h.Port
		if h.Stale {
			hops[i] += " (stale)"
		}
	}
	return strings.Join(hops, ", ")
}
