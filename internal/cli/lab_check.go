package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"frond/internal/lab"
)

func labCheckCommand(name *string) *cobra.Command {
	cfg := lab.CheckConfig{}
	var form format
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Prove that the fabric works, with figures",
		Long: `Prove that the fabric works, with figures:

  next hops   the kernel of every node has as many next hops to every other
              node as there are equally short ways by the cables
  echoes      every loopback answers every other, IPv4 and IPv6
  segments    for each segment with guests: every guest answers every other; a
              broadcast of one is seen by all others, exactly once; guests that
              forget each other's MACs are answered by their own nodes, so that
              no ARP request crosses the fabric; TCP between two guests,
              compared with TCP between their nodes' loopbacks
  gateways    every guest reaches other segments, a node and the
              internet; an anycast gateway is on every node, and no packet to
              or from it crosses the fabric; an elected one is on one node
  internet    with exits: every guest of a segment with a gateway is answered by
              an address outside, IPv4, and IPv6 where there is a way
  bandwidth   TCP between two leafs, compared with one veth pair

Where a segment has more than 45 guests, each asks only some of the others, and
only some broadcast, on each node at least one. Bandwidth is measured on the
first four segments.

The cabling is the measure: a cable that is cut or muted is a failure, unless
--surviving leaves it out. The exit code is 1 if anything failed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := openLab(*name)
			if err != nil {
				return err
			}
			p := newProgress(cmd.ErrOrStderr())
			defer p.end()
			proof, err := l.Check(cmd.Context(), cfg, p.step)
			p.end()
			if err != nil {
				return err
			}
			text, err := write(form, proof, func(p lab.Proof, _ view) string { return proofText(p) }, view{})
			if err != nil {
				return err
			}
			if err := printf(cmd, "%s", text); err != nil {
				return err
			}
			if len(proof.Failures) > 0 {
				return errUnhealthy
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&cfg.Timeout, "timeout", 10*time.Second, "how long to wait until routes are right, and for echoes")
	cmd.Flags().BoolVar(&cfg.Surviving, "surviving", false, "judge by the cables that are neither cut nor muted")
	cmd.Flags().DurationVar(&cfg.Duration, "bandwidth", 500*time.Millisecond, "how long to measure each bandwidth; 0: not at all")
	form.flag(cmd)
	return cmd
}

func proofText(p lab.Proof) string {
	var b strings.Builder
	converged := fmt.Sprintf("as the cables say, after %.2f s", p.ConvergedSeconds)
	if p.ConvergedSeconds < 0 {
		converged = "not as the cables say"
	}
	fmt.Fprintf(&b, "next hops  %s over %s in the kernels: %s\n", count(p.Routes, "route"), count(p.NextHops, "next hop"), converged)
	fmt.Fprintf(&b, "echoes     %d of %s answered; the slowest took %.2f ms\n",
		p.Answered, count(p.Rounds, "pair"), 1000*p.SlowestSeconds)
	for _, segment := range p.Segments {
		b.WriteString(segmentText(segment))
	}
	if w := p.Internet; w != nil {
		fmt.Fprintf(&b, "internet   %s: %d of %s answered; the slowest took %.2f ms\n",
			count(w.Guests, "guest"), w.Answered, count(w.Rounds, "address"), 1000*w.SlowestSeconds)
	}
	if w := p.Bandwidth; w != nil {
		fmt.Fprintf(&b, "bandwidth  %s → %s: %.1f Gbit/s in %s over %s (%s)\n           over one veth pair, directly: %.1f Gbit/s\n",
			w.From, w.To, w.Fabric/1e9, count(w.Streams, "stream"), count(len(w.Legs), "next hop"), legsText(w.Legs), w.Direct/1e9)
	}
	if len(p.Failures) == 0 {
		b.WriteString("proven: the fabric works\n")
		return b.String()
	}
	fmt.Fprintf(&b, "failed: %s\n", count(len(p.Failures), "thing"))
	for _, f := range p.Failures {
		b.WriteString("  " + printable(f) + "\n")
	}
	return b.String()
}

func segmentText(p lab.SegmentProof) string {
	var b strings.Builder
	sample := ""
	if p.Sampled {
		sample = " (a sample)"
	}
	fmt.Fprintf(&b, "segment    %s: %s; %d of %s answered%s\n", p.Segment, count(p.Guests, "guest"), p.Answered, count(p.Rounds, "pair"), sample)
	fmt.Fprintf(&b, "           %s: %d of %d guests saw them, each exactly once\n", count(p.Broadcasts, "broadcast"), p.Once, p.Copies)
	if p.ARP != nil {
		fmt.Fprintf(&b, "           %s crossed the fabric; all nodes know %s\n", count(p.ARP.Requests, "ARP request"), count(p.ARP.Known, "guest"))
	}
	if g := p.Gateway; g != nil {
		fmt.Fprintf(&b, "           gateway %s on %s: %d of %s to the outside answered; %s of it crossed the fabric\n",
			g.Mode, strings.Join(g.Holders, ", "), g.Answered, count(g.Rounds, "question"), count(g.Hairpins, "frame"))
	}
	if w := p.Bandwidth; w != nil {
		fmt.Fprintf(&b, "           %s → %s in VXLAN: %.1f Gbit/s in %s; %s → %s, routed: %.1f Gbit/s; ratio %.2f\n",
			w.From, w.To, w.VXLAN/1e9, count(w.Streams, "stream"), w.FromNode, w.ToNode, w.Routed/1e9, w.Ratio)
	}
	return b.String()
}

func legsText(legs []lab.Leg) string {
	texts := make([]string, len(legs))
	for i, l := range legs {
		texts[i] = fmt.Sprintf("%s %.0f %%", l.Far, 100*l.Share)
	}
	return strings.Join(texts, ", ")
}
