package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"frond/internal/api"
	"frond/internal/guest"
	"frond/internal/node"
)

// agent is a node that can run.
type agent interface {
	Run(ctx context.Context) error
	Reload(ctx context.Context) error
}

func newAgent(c node.Config, log *slog.Logger) (agent, error) { return node.New(c, log) }

func (p program) agentCommand() *cobra.Command {
	var c node.Config
	var level string
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Run this machine as a node of the fabric",
		Long: "Run this machine as a node of the fabric until SIGTERM or SIGINT. Routes then stay\n" +
			"for a restart, unless --withdraw is set. SIGHUP makes it read its document again.",
		GroupID:           groupRun,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			defer spareCollections()()
			log, err := logger(cmd.ErrOrStderr(), level)
			if err != nil {
				return usage(cmd, err)
			}
			if err := complete(&c); err != nil {
				return err
			}
			a, err := p.newAgent(c, log)
			if err != nil {
				return err
			}
			return runAgent(cmd.Context(), a, log)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&c.Document, "config", "/etc/frond/fabric.yaml", "the fabric's document")
	flags.StringVar(&c.Node, "node", "", "which of the document's nodes this is (default: the host name)")
	flags.StringVar(&c.StateDir, "state", "/var/lib/frond", "directory of what outlives a restart")
	flags.StringVar(&c.StoreDir, "store", "", "directory of this node's member of the store (default: store in --state)")
	flags.StringVar(&c.PKI, "pki", defaultPKI, "directory of the certificates for the store and for answering over the network")
	flags.BoolVar(&c.Withdraw, "withdraw", false, "on stop, remove all that is frond's from peers and kernel")
	flags.StringVar(&level, "log-level", "info", "least level that is logged: debug, info, warn or error")
	flags.StringVar(&c.Socket, "socket", api.DefaultSocket, "where to answer frond's other verbs")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	_ = cmd.MarkFlagDirname("state")
	_ = cmd.MarkFlagDirname("store")
	_ = cmd.MarkFlagDirname("pki")
	_ = cmd.RegisterFlagCompletionFunc("node", completeNode(&c.Document))
	_ = cmd.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// complete fills in what the machine itself knows, and makes the document's
// path one that others can use: status shows it.
func complete(c *node.Config) (err error) {
	if c.Node == "" {
		if c.Node, err = os.Hostname(); err != nil {
			return fmt.Errorf("find the host name, name the node by --node: %w", err)
		}
	}
	if c.Executable, err = os.Executable(); err != nil {
		return fmt.Errorf("find this program's file: %w", err)
	}
	if c.Document, err = filepath.Abs(c.Document); err != nil {
		return fmt.Errorf("find the document: %w", err)
	}
	if c.StoreDir == "" {
		c.StoreDir = filepath.Join(c.StateDir, "store")
	}
	c.BFDSocket = filepath.Join(filepath.Dir(c.Socket), "bfd.sock")
	c.Version = version().Version
	c.Hypervisors = guest.Sockets(os.Getenv)
	return nil
}

const (
	// startTime is how long a node takes to start, with room.
	startTime = 10 * time.Second
	// startGarbage is how much more than what is in use may be garbage until
	// then, in percent (runtime/debug.SetGCPercent).
	startGarbage = 400
)

// spareCollections has garbage be looked for less often until the start is over:
// it takes a tenth of a start's processor time otherwise, which many nodes need
// at once when power returns. Then what has been left is given back, and it is as
// GOGC says.
func spareCollections() (stop func() bool) {
	usual := debug.SetGCPercent(startGarbage)
	if usual < 0 || usual > startGarbage {
		debug.SetGCPercent(usual)
	}
	return time.AfterFunc(startTime, func() {
		debug.SetGCPercent(usual)
		debug.FreeOSMemory()
	}).Stop
}

// runAgent runs the agent and hands it each SIGHUP as a reload.
func runAgent(ctx context.Context, a agent, log *slog.Logger) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)

	ctx, cancel := context.WithCancel(ctx)
	var reloader sync.WaitGroup
	reloader.Go(func() { reloadOn(ctx, hangup, a, log) })
	defer reloader.Wait()
	defer cancel()
	return a.Run(ctx)
}

func reloadOn(ctx context.Context, hangup <-chan os.Signal, a agent, log *slog.Logger) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangup:
		}
		if err := a.Reload(ctx); err != nil {
			log.Error("reload refused, the document before stays in force", "error", err)
			continue
		}
		log.Info("document reloaded")
	}
}

// logger writes text for a person at a terminal, JSON for everything else.
func logger(w io.Writer, level string) (*slog.Logger, error) {
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q is none of debug, info, warn and error", level)
	}
	options := &slog.HandlerOptions{Level: least, ReplaceAttr: durationAsText}
	if isTerminal(w) {
		return slog.New(slog.NewTextHandler(w, options)), nil
	}
	return slog.New(slog.NewJSONHandler(w, options)), nil
}

// durationAsText writes 1.5s, where JSON would have a number of nanoseconds.
func durationAsText(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		return slog.String(a.Key, a.Value.Duration().String())
	}
	return a
}
