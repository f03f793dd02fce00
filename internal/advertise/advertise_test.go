package advertise

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"frond/internal/netns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// host is a network namespace. The tests need root for it.
type host struct {
	t    *testing.T
	ns   *netns.NS
	name string
}

var hosts atomic.Int32

func newHost(t *testing.T) *host {
	t.Helper()
	name := fmt.Sprintf("adv-%d-%d", os.Getpid(), hosts.Add(1))
	must(t, netns.Create(name))
	t.Cleanup(func() { must(t, netns.Delete(name)) })
	ns, err := netns.Open(name)
	must(t, err)
	t.Cleanup(func() { must(t, ns.Close()) })
	return &host{t, ns, name}
}

func (h *host) run(command string) string {
	h.t.Helper()
	var out []byte
	err := h.ns.Do(func() (err error) {
		out, err = exec.Command("sh", "-ec", command).CombinedOutput()
		return err
	})
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

func (h *host) link(name string) Link {
	h.t.Helper()
	var index int
	_, err := fmt.Sscan(h.run("cat /sys/class/net/"+name+"/ifindex 2>/dev/null || ip -o link show dev "+name+" | cut -d: -f1"), &index)
	must(h.t, err)
	return Link{name, index}
}

// plug cables a host's eth0 to a port of the switch's bridge.
func (h *host) plug(sw *host, port string) {
	h.t.Helper()
	sw.run(fmt.Sprintf("ip link add %s type veth peer name eth0 netns %s; ip link set %s master br0 up", port, h.name, port))
	h.run("sysctl -qw net.ipv6.conf.eth0.accept_dad=0 net.ipv6.conf.eth0.accept_ra=1; ip link set eth0 up")
}

// newSwitch is a node with a bridge.
func newSwitch(t *testing.T) *host {
	h := newHost(t)
	h.run("ip link add br0 type bridge mcast_snooping 0; sysctl -qw net.ipv6.conf.br0.disable_ipv6=1; ip link set br0 up")
	return h
}

// advertise runs an Advertiser on a host for the length of the test.
func (h *host) advertise() (a *Advertiser, stop func()) {
	h.t.Helper()
	a = New(slog.New(slog.NewTextHandler(h.t.Output(), nil)))
	a.open = func(link Link) (s *socket, err error) {
		if doErr := h.ns.Do(func() error {
			s, err = openSocket(link)
			return nil
		}); doErr != nil {
			return nil, doErr
		}
		return s, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cancel()
			must(h.t, <-done)
		}
	}
	h.t.Cleanup(stop)
	return a, stop
}

// patience ends a test that has failed; it is no measure of speed.
const patience = 20 * time.Second

func (h *host) eventually(what, command string, fits func(out string) bool) {
	h.t.Helper()
	var out string
	for limit := time.Now().Add(patience); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		if out = h.run(command); fits(out) {
			return
		}
	}
	h.t.Fatalf("%s: %s gives\n%s", what, command, out)
}

const (
	defaultRoute = "ip -6 route show default"
	ownAddresses = "ip -6 addr show dev eth0 scope global"
)

func has(parts ...string) func(string) bool {
	return func(out string) bool {
		for _, p := range parts {
			if !strings.Contains(out, p) {
				return false
			}
		}
		return true
	}
}

func empty(out string) bool { return strings.TrimSpace(out) == "" }

// advertisements counts those that pass an interface of a host, until the
// function that it returns is called.
func (h *host) advertisements(link, which string) func() int {
	h.t.Helper()
	var command *exec.Cmd
	var out bytes.Buffer
	started := make(chan struct{})
	must(h.t, h.ns.Do(func() error {
		command = exec.Command("tcpdump", "-lnni", link, "--immediate-mode", "icmp6 and ip6[40] == 134"+which)
		command.Stdout = &out
		command.Stderr = &signalling{started: started}
		return command.Start()
	}))
	select {
	case <-started:
	case <-time.After(patience):
		h.t.Fatal("tcpdump does not begin")
	}
	return func() int {
		must(h.t, command.Process.Signal(unix.SIGINT))
		must(h.t, command.Wait())
		return strings.Count(out.String(), "router advertisement")
	}
}

// signalling tells when something was written that says "listening".
type signalling struct {
	started chan struct{}
	text    []byte
}

func (s *signalling) Write(b []byte) (int, error) {
	before := bytes.Contains(s.text, []byte("listening on"))
	s.text = append(s.text, b...)
	if !before && bytes.Contains(s.text, []byte("listening on")) {
		close(s.started)
	}
	return len(b), nil
}

// Two guests configure themselves; nothing reaches the port that stands for
// the fabric, though the bridge floods to it.
func TestGuestsConfigureThemselves(t *testing.T) {
	t.Parallel()
	sw, fabric := newSwitch(t), newHost(t)
	fabric.plug(sw, "vx")
	g1, g2 := newHost(t), newHost(t)
	g1.plug(sw, "tap1")
	a, stop := sw.advertise()
	crossed, heard := fabric.advertisements("eth0", ""), g1.advertisements("eth0", "")
	r := testRouter
	r.Links = []Link{sw.link("tap1")}
	a.Set([]Router{r})
	g1.eventually("the first guest", ownAddresses, has("fd00:1:", "/64"))
	g1.eventually("the first guest", defaultRoute, has("via fe80::68:ff:fe00:64 dev eth0", "mtu 1450"))

	g2.plug(sw, "tap2")
	r.Links = append(r.Links, sw.link("tap2"))
	a.Set([]Router{r})
	g2.eventually("the second guest", defaultRoute, has("via fe80::68:ff:fe00:64"))

	t.Run("another prefix", func(*testing.T) {
		changed := r
		changed.Prefix = netip.MustParsePrefix("fd00:2::/64")
		a.Set([]Router{changed})
		g1.eventually("the new one", ownAddresses, has("fd00:2:"))
		g1.eventually("the old one", ownAddresses, has("deprecated"))
	})
	t.Run("restart", func(t *testing.T) {
		stop()
		if out := g1.run(defaultRoute); empty(out) {
			t.Error("the guest has lost its router")
		}
	})
	again, _ := sw.advertise()
	r.MTU = 1400
	again.Set([]Router{r})
	g1.eventually("another MTU", defaultRoute, has("mtu 1400"))
	g2.eventually("another MTU", defaultRoute, has("mtu 1400"))
	again.Set(nil)
	for _, g := range []*host{g1, g2} {
		g.eventually("without a router", defaultRoute, empty)
	}
	if n := heard(); n < 4 {
		t.Errorf("the guest has heard %d advertisements", n)
	}
	if n := crossed(); n != 0 {
		t.Errorf("%d advertisements have crossed the fabric", n)
	}
}

// A guest that asks is answered, and nobody else need listen.
func TestSolicitation(t *testing.T) {
	t.Parallel()
	sw, g := newSwitch(t), newHost(t)
	g.plug(sw, "tap1")
	a, _ := sw.advertise()
	r := testRouter
	r.Links = []Link{sw.link("tap1")}
	a.Set([]Router{r})
	g.eventually("at first", defaultRoute, has("fe80::68"))
	answers := sw.advertisements("tap1", " and not ip6 dst ff02::1")
	g.run("sysctl -qw net.ipv6.conf.eth0.router_solicitation_delay=0; ip link set eth0 down; ip link set eth0 up")
	g.eventually("after it was down", defaultRoute, has("fe80::68"))
	if n := answers(); n == 0 {
		t.Error("the guest has found its router, but was not answered")
	}
}

// An elected gateway is told on the bridge, to all; who loses it says nothing.
func TestSharedRouter(t *testing.T) {
	t.Parallel()
	sw, far := newSwitch(t), newHost(t)
	far.plug(sw, "vx")
	a, _ := sw.advertise()
	r := testRouter
	r.Shared, r.Links = true, []Link{sw.link("br0")}
	a.Set([]Router{r})
	far.eventually("far away", defaultRoute, has("fe80::68"))
	lost := r
	lost.Links = nil
	a.Set([]Router{lost})
	a.Set([]Router{r})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, a.Withdraw(ctx))
	if out := far.run(defaultRoute); empty(out) {
		t.Error("the guest has lost its router, which another node has next")
	}
}

func TestWithdraw(t *testing.T) {
	t.Parallel()
	sw, g := newSwitch(t), newHost(t)
	g.plug(sw, "tap1")
	a, _ := sw.advertise()
	r := testRouter
	r.Links = []Link{sw.link("tap1"), {Name: "gone", Index: 4711}}
	a.Set([]Router{r})
	g.eventually("before", defaultRoute, has("fe80::68"))
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, a.Withdraw(ctx))
	g.eventually("after", defaultRoute, empty)
	a.Set([]Router{r})
	must(t, a.Withdraw(ctx))
	if out := g.run(defaultRoute); !empty(out) {
		t.Errorf("there is a router again: %s", out)
	}
}
