package crowd

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"frond/internal/bfd"
	"frond/internal/bgp"
	"frond/internal/bgp/native"
	"frond/internal/dataplane"
	"frond/internal/fabric"
	"frond/internal/kernel"
	"frond/internal/netns"
	"frond/internal/plan"
	"frond/internal/ra"
)

const (
	size     = 3
	document = `fabric: crowd
underlay: {loopbacks: [10.0.0.0/16], ports: ["eth*"]}
nodes:
  spine1: {role: spine, loopback: 10.0.254.1}
  leaf1: {loopback: 10.0.200.1}
  leaf2: {loopback: 10.0.200.2}
  leaf3: {loopback: 10.0.200.3}
segments:
  blue: {vni: 100, nodes: ["leaf*"], prefix: 172.16.0.0/16}
`
)

// roleVariable has the test binary be a program of its own in a namespace.
const roleVariable = "FROND_CROWD_TEST"

func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case len(os.Args) == 4 && os.Args[1] == "bfd":
		err = bfd.Serve(ctx, os.Args[3], slog.New(slog.DiscardHandler))
	case os.Getenv(roleVariable) == "crowd":
		err = beCrowd(ctx, os.Args[1])
	case os.Getenv(roleVariable) == "spine":
		err = beSpine(ctx, os.Args[1])
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func beCrowd(ctx context.Context, file string) error {
	f, err := fabric.Load(file)
	if err != nil {
		return err
	}
	return Run(ctx, Config{
		Document: f, Size: size, Executable: os.Args[0], BFDSocket: file + ".bfd",
		Tell: func(what string) { fmt.Println(what) },
	}, slog.New(slog.NewTextHandler(os.Stderr, nil)))
}

// beSpine speaks to whoever it finds.
func beSpine(ctx context.Context, file string) error {
	f, err := fabric.Load(file)
	if err != nil {
		return err
	}
	p, err := plan.For(f, "spine1")
	if err != nil {
		return err
	}
	k, err := kernel.New(slog.Default())
	if err != nil {
		return err
	}
	links, err := k.Watch(ctx)
	if err != nil {
		return err
	}
	discovery := ra.New(slog.Default())
	speaker := native.New(netip.MustParseAddrPort("[::]:179"), slog.Default())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return discovery.Run(ctx) })
	group.Go(func() error { return speaker.Run(ctx) })
	group.Go(func() error {
		legs := map[string]dataplane.NextHop{}
		for {
			select {
			case <-ctx.Done():
				return nil
			case event := <-speaker.Events():
				if paths, ok := event.(bgp.PathsChanged); ok && len(paths.Unicast) > 0 {
					speaker.Applied()
				}
			case event := <-links:
				discovery.SetPorts(portsOf(event))
			case n := <-discovery.Events():
				if len(n.Neighbors) > 0 {
					legs[n.Port] = dataplane.NextHop{Port: n.Port, Via: n.Neighbors[0].Addr}
				}
				var all []dataplane.NextHop
				for _, leg := range legs {
					all = append(all, leg)
				}
				if err := speaker.Set(p.BGP(p.Peers(all), bgp.GracefulRestart{})); err != nil {
					return err
				}
			}
		}
	})
	return group.Wait()
}

func portsOf(event dataplane.Event) (ports []ra.Port) {
	changed, _ := event.(dataplane.LinksChanged)
	for name, link := range changed.Links {
		if mac, err := net.ParseMAC(link.MAC); err == nil && strings.HasPrefix(name, "eth") && link.LinkLocal.IsValid() {
			ports = append(ports, ra.Port{Name: name, Index: link.Index, Addr: link.LinkLocal, MAC: mac})
		}
	}
	return ports
}

// TestCrowd has a spine tell each leaf of all others.
func TestCrowd(t *testing.T) {
	file := filepath.Join(t.TempDir(), "fabric.yaml")
	if err := os.WriteFile(file, []byte(document), 0o644); err != nil {
		t.Fatal(err)
	}
	leafs, spine := namespace(t, "leafs"), namespace(t, "spine")
	for i := range size {
		port := fmt.Sprintf("eth%d", i+1)
		ip(t, "-n", leafs, "link", "add", port, "type", "veth", "peer", "name", port, "netns", spine)
		ip(t, "-n", leafs, "link", "set", port, "up")
		ip(t, "-n", spine, "link", "set", port, "up")
	}
	crowd := begin(t, leafs, "crowd", file)
	crowd.says(t, Ready)
	begin(t, spine, "spine", file)
	crowd.says(t, Whole)
}

func TestHeardAll(t *testing.T) {
	prefix := netip.MustParsePrefix("10.0.200.2/32")
	way := []bgp.Path{{Peer: netip.MustParseAddr("fe80::1%eth1")}}
	h := heard{prefixes: map[netip.Prefix]struct{}{}, evpn: map[string]struct{}{}, allPrefixes: 1, allEVPN: 1}
	for _, step := range []struct {
		what string
		told bgp.PathsChanged
		want bool
	}{
		{"its own", bgp.PathsChanged{Unicast: []bgp.Paths{{Prefix: netip.MustParsePrefix("10.0.200.1/32"), Local: true}}}, false},
		{"a prefix", bgp.PathsChanged{Unicast: []bgp.Paths{{Prefix: prefix, Paths: way}}}, false},
		{"a flood", bgp.PathsChanged{EVPN: []bgp.EVPNPath{{Key: "a"}}}, true},
		{"the prefix is gone", bgp.PathsChanged{Unicast: []bgp.Paths{{Prefix: prefix}}}, false},
		{"and back", bgp.PathsChanged{Unicast: []bgp.Paths{{Prefix: prefix, Paths: way}}}, true},
		{"the flood is gone", bgp.PathsChanged{EVPN: []bgp.EVPNPath{{Key: "a", Gone: true}}}, false},
	} {
		if h.take(step.told); h.all() != step.want {
			t.Errorf("%s: all are heard: %v, want %v", step.what, h.all(), step.want)
		}
	}
}

type process struct{ lines chan string }

// begin runs the test binary in a namespace until the test ends.
func begin(t *testing.T, namespace, role, file string) process {
	t.Helper()
	ns, err := netns.Open(namespace)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	cmd := exec.Command(os.Args[0], file)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	p := process{make(chan string)}
	go func() {
		defer close(p.lines)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.lines <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		for range p.lines { // until it has ended
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s ended: %v", role, err)
		}
	})
	return p
}

func (p process) says(t *testing.T, want string) {
	t.Helper()
	select {
	case got, ok := <-p.lines:
		if got != want {
			t.Fatalf("it says %q (and goes on: %v), want %q", got, ok, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("it does not say %q", want)
	}
}

func namespace(t *testing.T, purpose string) string {
	t.Helper()
	name := fmt.Sprintf("crowd-%d-%s", os.Getpid(), purpose)
	if err := netns.Create(name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		killAll(t, name)
		if err := netns.Delete(name); err != nil {
			t.Error(err)
		}
	})
	return name
}

// killAll ends what the crowd has left: its BFD process outlives it.
func killAll(t *testing.T, namespace string) {
	t.Helper()
	out, err := exec.Command("ip", "netns", "pids", namespace).Output()
	if err != nil {
		t.Error(err)
	}
	for _, pid := range strings.Fields(string(out)) {
		_ = exec.Command("kill", pid).Run()
	}
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}
