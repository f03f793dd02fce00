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
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Prove that the fabric works, with figures",
		Long: `Prove that the fabric works, with figures:

  next hops   the kernel of every node has as many next hops to every other
              node as there are equally short ways by the cables
  echoes      every loopback answers every other, IPv4 and IPv6
  bandwidth   TCP between two leafs, compared with one veth pair

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
			if err := printf(cmd, "%s", proofText(proof)); err != nil {
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
	cmd.Flags().DurationVar(&cfg.Duration, "bandwidth", time.Second, "how long to measure each bandwidth; 0: not at all")
	return cmd
}

func proofText(p lab.Proof) string {
	var b strings.Builder
	converged := fmt.Sprintf("as the cables say, after %.2f s", p.Converged.Seconds())
	if p.Converged < 0 {
		converged = "not as the cables say"
	}
	fmt.Fprintf(&b, "next hops  %s over %s in the kernels: %s\n", count(p.Routes, "route"), count(p.NextHops, "next hop"), converged)
	fmt.Fprintf(&b, "echoes     %d of %s answered; the slowest took %.2f ms\n",
		p.Answered, count(p.Rounds, "pair"), float64(p.Slowest)/float64(time.Millisecond))
	if p.GuestRounds > 0 {
		fmt.Fprintf(&b, "guests     %d of %s answered\n", p.GuestAnswered, count(p.GuestRounds, "pair"))
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

func legsText(legs []lab.Leg) string {
	texts := make([]string, len(legs))
	for i, l := range legs {
		texts[i] = fmt.Sprintf("%s %.0f %%", l.Far, 100*l.Share)
	}
	return strings.Join(texts, ", ")
}
