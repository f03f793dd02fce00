package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"frond/internal/api"
	"frond/internal/guest"
	"frond/internal/status"
)

// setupTime bounds what is asked of LXD.
const setupTime = 30 * time.Second

// lxdSetup is what "lxd setup" was asked for.
type lxdSetup struct {
	target
	segment, profile, project string
	yes                       bool
}

func lxdSetupCommand() *cobra.Command {
	var s lxdSetup
	cmd := &cobra.Command{
		Use:   "setup",
		Short: "Have instances of LXD or Incus land on a segment, by a profile",
		Long: `Have instances of LXD or Incus land on a segment: the profile gets an interface on
the segment's bridge. What is changed is told first, and asked for; --yes is the
answer for scripts. Nothing is changed where all is as it should be.

A cluster shares its profiles: once is enough for all of its members. Instances
that have the profile get the interface at once.`,
		Example:           "  frond lxd setup\n  frond lxd setup --segment blue --profile web --yes",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return s.run(cmd) },
	}
	s.flags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&s.segment, "segment", "", "which segment (default: the node's only one)")
	flags.StringVar(&s.profile, "profile", "default", "which profile of LXD or Incus")
	flags.StringVar(&s.project, "project", "default", "the profile's project")
	flags.BoolVar(&s.yes, "yes", false, "change it without asking")
	return cmd
}

func (s lxdSetup) run(cmd *cobra.Command) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), setupTime)
	defer cancel()
	agent, err := s.client()
	if err != nil {
		return err
	}
	segment, socket, err := s.ask(ctx, agent)
	if err != nil {
		return err
	}
	client := guest.NewClient(socket)
	before, err := client.Profile(ctx, s.project, s.profile)
	if errors.Is(err, guest.ErrGone) {
		return fmt.Errorf("LXD or Incus at %s has no profile %s in project %s: \"lxc profile create %s\" makes it", socket, s.profile, s.project, s.profile)
	}
	if err != nil {
		return fmt.Errorf("read profile %s at %s: %w", s.profile, socket, err)
	}
	after, changes := before.Onto(segment.Bridge, segment.MTU)
	if len(changes) == 0 {
		return printf(cmd, "Profile %s: instances land on segment %s, bridge %s. Nothing is to be changed.\n", s.profile, segment.Name, segment.Bridge)
	}
	if err := printf(cmd, "Profile %s, for segment %s:\n  %s\n%s", s.profile, segment.Name, strings.Join(changes, "\n  "), usersText(before.Users)); err != nil {
		return err
	}
	if err := s.confirm(cmd); err != nil {
		return err
	}
	ctx, cancel = context.WithTimeout(cmd.Context(), setupTime) // an answer may take its time
	defer cancel()
	if err := client.SetProfile(ctx, after); err != nil {
		return fmt.Errorf("change profile %s at %s: %w", s.profile, socket, err)
	}
	return printf(cmd, "Profile %s is changed.\n", s.profile)
}

// ask finds the segment and the hypervisor's socket.
func (s lxdSetup) ask(ctx context.Context, agent *api.Client) (status.Segment, string, error) {
	segments, err := agent.Segments(ctx)
	if err != nil {
		return status.Segment{}, "", err
	}
	segment, err := chooseSegment(segments, s.segment)
	if err != nil {
		return status.Segment{}, "", err
	}
	hypervisor, err := agent.Hypervisor(ctx)
	if err != nil {
		return status.Segment{}, "", err
	}
	if hypervisor.Socket == "" {
		return status.Segment{}, "", errors.New(contactText(hypervisor, view{}))
	}
	return segment, hypervisor.Socket, nil
}

// chooseSegment is the one of that name, or the only one.
func chooseSegment(segments []status.Segment, name string) (status.Segment, error) {
	var names []string
	for _, s := range segments {
		if s.Name == name || name == "" && len(segments) == 1 {
			return s, nil
		}
		names = append(names, s.Name)
	}
	switch {
	case len(names) == 0:
		return status.Segment{}, errors.New("the node takes part in no segment")
	case name == "":
		return status.Segment{}, usageError{fmt.Errorf("name the segment with --segment: there are %s", strings.Join(names, ", "))}
	}
	return status.Segment{}, usageError{fmt.Errorf("no segment %q on this node: there are %s", name, strings.Join(names, ", "))}
}

func usersText(n int) string {
	switch n {
	case 0:
		return ""
	case 1:
		return "1 instance with this profile, which is changed at once.\n"
	}
	return fmt.Sprintf("%d instances with this profile, which are changed at once.\n", n)
}

var errUnconfirmed = errors.New("nothing is changed: --yes changes it")

// confirm asks whoever sits at the terminal.
func (s lxdSetup) confirm(cmd *cobra.Command) error {
	if s.yes {
		return nil
	}
	terminal, ok := cmd.InOrStdin().(*os.File)
	if !ok || !isTerminal(terminal) {
		return errUnconfirmed
	}
	if err := printf(cmd, "Change it? [y/N] "); err != nil {
		return err
	}
	answer, err := bufio.NewReader(terminal).ReadString('\n')
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if strings.ToLower(strings.TrimSpace(answer)) != "y" {
		return errUnconfirmed
	}
	return nil
}
