package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"frond/internal/fabric"
	"frond/internal/node"
	"frond/internal/plan"
	"frond/internal/store"
)

// storePatience is how long the store's verbs try: a change of members waits
// until the others have been whole for 5 s.
const storePatience = 15 * time.Second

func (p program) storeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "store",
		Short: "Look at and care for the store of leases",
		Long: "Look at and care for the store that elected gateways and DHCP keep leases in. These\n" +
			"verbs ask its members themselves, with this node's certificate.",
		GroupID: groupAsk,
	}
	cmd.AddCommand(p.storeStatusCommand(), p.storeMembersCommand(), storeAddCommand(), storeRemoveCommand(),
		p.storeBackupCommand(), storeRestoreCommand())
	return cmd
}

// storeAccess is where a verb finds the store.
type storeAccess struct{ document, node, pki string }

func (a *storeAccess) flags(cmd *cobra.Command) {
	pkiFlags(cmd, &a.document, &a.pki)
	cmd.Flags().StringVar(&a.node, "node", "", "whose certificate to show (default: the host name)")
	_ = cmd.RegisterFlagCompletionFunc("node", completeNode(&a.document))
}

// storeSession is the store as one verb sees it.
type storeSession struct {
	fabric *fabric.Fabric
	client *store.Client
}

// with has the verb use the store.
func (a storeAccess) with(ctx context.Context, use func(context.Context, storeSession) error) error {
	f, err := fabric.Load(a.document)
	if err != nil {
		return err
	}
	name := a.node
	if name == "" {
		if name, err = os.Hostname(); err != nil {
			return fmt.Errorf("find the host name, name the node by --node: %w", err)
		}
	}
	planned, err := plan.For(f, name)
	if err != nil {
		return err
	}
	if planned.Store == nil {
		return errors.New("this fabric runs no store: nothing in its document keeps leases")
	}
	desired := node.DesiredStore(planned, a.pki)
	config, err := desired.Files.Client(time.Now())
	if err != nil {
		return err
	}
	client, err := store.Open(store.ClientConfig{Endpoints: desired.Endpoints, Prefix: store.Prefix(f.Name), Volatile: node.VolatileKeys(), TLS: config})
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, storePatience)
	defer cancel()
	return use(ctx, storeSession{f, client})
}

// peer is a node of the document as a member.
func (s storeSession) peer(name string) (store.Peer, error) {
	n, err := s.fabric.Find(name)
	return store.Peer{Name: n.Name, Address: n.Loopback}, err
}

// nameOf is the node at a member's address, for members that never ran.
func (s storeSession) nameOf(m store.MemberInfo) string {
	for _, n := range s.fabric.Nodes {
		if m.Of(n.Loopback) {
			return n.Name
		}
	}
	return cmp.Or(m.Name, m.Address)
}

func (p program) storeStatusCommand() *cobra.Command {
	var access storeAccess
	cmd := &cobra.Command{
		Use:               "status",
		Short:             "Show the members, who leads, and whether there is a majority",
		Long:              "Show the members, who leads, and whether there is a majority; without one, or with\na member that does not answer, the exit code is 1.",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return access.with(cmd.Context(), func(ctx context.Context, s storeSession) error {
				h := s.client.Look(ctx)
				if _, err := fmt.Fprint(cmd.OutOrStdout(), renderHealth(h, p.view(cmd.OutOrStdout()))); err != nil {
					return err
				}
				for _, m := range h.Members {
					if m.Problem != "" {
						return errUnhealthy
					}
				}
				return nil
			})
		},
	}
	access.flags(cmd)
	return cmd
}

func renderHealth(h store.Health, v view) string {
	head := v.paint("no majority: nothing can be written, and no lease renewed", red) + "\n\n"
	if h.Majority {
		head = "majority, " + cmp.Or(h.Leader, "a member that does not answer") + " leads\n\n"
	}
	t := table{columns: []column{{name: "MEMBER"}, {name: "ROLE"}, {name: "SIZE", right: true}, {name: "VERSION"}, {name: "PROBLEM"}}}
	for _, m := range h.Members {
		row := []cell{{m.Name, bold}, {"follower", noTint}, {}, {m.Version, noTint}, {m.Problem, red}}
		switch {
		case !m.Answers:
			row[1] = cell{"away", red}
		case m.Leader:
			row[1] = cell{"leader", green}
		case m.Learner:
			row[1] = cell{"learner", yellow}
		}
		if m.Answers {
			row[2].text = fmt.Sprintf("%d KiB", m.Bytes>>10)
		}
		t.add(row...)
	}
	return head + t.render(v)
}

func (p program) storeMembersCommand() *cobra.Command {
	var access storeAccess
	cmd := &cobra.Command{
		Use:               "members",
		Short:             "List the members that the store itself has",
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return access.with(cmd.Context(), func(ctx context.Context, s storeSession) error {
				members, err := s.client.Members(ctx)
				if err != nil {
					return err
				}
				t := table{columns: []column{{name: "MEMBER"}, {name: "ADDRESS"}, {name: "ID"}, {name: "STATE"}}}
				for _, m := range members {
					state := cell{"votes", noTint}
					switch {
					case m.Name == "":
						state = cell{"has never run: name it in the document, and start its agent", yellow}
					case m.Learner:
						state = cell{"learns, has no vote yet", yellow}
					}
					t.add(cell{s.nameOf(m), bold}, cell{m.Address, noTint}, cell{fmt.Sprintf("%x", m.ID), noTint}, state)
				}
				_, err = fmt.Fprint(cmd.OutOrStdout(), t.render(p.view(cmd.OutOrStdout())))
				return err
			})
		},
	}
	access.flags(cmd)
	return cmd
}

func storeAddCommand() *cobra.Command {
	var access storeAccess
	cmd := &cobra.Command{
		Use:   "add NODE",
		Short: "Make room for a member",
		Long: "Make room for a member: its agent, whose document names it, finds it, learns what the\n" +
			"others have, and then gets its vote.",
		Args: cobra.ExactArgs(1), ValidArgsFunction: completeNode(&access.document),
		RunE: func(cmd *cobra.Command, args []string) error {
			return access.with(cmd.Context(), func(ctx context.Context, s storeSession) error {
				peer, err := s.peer(args[0])
				if err != nil {
					return err
				}
				if err := s.client.AddMember(ctx, peer); err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "there is room for %s: it joins when its agent runs it\n", peer.Name)
				return err
			})
		},
	}
	access.flags(cmd)
	return cmd
}

func storeRemoveCommand() *cobra.Command {
	var access storeAccess
	cmd := &cobra.Command{
		Use:   "remove NODE",
		Short: "Have the store forget a member",
		Args:  cobra.ExactArgs(1), ValidArgsFunction: completeNode(&access.document),
		RunE: func(cmd *cobra.Command, args []string) error {
			return access.with(cmd.Context(), func(ctx context.Context, s storeSession) error {
				members, err := s.client.Members(ctx)
				if err != nil {
					return err
				}
				for _, m := range members {
					if s.nameOf(m) != args[0] {
						continue
					}
					if err := s.client.RemoveMember(ctx, m.ID); err != nil {
						return err
					}
					_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s is no member any more: take it out of the document\n", args[0])
					return err
				}
				return fmt.Errorf("the store has no member %s: \"frond store members\" lists them", args[0])
			})
		},
	}
	access.flags(cmd)
	return cmd
}

func (p program) storeBackupCommand() *cobra.Command {
	var access storeAccess
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write all that the store holds into a file",
		Long:  "Write all that the store holds, as it is at one moment, into a file that does not exist\nyet. Leases of who holds what right now are left out.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return access.with(cmd.Context(), func(ctx context.Context, s storeSession) error {
				file, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
				if err != nil {
					return fmt.Errorf("write the backup: %w", err)
				}
				n, err := s.client.Backup(ctx, file, p.now())
				if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
					_ = os.Remove(args[0])
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s of the store are in %s\n", count(n, "key"), args[0])
				return err
			})
		},
	}
	access.flags(cmd)
	return cmd
}

func storeRestoreCommand() *cobra.Command {
	var access storeAccess
	var replace bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Bring back what a backup holds, into a store that runs",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return access.with(cmd.Context(), func(ctx context.Context, s storeSession) error {
				file, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("read the backup: %w", err)
				}
				defer func() { _ = file.Close() }()
				n, err := s.client.Restore(ctx, file, replace)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "the store holds the %s of %s\n", count(n, "key"), args[0])
				return err
			})
		},
	}
	access.flags(cmd)
	cmd.Flags().BoolVar(&replace, "replace", false, "let what the store holds give way to the backup")
	return cmd
}
