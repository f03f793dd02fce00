package probe_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"frond/internal/netns"
	"frond/internal/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	addr4 = [2]netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")}
	addr6 = [2]netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")}
)

// pair returns two namespaces with a veth pair, x, between them.
func pair(t *testing.T) (ns [2]*netns.NS) {
	t.Helper()
	for i := range ns {
		name := fmt.Sprintf("probe-%d-%s-%d", os.Getpid(), strings.ToLower(t.Name()), i)
		if err := netns.Create(name); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = netns.Delete(name) })
		var err error
		if ns[i], err = netns.Open(name); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ns[i].Close() })
	}
	run(t, "ip", "-n", ns[0].Name(), "link", "add", "x", "type", "veth", "peer", "name", "x", "netns", ns[1].Name())
	for i := range ns {
		run(t, "ip", "-n", ns[i].Name(), "address", "add", addr4[i].String()+"/24", "dev", "x")
		run(t, "ip", "-n", ns[i].Name(), "address", "add", addr6[i].String()+"/64", "dev", "x", "nodad")
		run(t, "ip", "-n", ns[i].Name(), "link", "set", "x", "up")
	}
	return ns
}

func run(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
}

func TestProbeLosesNothing(t *testing.T) {
	t.Parallel()
	ns := pair(t)
	for _, addr := range [][2]netip.Addr{addr4, addr6} {
		p, err := probe.Start(t.Context(), probe.Config{From: ns[0], To: ns[1], FromAddr: addr[0], ToAddr: addr[1], Flows: 8, Rate: 1000})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(300 * ms)
		r := p.Stop()
		if r.Sent() == 0 || r.Lost() != 0 || r.Worst().Outage != 0 || len(r.Flows) != 16 {
			t.Errorf("%v: sent %d, lost %d, %d flows, worst: %s", addr, r.Sent(), r.Lost(), len(r.Flows), r.Worst())
		}
		ports := map[netip.AddrPort]bool{}
		for _, f := range r.Flows {
			ports[f.Src] = true
		}
		if len(ports) != 16 {
			t.Errorf("%d distinct sources; want 16", len(ports))
		}
	}
}

// TestProbeCountsLosses compares with nftables' own count of what it dropped.
func TestProbeCountsLosses(t *testing.T) {
	t.Parallel()
	ns := pair(t)
	p, err := probe.Start(t.Context(), probe.Config{From: ns[0], To: ns[1], FromAddr: addr4[0], ToAddr: addr4[1], Flows: 2, Rate: 500})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop()
	time.Sleep(50 * ms)
	inside := func(argv ...string) string {
		cmd := exec.Command(argv[0], argv[1:]...)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := ns[1].Start(cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %v: %s", argv, err, out.String())
		}
		return out.String()
	}
	inside("nft", "table netdev t { chain c { type filter hook ingress device x priority 0; meta l4proto udp counter drop; }; }")
	time.Sleep(100 * ms)
	inside("nft", "chain netdev t c { type filter hook ingress device x priority 0; policy accept; }; insert rule netdev t c accept")
	time.Sleep(50 * ms)
	r := p.Stop()
	listing := inside("nft", "list", "table", "netdev", "t")
	if want := fmt.Sprintf("counter packets %d ", r.Lost()); r.Lost() == 0 || !strings.Contains(listing, want) {
		t.Errorf("lost %d; nftables says\n%s", r.Lost(), listing)
	}
	for i, f := range r.Flows {
		if back := i%2 == 1; back != (f.Lost == 0) || back != (f.Outage == 0) {
			t.Errorf("flow %d: %s; only there, not back, was dropped", i, f)
		}
	}
}

const ms = time.Millisecond

func TestProbeEndsWithContext(t *testing.T) {
	t.Parallel()
	ns := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	p, err := probe.Start(ctx, probe.Config{From: ns[0], To: ns[1], FromAddr: addr4[0], ToAddr: addr4[1], Flows: 1, Rate: 10})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if a, b := p.Stop(), p.Stop(); a.Sent() != b.Sent() {
		t.Errorf("Stop twice: %d and %d sent", a.Sent(), b.Sent())
	}
}

func TestProbeRefuses(t *testing.T) {
	ns := new(netns.NS)
	good := probe.Config{From: ns, To: ns, FromAddr: addr4[0], ToAddr: addr4[1], Flows: 1, Rate: 1}
	for name, change := range map[string]func(*probe.Config){
		"no namespace":     func(c *probe.Config) { c.From = nil },
		"no address":       func(c *probe.Config) { c.FromAddr = netip.Addr{} },
		"mixed families":   func(c *probe.Config) { c.ToAddr = addr6[1] },
		"no flow":          func(c *probe.Config) { c.Flows = 0 },
		"too many flows":   func(c *probe.Config) { c.Flows = probe.MaxFlows + 1 },
		"no packet":        func(c *probe.Config) { c.Rate = 0 },
		"too many packets": func(c *probe.Config) { c.Rate = probe.MaxRate + 1 },
	} {
		cfg := good
		change(&cfg)
		if _, err := probe.Start(t.Context(), cfg); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}

func TestReach(t *testing.T) {
	t.Parallel()
	ns := pair(t)
	run(t, "ip", "-n", ns[1].Name(), "address", "add", "10.9.9.9/32", "dev", "x") // no way there
	silent := netip.MustParseAddr("10.9.9.9")
	hosts := []probe.Host{
		{Name: "a4", NS: ns[0], Addr: addr4[0]}, {Name: "b4", NS: ns[1], Addr: addr4[1]},
		{Name: "a6", NS: ns[0], Addr: addr6[0]}, {Name: "b6", NS: ns[1], Addr: addr6[1]},
	}
	rounds := probe.Reach(t.Context(), hosts)
	if len(rounds) != 4 {
		t.Fatalf("%v; want 4 rounds", rounds)
	}
	for _, r := range rounds {
		if !r.Answered || r.Time <= 0 {
			t.Errorf("%s → %s: %+v", r.From.Name, r.To.Name, r)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*ms)
	defer cancel()
	rounds = probe.Reach(ctx, []probe.Host{hosts[0], {Name: "silent", NS: ns[1], Addr: silent}})
	if len(rounds) != 2 || rounds[0].Answered || rounds[0].Err != nil {
		t.Errorf("%+v; want no answer from %s", rounds, silent)
	}
	absent := probe.Host{Name: "absent", NS: ns[0], Addr: netip.MustParseAddr("10.0.0.9")}
	rounds = probe.Reach(t.Context(), []probe.Host{hosts[1], absent})
	for _, r := range rounds {
		if r.Answered || !errors.Is(r.Err, unix.EADDRNOTAVAIL) {
			t.Errorf("%+v; want that %s is not there", r, absent.Addr)
		}
	}
}

func TestBandwidth(t *testing.T) {
	t.Parallel()
	ns := pair(t)
	a, b := probe.Host{NS: ns[0], Addr: addr6[0]}, probe.Host{NS: ns[1], Addr: addr6[1]}
	got, err := probe.Bandwidth(t.Context(), a, b, 4, 200*ms)
	if err != nil || got.BitsPerSecond() < 1e6 {
		t.Errorf("%v bit/s, %v", got.BitsPerSecond(), err)
	}
	a.Addr = netip.MustParseAddr("fd00::9")
	if _, err := probe.Bandwidth(t.Context(), a, b, 1, ms); err == nil {
		t.Error("sent from an address that is not there")
	}
}

func TestPackets(t *testing.T) {
	t.Parallel()
	ns := pair(t)
	a, b := probe.Host{NS: ns[0], Addr: addr6[0]}, probe.Host{NS: ns[1], Addr: addr6[1]}
	got, err := probe.Packets(t.Context(), a, b, 64, 200*ms)
	if err != nil || got < 100 {
		t.Errorf("%v packets/s, %v", got, err)
	}
	a.Addr = netip.MustParseAddr("fd00::9")
	if _, err := probe.Packets(t.Context(), a, b, 64, ms); err == nil {
		t.Error("sent from an address that is not there")
	}
}
