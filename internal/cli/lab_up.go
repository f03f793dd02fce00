package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"frond/internal/fabric"
	"frond/internal/lab"
)

// labUp is what "lab up" was asked for.
type labUp struct {
	spines, leafs int
	shape         string
	document      string
	cableFile     string
	cables        []string
	guests        int
	dhcp          bool
	exits         int
	lxd           bool
	wait          time.Duration
}

func labUpCommand(name *string) *cobra.Command {
	var up labUp
	cmd := &cobra.Command{
		Use:   "up [CABLE...]",
		Short: "Build a fabric and start its agents",
		Long: `Build a fabric and start its agents: spines and leafs, another --shape, or the
nodes of a document (-f).

The cables of a document's nodes are arguments, or lines of a file (--cables),
that name two ends each: "leaf1:eth1 spine1:eth3". Without ports the next free
ones of eth1, eth2, ... are taken; without any cable, every spine is cabled to
every other node. Exits are cabled to the namespace internet, in which
198.51.100.1 and 2001:db8:ffff::1 answer.`,
		Example: `  frond lab up --spines 4 --leafs 12
  frond lab up --name ring --shape ring:6
  frond lab up -f fabric.yaml "leaf1 spine1" "leaf2 spine1"`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			up.cables = args
			sized := cmd.Flags().Changed("spines") || cmd.Flags().Changed("leafs")
			if up.document != "" && up.exits > 0 {
				return usageError{errors.New("--exits adds to a shape; the exits of a document (-f) are those with an uplink in it")}
			}
			if up.document != "" && (sized || up.shape != "") || up.shape != "" && sized {
				return usageError{errors.New("--file, --shape, and --spines with --leafs exclude each other")}
			}
			return up.run(cmd, *name)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&up.spines, "spines", 2, "number of spines")
	flags.IntVar(&up.leafs, "leafs", 3, "number of leafs, each cabled to every spine")
	flags.IntVar(&up.exits, "exits", 0, "number of exits, each cabled to every spine and to the internet")
	flags.StringVar(&up.shape, "shape", "", "chain:6, ring:6, hub:4 (leafs), parallel:2 (cables), spine-leaf:2x3")
	flags.StringVarP(&up.document, "file", "f", "", "document whose nodes are built")
	flags.StringVar(&up.cableFile, "cables", "", "file with a cable per line")
	flags.IntVar(&up.guests, "guests", 0, "number of guests, spread over the nodes of the document's first segment; one is made if need be")
	flags.BoolVar(&up.dhcp, "dhcp", false, "guests ask for their addresses, by udhcpc")
	flags.BoolVar(&up.lxd, "lxd", false, "run a real LXD cluster on the nodes of the document's first segment; see \"frond lab lxd\"")
	flags.DurationVar(&up.wait, "wait", 15*time.Second, "how long to wait until all peers are there")
	return cmd
}

func (u labUp) run(cmd *cobra.Command, name string) error {
	topology, source, err := u.plan(name)
	if err != nil {
		return usageError{err}
	}
	binary, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	p := newProgress(cmd.ErrOrStderr())
	defer p.end()
	l, err := lab.Up(cmd.Context(), lab.Lab{Name: name, Topology: topology, Binary: binary}, source, p.step)
	if err != nil {
		return err
	}
	return u.settle(cmd, l, p)
}

// settle waits for the agents and shows what came of it.
func (u labUp) settle(cmd *cobra.Command, l *lab.Lab, p *progress) error {
	start := time.Now()
	ctx, cancel := context.WithTimeout(cmd.Context(), u.wait)
	defer cancel()
	nodes, err := l.Settle(ctx, p.step)
	settled := time.Since(start)
	p.end()
	if err != nil {
		return err
	}
	if err := addGuests(cmd, l, u.guests, u.dhcp, p); err != nil {
		return err
	}
	if u.lxd {
		if err := l.UpLXD(cmd.Context(), p.step); err != nil {
			return err
		}
	}
	p.end()
	if err := showLab(cmd, l, nodes); err != nil {
		return err
	}
	for _, n := range nodes {
		if n.Whole() {
			continue
		}
		if err := printf(cmd, "\nLab %s is up, but not whole. What to look at: \"frond lab status --name %s\", the logs in %s/%s\n",
			l.Name, l.Name, l.Dir(), "NODE/log"); err != nil {
			return err
		}
		return errUnhealthy
	}
	return printf(cmd, "\nLab %s is up; all peers were there %.1f s after the last agent was started.\n", l.Name, settled.Seconds())
}

// plan is the topology and the document that were asked for.
func (u labUp) plan(name string) (lab.Topology, lab.Source, error) {
	if u.document == "" {
		return u.generated(name)
	}
	content, err := os.ReadFile(u.document)
	if err != nil {
		return lab.Topology{}, lab.Source{}, err
	}
	f, err := fabric.Load(u.document)
	if err != nil {
		return lab.Topology{}, lab.Source{}, err
	}
	lines := u.cables
	if u.cableFile != "" {
		text, err := os.ReadFile(u.cableFile)
		if err != nil {
			return lab.Topology{}, lab.Source{}, err
		}
		lines = append(strings.Split(string(text), "\n"), lines...)
	}
	topology, err := lab.Cabled(f, lines)
	return topology, lab.Source{Content: content, Dir: filepath.Dir(u.document)}, err
}

func (u labUp) generated(name string) (lab.Topology, lab.Source, error) {
	if len(u.cables) > 0 || u.cableFile != "" {
		return lab.Topology{}, lab.Source{}, errors.New("cables go with the nodes of a document (-f)")
	}
	shape := u.shape
	if shape == "" {
		shape = fmt.Sprintf("spine-leaf:%dx%d", u.spines, u.leafs)
	}
	if err := lab.CheckName(name); err != nil {
		return lab.Topology{}, lab.Source{}, err
	}
	topology, err := lab.ParseShape(shape)
	if err != nil {
		return lab.Topology{}, lab.Source{}, err
	}
	if topology, err = topology.WithExits(u.exits); err != nil {
		return lab.Topology{}, lab.Source{}, err
	}
	document := lab.Document(name, topology)
	if u.guests > 0 || u.dhcp || u.lxd {
		document = lab.WithSegment(document, topology, u.dhcp || u.lxd)
	}
	f, err := fabric.Parse("fabric.yaml", document, ".")
	if err != nil {
		return lab.Topology{}, lab.Source{}, err
	}
	topology, err = topology.WithInternet(f)
	return topology, lab.Source{Content: document}, err
}
