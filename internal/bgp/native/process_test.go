package native

import (
	"context"
	"encoding/gob"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"

	seam "frond/internal/bgp"
	"frond/internal/netns"
)

// A speaker needs a network namespace of its own, and a Go process has one
// at most: so the tests run each speaker in a process, which is this very
// test binary, and talk to it by gob over its standard input and output.
const speakerProcess = "FROND_TEST_SPEAKER"

func TestMain(m *testing.M) {
	gob.Register(seam.PeerChanged{})
	gob.Register(seam.PathsChanged{})
	gob.Register(seam.Converged{})
	gob.Register(&except{})
	if os.Getenv(speakerProcess) != "" {
		serveSpeaker()
		return
	}
	os.Exit(m.Run())
}

func serveSpeaker() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	s := New(netip.MustParseAddrPort("[::]:179"), slog.New(slog.NewTextHandler(os.Stderr, nil)))
	s.ban = 2 * time.Second
	go func() {
		in := gob.NewDecoder(os.Stdin)
		for {
			var d seam.Desired
			if in.Decode(&d) != nil {
				return
			}
			if err := s.Set(d); err != nil {
				fmt.Fprintln(os.Stderr, "set:", err)
			}
		}
	}()
	go func() {
		out := gob.NewEncoder(os.Stdout)
		for e := range s.Events() {
			if out.Encode(&e) != nil {
				return
			}
			if p, ok := e.(seam.PathsChanged); ok && len(p.Unicast) > 0 {
				s.Applied()
			}
		}
	}()
	others := goleak.IgnoreCurrent()
	err := s.Run(ctx)
	if err == nil {
		err = goleak.Find(others)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
		os.Exit(1)
	}
}

// speaker is a speaker process in a namespace and what it has told.
type speaker struct {
	t    testing.TB
	cmd  *exec.Cmd
	in   *gob.Encoder
	pipe io.Closer

	mu        sync.Mutex
	changed   chan struct{} // closed and made anew at each event
	peers     map[netip.Addr]seam.PeerStatus
	paths     map[netip.Prefix]seam.Paths
	evpn      map[string]seam.EVPNPath
	converged bool
	history   []seam.Paths
	withdrawn int
}

func startSpeaker(t testing.TB, ns *netns.NS, d seam.Desired) *speaker {
	t.Helper()
	s := &speaker{
		t: t, changed: make(chan struct{}),
		peers: make(map[netip.Addr]seam.PeerStatus),
		paths: make(map[netip.Prefix]seam.Paths),
		evpn:  make(map[string]seam.EVPNPath),
	}
	s.cmd = exec.Command(os.Args[0])
	s.cmd.Env = append(os.Environ(), speakerProcess+"=1")
	s.cmd.Stderr = logWriter{t, ns.Name()}
	in, err := s.cmd.StdinPipe()
	must(t, err)
	out, err := s.cmd.StdoutPipe()
	must(t, err)
	must(t, ns.Start(s.cmd))
	s.in, s.pipe = gob.NewEncoder(in), in
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.read(gob.NewDecoder(out))
	}()
	t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		<-done
		_ = s.cmd.Wait()
	})
	s.set(d)
	return s
}

func (s *speaker) read(in *gob.Decoder) {
	for {
		var e seam.Event
		if in.Decode(&e) != nil {
			return
		}
		s.mu.Lock()
		switch e := e.(type) {
		case seam.PeerChanged:
			s.peers[e.Peer.Addr] = e.Peer
			if e.Gone {
				delete(s.peers, e.Peer.Addr)
			}
		case seam.PathsChanged:
			for _, p := range e.Unicast {
				s.paths[p.Prefix] = p
				if len(s.history) < 10_000 {
					s.history = append(s.history, p)
				}
				if len(p.Paths) == 0 && !p.Local {
					s.withdrawn++
				}
			}
			for _, p := range e.EVPN {
				s.evpn[p.Key] = p
			}
		case seam.Converged:
			s.converged = true
		}
		close(s.changed)
		s.changed = make(chan struct{})
		s.mu.Unlock()
	}
}

func (s *speaker) set(d seam.Desired) {
	s.t.Helper()
	must(s.t, s.in.Encode(d))
}

// signal sends a signal to the process; after SIGTERM and SIGKILL it waits
// for its end, which after SIGTERM must be a clean one.
func (s *speaker) signal(sig syscall.Signal) {
	s.t.Helper()
	must(s.t, s.cmd.Process.Signal(sig))
	if sig == syscall.SIGTERM || sig == syscall.SIGKILL {
		state, err := s.cmd.Process.Wait()
		must(s.t, err)
		if sig == syscall.SIGTERM && !state.Success() {
			s.t.Errorf("it ended badly: %s", state)
		}
	}
}

// usage returns the CPU seconds and the resident MiB of the process.
func (s *speaker) usage() (cpu, rss float64) {
	s.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.cmd.Process.Pid))
	must(s.t, err)
	fields := strings.Fields(string(stat)[strings.LastIndex(string(stat), ")")+1:])
	number := func(i int) float64 {
		n, err := strconv.ParseFloat(fields[i], 64)
		must(s.t, err)
		return n
	}
	const ticksPerSecond, page = 100, 4096
	return (number(11) + number(12)) / ticksPerSecond, number(21) * page / (1 << 20)
}

// eventually waits until what it has told satisfies ok.
func (s *speaker) eventually(what string, ok func() bool) {
	s.t.Helper()
	limit := time.After(60 * time.Second)
	for {
		s.mu.Lock()
		fine, changed := ok(), s.changed
		s.mu.Unlock()
		if fine {
			return
		}
		select {
		case <-changed:
		case <-limit:
			s.mu.Lock()
			defer s.mu.Unlock()
			s.t.Fatalf("never: %s\npeers: %+v\npaths: %+v", what, s.peers, s.paths)
		}
	}
}

func (s *speaker) established(addr netip.Addr) {
	s.t.Helper()
	s.eventually("session with "+addr.String(), func() bool { return s.peers[addr].State == seam.Established })
}

// reaches waits until the prefix has exactly n equal paths.
// flaps is how often the session with a peer has ended.
func (s *speaker) flaps(addr netip.Addr) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peers[addr].Flaps
}

func (s *speaker) reaches(prefix string, n int) {
	s.t.Helper()
	s.eventually(fmt.Sprintf("%d paths to %s", n, prefix), func() bool {
		p, ok := s.paths[netip.MustParsePrefix(prefix)]
		return ok && len(p.Paths) == n
	})
}

// cable joins two namespaces with one more veth pair and returns the
// addresses that a sees b by, and b sees a by.
func cable(t testing.TB, a, b *netns.NS, name string) (ofB, ofA netip.Addr) {
	t.Helper()
	must(t, a.Do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name, PeerNamespace: netlink.NsFd(b.Fd())}
		return netlink.LinkAdd(veth)
	}))
	ofA = upWithLinkLocal(t, a, name)
	ofB = upWithLinkLocal(t, b, name)
	return ofB, ofA
}

func upWithLinkLocal(t testing.TB, ns *netns.NS, name string) (addr netip.Addr) {
	t.Helper()
	must(t, ns.Do(func() error {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/accept_dad", []byte("0"), 0); err != nil {
			return err
		}
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		hw := link.Attrs().HardwareAddr
		ip := net.IP{0xfe, 0x80, 0, 0, 0, 0, 0, 0, hw[0] ^ 2, hw[1], hw[2], 0xff, 0xfe, hw[3], hw[4], hw[5]}
		a, _ := netip.AddrFromSlice(ip)
		addr = a.WithZone(name)
		return nil
	}))
	return addr
}

func namespace(t testing.TB, name string) *netns.NS {
	t.Helper()
	name = fmt.Sprintf("native%d-%s", os.Getpid(), strings.ReplaceAll(name, "/", "-"))
	must(t, netns.Create(name))
	t.Cleanup(func() { must(t, netns.Delete(name)) })
	ns, err := netns.Open(name)
	must(t, err)
	t.Cleanup(func() { ns.Close() })
	return ns
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// logWriter shows a process's log with the test that it belongs to.
type logWriter struct {
	t    testing.TB
	name string
}

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s: %s", w.name, b)
	return len(b), nil
}
