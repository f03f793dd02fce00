package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"frond/internal/api"
	"frond/internal/status"
)

func (p program) segmentsCommand() *cobra.Command {
	ask := func(ctx context.Context, c *api.Client) (api.Segments, error) {
		segments, err := c.Segments(ctx)
		return api.Segments{Segments: segments}, err
	}
	return question[api.Segments]{ask: ask, render: renderSegments}.command(p, "segments", "Show the segments that the node takes part in", "")
}

func renderSegments(answer api.Segments, v view) string {
	if len(answer.Segments) == 0 {
		return "no segments: the document names this node in none\n"
	}
	t := table{columns: []column{
		{name: "SEGMENT"}, {name: "VNI", right: true}, {name: "BRIDGE"}, {name: "MTU", right: true}, {name: "STATE"},
		{name: "HERE", right: true}, {name: "ELSEWHERE", right: true}, {name: "VTEPS"}, {name: "PROBLEMS"},
	}}
	for _, s := range answer.Segments {
		t.add(cell{text: s.Name}, cell{text: number(s.VNI)}, cell{text: s.Bridge}, cell{text: strconv.Itoa(s.MTU)}, segmentState(s),
			cell{text: strconv.Itoa(s.LocalMACs)}, cell{text: strconv.Itoa(s.RemoteMACs)},
			cell{text: strings.Join(s.VTEPs, " ")}, cell{text: strings.Join(s.Problems, "; ")})
	}
	return t.render(v)
}

func segmentState(s status.Segment) cell {
	switch {
	case !s.Ready:
		return cell{"no devices", red}
	case s.Pending > 0:
		return cell{strconv.Itoa(s.Pending) + " pending", yellow}
	}
	return cell{"ready", green}
}

func (p program) macsCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:               "macs [SEGMENT]",
		Short:             "Show which MACs are where, and whose addresses are known",
		GroupID:           groupAsk,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			segment := strings.Join(args, "")
			ask := func(ctx context.Context, c *api.Client) (api.MACs, error) {
				macs, err := c.MACs(ctx, segment)
				return api.MACs{MACs: macs}, err
			}
			return question[api.MACs]{ask: ask, render: renderMACs}.answer(cmd, p, o)
		},
	}
	o.flags(cmd)
	cmd.AddCommand(thawCommand())
	return cmd
}

func thawCommand() *cobra.Command {
	var to target
	var segment string
	cmd := &cobra.Command{
		Use:   "thaw MAC|IP",
		Short: "Let a frozen MAC or address move again before its time",
		Long: "Let a MAC or an address move again that is frozen because it moved too often,\n" +
			"on this node and on all its segments unless one is named. Each node freezes\n" +
			"and thaws for itself; frond status names what is frozen.",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeFrozen(&to.socket),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := to.client()
			if err != nil {
				return err
			}
			if err := client.Thaw(cmd.Context(), args[0], segment); err != nil {
				return fmt.Errorf("thaw: %w", err)
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), args[0]+" may move again")
			return err
		},
	}
	to.flags(cmd)
	cmd.Flags().StringVar(&segment, "segment", "", "only on the segment of that name")
	return cmd
}

func renderMACs(answer api.MACs, v view) string {
	if len(answer.MACs) == 0 {
		return "no MACs are known\n"
	}
	t := table{columns: []column{
		{name: "SEGMENT"}, {name: "MAC"}, {name: "NAME"}, {name: "WHERE"}, {name: "SEQUENCE", right: true}, {name: "FOR", right: true}, {name: "REMARK"}, {name: "IPS"},
	}}
	for _, m := range answer.MACs {
		t.add(cell{text: m.Segment}, cell{text: m.MAC}, cell{text: m.Name}, cell{text: whereMAC(m)}, cell{text: number(m.Sequence)},
			cell{text: v.since(m.Since)}, cell{text: remarkMAC(m, v)}, cell{text: strings.Join(m.IPs, " ")})
	}
	return t.render(v)
}

func whereMAC(m status.MAC) string {
	if m.Local {
		return "here, on " + m.Port
	}
	return m.VTEP
}

func remarkMAC(m status.MAC, v view) string {
	var remarks []string
	if m.Sticky {
		remarks = append(remarks, "sticky")
	}
	if m.Silent != nil {
		remarks = append(remarks, "silent for "+v.since(*m.Silent))
	}
	if m.Frozen != nil {
		remarks = append(remarks, "frozen until "+m.Frozen.Format(time.TimeOnly))
	}
	return strings.Join(remarks, ", ")
}

func (p program) evpnCommand() *cobra.Command {
	ask := func(ctx context.Context, c *api.Client) (api.EVPN, error) {
		routes, err := c.EVPN(ctx)
		return api.EVPN{Routes: routes}, err
	}
	return question[api.EVPN]{ask: ask, render: renderEVPN}.command(p, "evpn", "Show the EVPN routes that the node tells and has been told", "")
}

func renderEVPN(answer api.EVPN, v view) string {
	if len(answer.Routes) == 0 {
		return "no EVPN routes\n"
	}
	t := table{columns: []column{
		{name: "ROUTE"}, {name: "RD"}, {name: "VNI", right: true}, {name: "VTEP"}, {name: "SEQUENCE", right: true}, {name: "FROM"}, {name: "USED"},
	}}
	for _, r := range answer.Routes {
		from, used := r.Peer, "yes"
		if r.Local {
			from = "here"
		}
		if !r.Used {
			used = "no"
		}
		t.add(cell{text: r.Route}, cell{text: r.RD}, cell{text: number(r.VNI)}, cell{text: r.VTEP}, cell{text: number(r.Sequence)},
			cell{text: from}, cell{text: used})
	}
	return t.render(v)
}
