// Package node is the agent: it wires the parts of a node to each other,
// starts and stops them in order, and answers for all of them.
//
// One goroutine, the loop, owns everything that is known: links, neighbours,
// states of sessions, best paths. Whatever changes, it computes whole desired
// sets from all of that and hands them down; the parts find the difference.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"frond/internal/advertise"
	"frond/internal/api"
	"frond/internal/bfd"
	"frond/internal/bgp/native"
	"frond/internal/dataplane"
	"frond/internal/dhcp"
	"frond/internal/dns"
	"frond/internal/gateway"
	"frond/internal/guest"
	"frond/internal/kernel"
	"frond/internal/kv"
	"frond/internal/quorum"
	"frond/internal/ra"
	"frond/internal/status"
	"frond/internal/store"
	"frond/internal/uplink"
)

// Config is what an agent is told from outside.
type Config struct {
	Document   string // path of fabric.yaml
	Node       string // which of the document's nodes this is
	StateDir   string // what outlives a restart; today the kernel holds all of it
	Socket     string // where the API answers
	BFDSocket  string // where the BFD process answers
	PKI        string // directory of certificates
	StoreDir   string // data of this node's member of the store
	Withdraw   bool   // on stop, remove all that is frond's instead of leaving it for a restart
	Version    string
	Executable string // this program, to start the BFD process and the store's member
	// Hypervisors are the sockets that LXD or Incus may answer at, unless the
	// document says otherwise.
	Hypervisors []string
}

// bgpPort is where BGP listens, on all addresses: sessions are told apart by
// link-local peer and port.
var bgpPort = netip.AddrPortFrom(netip.IPv6Unspecified(), 179)

// Node is one agent. It implements api.Backend.
type Node struct {
	cfg     Config
	log     *slog.Logger
	started time.Time

	requests chan func(*loop) // run by the loop
	ended    chan struct{}    // closed when the loop takes no more requests

	// left is closed when a withdrawal is over, with its outcome in leaveErr.
	left     chan struct{}
	leaveErr error

	reload sync.Mutex // one reload at a time
	kernel lookups    // set by Run before anybody can ask

	first     document
	leases    kv.Store       // what elected gateways are kept in; set by Run before anybody can ask
	addresses guestAddresses // of guests; as before
	quorum    quorumGateways // as before
}

var _ api.Backend = (*Node)(nil)

// New reads and checks everything, and changes nothing.
func New(cfg Config, log *slog.Logger) (*Node, error) {
	first, err := load(cfg)
	if err != nil {
		return nil, err
	}
	return &Node{
		cfg:      cfg,
		log:      log,
		requests: make(chan func(*loop)),
		ended:    make(chan struct{}),
		left:     make(chan struct{}),
		first:    first,
	}, nil
}

// Run is the node until ctx ends, and then stops it: routes and BFD stay for
// a restart unless Config.Withdraw or Down says otherwise. A part that fails
// ends all.
func (n *Node) Run(ctx context.Context) error {
	n.started = time.Now()
	socket, err := api.Listen(n.cfg.Socket) // first of all: only one agent may run
	if err != nil {
		return err
	}
	defer func() { _ = socket.Close() }()
	if err := os.MkdirAll(filepath.Dir(n.cfg.BFDSocket), 0o755); err != nil {
		return fmt.Errorf("make room for the BFD socket: %w", err)
	}
	target, err := kernel.New(n.log)
	if err != nil {
		return fmt.Errorf("open the kernel: %w", err)
	}
	defer func() { _ = target.Close() }()
	n.kernel = target

	// The parts outlive ctx: how they end is decided in order, see stop.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, work := errgroup.WithContext(work)
	links, err := target.Watch(work)
	if err != nil {
		return err
	}
	guests, err := target.WatchOverlay(work)
	if err != nil {
		return err
	}
	rules, err := target.WatchRules(work)
	if err != nil {
		// A kernel without netfilter is good enough for all nodes but exits.
		n.log.Info("changes of source NAT cannot be heard, it is looked at now and then", "error", err)
	}
	guardRules, err := target.WatchRules(work)
	if err != nil {
		n.log.Info("changes of the guard's rules cannot be heard, they are looked at now and then", "error", err)
	}
	requestRules, err := target.WatchRules(work)
	if err != nil {
		n.log.Info("changes of the rules for DHCP requests cannot be heard, they are looked at now and then", "error", err)
	}
	guarding := dataplane.NewGuarding(target, guardRules, n.log)
	requests := dataplane.NewRequests(target, requestRules, n.log)
	plane := dataplane.NewReconciler(target, n.log)
	nat := dataplane.NewNAT(target, rules, n.log)
	way := uplink.New(target, filepath.Join(n.cfg.StateDir, "uplink-lease.json"), n.log)
	overlay := dataplane.NewOverlay(target, n.log)
	discovery := ra.New(n.log)
	liveness := bfd.NewClient(n.cfg.BFDSocket, n.afterward(bfd.Start(n.cfg.Executable, n.cfg.BFDSocket, os.Stderr)), n.log)
	speaker := native.New(bgpPort, n.log)
	speaking, silence := context.WithCancel(work)
	defer silence()
	silent := make(chan struct{})
	leases := store.NewService(n.cfg.Executable, n.cfg.StoreDir, os.Stderr, n.log)
	n.leases = keysBelow{leases, gatewayKeys}
	held := newHeldByEither(target, n.log)
	elected := gateway.New(gateway.Config{
		Node: n.first.plan.Node.Name, Machine: machine(), Timing: gateway.DefaultTiming,
		Store: n.leases, Addresses: held.byStore, Clock: gateway.Boottime,
	}, n.log)
	voting := quorum.New(quorum.Config{
		Node: n.first.plan.Node.Name, Machine: machine(), Dir: filepath.Dir(n.cfg.Socket), Timing: quorum.DefaultTiming, Addresses: held.byLXD, Clock: gateway.Boottime, Wire: quorum.Dial,
	}, n.log)
	voting.Drain(n.wasDrained())
	n.quorum = voting
	lease := newAddressStore(keysBelow{leases, dhcpKeys})
	addresses := dhcp.New(dhcp.Config{
		Node: n.first.plan.Node.Name, Store: lease, Wire: guests, Clock: gateway.Boottime,
	}, n.log)
	n.addresses = addresses
	routers := advertise.New(guests, n.log)
	instances := guest.New(n.log)
	network := api.NewNetwork(n, n.log)
	names := dns.New(n.log)
	holding, letGo := context.WithCancel(work)
	defer letGo()
	free := make(chan struct{})
	l := newLoop(parts{
		plane: plane, discovery: discovery, liveness: liveness, speaker: speaker, overlay: overlay, watch: guests,
		store: leases, elected: elected, quorum: voting, held: held, lease: lease,
		way: way, nat: nat, guard: guarding, advertiser: routers, addresses: addresses, requests: requests, network: network,
		nameServer: names,
		hypervisor: instances,
	}, n.first, n.cfg.PKI, n.log)
	l.guests.sockets = n.cfg.Hypervisors

	n.log.Info("agent starts", "node", n.first.plan.Node.Name, "version", n.cfg.Version, "document", n.cfg.Document)
	group.Go(part(work, "data plane", plane.Run))
	group.Go(part(work, "overlay", overlay.Run))
	group.Go(part(work, "discovery", discovery.Run))
	group.Go(part(work, "BFD", liveness.Run))
	group.Go(part(work, "store", leases.Run))
	group.Go(part(work, "uplink", way.Run))
	group.Go(part(work, "source NAT", nat.Run))
	group.Go(part(work, "guard", guarding.Run))
	group.Go(part(work, "DHCP requests", requests.Run))
	group.Go(part(work, "DHCP", addresses.Run))
	group.Go(part(work, "DNS", names.Run))
	group.Go(part(work, "router advertisements", routers.Run))
	group.Go(part(work, "guests of the hypervisor", instances.Run))
	group.Go(part(work, "API over the network", network.Run))
	group.Go(part(work, "API", func(ctx context.Context) error { return api.ServeOn(ctx, socket, n, n.log) }))
	group.Go(func() error {
		defer close(silent)
		return part(speaking, "BGP", speaker.Run)()
	})
	group.Go(func() error {
		defer close(free)
		electing, holding := errgroup.WithContext(holding)
		electing.Go(part(holding, "elected gateways", elected.Run))
		electing.Go(part(holding, "gateways elected by LXD", voting.Run))
		return electing.Wait()
	})
	group.Go(func() error {
		defer stop()
		withdraw, err := l.run(ctx, work, n.cfg.Withdraw, links, n.requests)
		close(n.ended)
		notifyStopping()
		letGo()
		<-free // the store outlives who keeps leases in it
		if !withdraw {
			return err
		}
		silence()
		<-silent
		n.leaveErr = l.leave()
		close(n.left)
		return n.leaveErr
	})
	err = group.Wait()
	n.log.Info("agent ended")
	return err
}

// firstWays is how long a node that starts has the processor for what finds its
// ways, before what watches them begins. Where a whole rack starts on one
// machine, to begin all of it at once takes a fifth longer.
const firstWays = time.Second

// afterward has something be started when the node had its time. What runs still
// from the run before is not concerned.
func (n *Node) afterward(start func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-time.After(time.Until(n.started.Add(firstWays))):
			return start(ctx)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// part runs until ctx ends; to end earlier is an error, which it names.
func part(ctx context.Context, name string, run func(context.Context) error) func() error {
	return func() error {
		err := run(ctx)
		switch {
		case err == nil && ctx.Err() == nil:
			return fmt.Errorf("%s ended by itself", name)
		case err == nil || errors.Is(err, context.Canceled):
			return nil
		}
		return fmt.Errorf("%s: %w", name, err)
	}
}

// ask has the loop run f and waits for it. It tells false if it never will:
// the loop has ended, or ctx has.
func (n *Node) ask(ctx context.Context, f func(*loop)) bool {
	done := make(chan struct{})
	request := func(l *loop) {
		defer close(done)
		f(l)
	}
	select {
	case n.requests <- request:
		<-done
		return true
	case <-n.ended:
		return false
	case <-ctx.Done():
		return false
	}
}

// Down withdraws everything from peers and kernel and ends Run. It returns
// when all is withdrawn.
func (n *Node) Down(ctx context.Context) error {
	if !n.ask(ctx, (*loop).beginLeaving) {
		return errStopping(ctx)
	}
	select {
	case <-n.left:
		return n.leaveErr
	case <-ctx.Done():
		return fmt.Errorf("withdraw: %w", ctx.Err())
	}
}

func errStopping(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("ask the agent: %w", err)
	}
	return errors.New("the agent is stopping")
}

// Status says how the node is.
func (n *Node) Status() status.Snapshot {
	s := status.Snapshot{Node: n.cfg.Node}
	n.ask(context.Background(), func(l *loop) { s = l.snapshot(time.Now()) })
	s.Version, s.PID, s.Started, s.Engine = n.cfg.Version, os.Getpid(), n.started, "native"
	return s
}
