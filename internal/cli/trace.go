package cli

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"frond/internal/api"
	"frond/internal/pki"
	"frond/internal/status"
	"frond/internal/trace"
)

const traceLong = `Show the way of a packet, hop by hop with every leg, as the kernels on it have it.
FROM is a node or a guest, TO is one too or any MAC or IP address. Both are given
by name, MAC or IP address. Between guests of one segment the trace follows the
MAC, otherwise the IP address. The exit code is 1 if packets get lost on a leg.`

func (p program) traceCommand() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "trace FROM TO",
		Short: "Show the way that a packet takes, by what the kernel holds",
		Long: traceLong + `

An agent answers for its own kernel. Those of other nodes are asked over the
network, with this node's certificate; where there is none, the trace ends at the
next nodes, which it names.`,
		Example:           "  frond trace leaf1 10.0.200.2\n  frond trace 172.16.0.11 172.16.0.12",
		GroupID:           groupAsk,
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			ask := func(ctx context.Context, c *api.Client) (trace.Trace, error) {
				return o.traceFrom(ctx, c, args[0], args[1])
			}
			return traceUsage(question[trace.Trace]{ask: ask, render: renderTrace, verdict: traceVerdict}.answer(cmd, p, o))
		},
	}
	o.flags(cmd)
	return cmd
}

func labTraceCommand(name *string) *cobra.Command {
	var form format
	cmd := &cobra.Command{
		Use:               "trace FROM TO",
		Short:             "Show the way that a packet takes, by what the kernels hold",
		Long:              traceLong,
		Example:           "  frond lab trace g1 g2\n  frond lab trace leaf1 10.0.254.1",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: completeHosts(name, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := openLab(*name)
			if err != nil {
				return err
			}
			found, err := l.Trace(cmd.Context(), args[0], args[1])
			if err != nil {
				return traceUsage(err)
			}
			text, err := write(form, found, renderTrace, program{now: time.Now}.view(cmd.OutOrStdout()))
			if err != nil {
				return err
			}
			if err := printf(cmd, "%s", text); err != nil {
				return err
			}
			return traceVerdict(found)
		},
	}
	form.flag(cmd)
	return cmd
}

// traceUsage makes a text that can be nobody's an error of the command line.
func traceUsage(err error) error {
	var input trace.InputError
	if errors.As(err, &input) {
		return usageError{err}
	}
	return err
}

// traceVerdict makes lost packets the verb's exit code.
func traceVerdict(t trace.Trace) error {
	if t.Outcome == trace.Lost || t.Outcome == trace.Partly {
		return errUnhealthy
	}
	return nil
}

// traceFrom follows a packet from agent to agent, as far as those of other
// nodes can be asked.
func (o *options) traceFrom(ctx context.Context, c *api.Client, from, to string) (trace.Trace, error) {
	self, err := c.Status(ctx)
	if err != nil {
		return trace.Trace{}, err
	}
	var d trace.Directory
	if d.Nodes, err = c.Nodes(ctx); err != nil {
		return trace.Trace{}, err
	}
	if d.MACs, err = c.MACs(ctx, ""); err != nil {
		return trace.Trace{}, err
	}
	begin, err := d.From(from)
	if err != nil {
		return trace.Trace{}, err
	}
	end, err := d.To(to, begin.Segment)
	if err != nil {
		return trace.Trace{}, err
	}
	asker := agents{own: c, node: self.Node, all: d.Nodes}
	here := ""
	if o.node == "" {
		here = self.Node
	}
	if asker.files, err = o.files(here); err != nil {
		return trace.Trace{}, err
	}
	return trace.Walk(ctx, asker, begin, end)
}

// agents are one agent that can be asked anyway, and those of other nodes,
// with a certificate.
type agents struct {
	own   *api.Client
	node  string // whose agent that is
	all   []status.Host
	files pki.Files
}

var errElsewhere = errors.New("cannot be asked from here without a certificate: run \"frond trace\" on it")

// Forwarding asks the agent of a node.
func (a agents) Forwarding(ctx context.Context, node string, to status.Destination) (status.Forwarding, error) {
	if node == a.node {
		return a.own.Forwarding(ctx, to)
	}
	if a.files.Absent() {
		return status.Forwarding{}, errElsewhere
	}
	i := slices.IndexFunc(a.all, func(h status.Host) bool { return h.Name == node })
	if i < 0 {
		return status.Forwarding{}, fmt.Errorf("cannot be asked: the document has no node %s", node)
	}
	address, err := netip.ParseAddr(a.all[i].Loopback)
	if err != nil {
		return status.Forwarding{}, fmt.Errorf("cannot be asked: %w", err)
	}
	client, err := api.NewRemoteClient(api.Remote{Node: node, Address: address, Files: a.files})
	if err != nil {
		return status.Forwarding{}, err
	}
	return client.Forwarding(ctx, to)
}
