package store

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"frond/internal/pki"
)

// The test binary is three programs: outside it makes a network namespace and
// runs itself in there, inside it is the tests, which are the clients of the
// store; and each member's process is it once more, in a namespace of its own.
const (
	role       = "FROND_STORE_TEST"
	inside     = "inside"
	memberRole = "member"
)

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case memberRole:
		log := slog.New(slog.NewTextHandler(os.Stderr, nil))
		if err := ServeMember(context.Background(), os.Stdin, os.Stdout, log); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	case inside:
		goleak.VerifyTestMain(m)
	default:
		os.Exit(runInside())
	}
}

func runInside() int {
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Env = append(os.Environ(), role+"="+inside)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "tests inside a network namespace:", err)
		return 1
	}
	return 0
}

func ip(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// machine is a namespace with a member in it, cabled to the tests' bridge.
type machine struct {
	Peer
	netns, cable string
	dir          string // of the member's data
	pki          string // where its files are
	member       *Member
	stop         func() // and wait
}

// cluster is some machines and a client.
type cluster struct {
	t        testing.TB
	machines []*machine
	log      *slog.Logger
	logged   *buffer
}

// buffer is a log that may be written by many and read afterwards.
type buffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// newCluster makes machines with certificates, on which nothing runs.
func newCluster(t testing.TB, size int) *cluster {
	t.Helper()
	c := &cluster{t: t, logged: &buffer{}}
	c.log = slog.New(slog.NewTextHandler(c.logged, nil))
	ip(t, "link", "set", "lo", "up")
	ip(t, "link", "add", "name", "br0", "type", "bridge")
	ip(t, "link", "set", "br0", "up")
	ip(t, "addr", "add", "10.77.0.254/24", "dev", "br0")
	t.Cleanup(func() {
		ip(t, "link", "del", "br0")
		if t.Failed() {
			t.Log(c.logged.String())
		}
	})
	dir := t.TempDir()
	if _, err := pki.Init(dir, "test", time.Now()); err != nil {
		t.Fatal(err)
	}
	for i := range size {
		name := string(rune('a' + i))
		m := &machine{
			Peer:  Peer{name, netip.AddrFrom4([4]byte{10, 77, 0, byte(i + 1)})},
			netns: fmt.Sprintf("store%d-%s", os.Getpid(), name), cable: "v" + name,
			dir: filepath.Join(t.TempDir(), "store"), pki: dir,
		}
		ip(t, "netns", "add", m.netns)
		t.Cleanup(func() { ip(t, "netns", "del", m.netns) })
		ip(t, "link", "add", m.cable, "type", "veth", "peer", "name", "eth0", "netns", m.netns)
		t.Cleanup(func() { ip(t, "link", "del", m.cable) }) // at once: a namespace takes its own time to go
		ip(t, "link", "set", m.cable, "master", "br0", "up")
		ip(t, "-n", m.netns, "link", "set", "lo", "up")
		ip(t, "-n", m.netns, "addr", "add", m.Address.String()+"/24", "dev", "eth0")
		ip(t, "-n", m.netns, "addr", "add", netip.AddrFrom4([4]byte{10, 78, 0, byte(i + 1)}).String()+"/24", "dev", "eth0")
		ip(t, "-n", m.netns, "link", "set", "eth0", "up")
		if _, err := pki.Issue(dir, pki.Node{Name: name, Addresses: []netip.Addr{m.Address}}, time.Now()); err != nil {
			t.Fatal(err)
		}
		c.machines = append(c.machines, m)
	}
	return c
}

func (c *cluster) peers() []Peer {
	var peers []Peer
	for _, m := range c.machines {
		peers = append(peers, m.Peer)
	}
	return peers
}

func (c *cluster) config(m *machine) MemberConfig {
	return MemberConfig{Fabric: "test", Name: m.Name, Members: c.peers(), Dir: m.dir, Files: pki.FilesIn(m.pki, m.Name)}
}

// start runs a machine's member.
func (c *cluster) start(m *machine) {
	ctx, cancel := context.WithCancel(context.Background())
	m.member = NewMember(func() *exec.Cmd {
		cmd := exec.Command("ip", "netns", "exec", m.netns, os.Args[0])
		cmd.Env = append(os.Environ(), role+"="+memberRole)
		return cmd
	}, c.config(m), c.logged, c.log)
	var running sync.WaitGroup
	running.Go(func() { _ = m.member.Run(ctx) })
	m.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	c.t.Cleanup(m.stop)
}

// kill ends a member's process at once; its agent's side starts it again.
func (m *machine) kill(t testing.TB) {
	t.Helper()
	if err := syscall.Kill(m.member.Report().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) startAll() {
	c.t.Helper()
	for _, m := range c.machines {
		c.start(m)
	}
	c.serving(c.machines...)
}

func (c *cluster) serving(machines ...*machine) {
	c.t.Helper()
	for _, m := range machines {
		c.until(m.Name+" serves", func() bool { return m.member.Report().State == Serving })
		c.until("the cable to "+m.Name+" carries", func() bool {
			conn, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", m.Address, ClientPort), 100*time.Millisecond)
			if err == nil {
				_ = conn.Close()
			}
			return err == nil
		})
	}
}

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

func (c *cluster) until(what string, is func() bool) {
	c.t.Helper()
	deadline := time.Now().Add(patience)
	for !is() {
		if time.Now().After(deadline) {
			for _, m := range c.machines {
				if m.member != nil {
					c.t.Logf("%s: %+v", m.Name, m.member.Report())
				}
			}
			c.t.Fatalf("it is not so: %s", what)
		}
		pause(context.Background(), 10*time.Millisecond)
	}
}

// client is one with a watchful Run, closed at the test's end.
func (c *cluster) client(pki string) *Client {
	c.t.Helper()
	client := c.open(pki)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = client.Run(ctx) })
	c.t.Cleanup(func() { cancel(); running.Wait() })
	return client
}

func (c *cluster) open(dir string) *Client {
	c.t.Helper()
	config, err := pki.FilesIn(dir, "a").Client(time.Now())
	if err != nil {
		c.t.Fatal(err)
	}
	client, err := Open(ClientConfig{Endpoints: Endpoints(c.peers()), Prefix: Prefix("test"), TLS: config, Log: c.log})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(client.Close)
	return client
}

// leader waits until all see the same one.
func (c *cluster) leader(client *Client) *machine {
	c.t.Helper()
	var found *machine
	c.until("there is a leader", func() bool {
		h := client.Look(context.Background())
		for _, m := range c.machines {
			if m.Name == h.Leader {
				found = m
			}
		}
		return h.Leader != ""
	})
	return found
}

// writes writes a key of its own again and again until it is told to stop, and
// then gives the longest time between two that succeeded.
func writes(client *Client, key string) (stop func() (count int, longest time.Duration)) {
	ctx, cancel := context.WithCancel(context.Background())
	var writer sync.WaitGroup
	count, longest := 0, time.Duration(0)
	writer.Go(func() {
		last := time.Now()
		var e Entry
		for ctx.Err() == nil {
			var err error
			if e.Key == "" {
				e, err = client.Create(ctx, key, []byte("0"), nil)
			} else {
				e, err = client.Update(ctx, e, fmt.Append(nil, count), nil)
			}
			if err == nil {
				count++
				longest = max(longest, time.Since(last))
				last = time.Now()
			} else {
				e, _ = client.Get(ctx, key) // it may have been written all the same
			}
			pause(ctx, 5*time.Millisecond)
		}
	})
	return func() (int, time.Duration) {
		cancel()
		writer.Wait()
		return count, longest
	}
}
