package uplink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"frond/internal/netns"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// street is two namespaces and a cable between them: up0 is the exit's.
type street struct {
	t          *testing.T
	exit, peer *netns.NS
}

func newStreet(t *testing.T) *street {
	t.Helper()
	s := &street{t: t}
	for side, ns := range map[string]**netns.NS{"exit": &s.exit, "peer": &s.peer} {
		name := fmt.Sprintf("uplink-%d-%s", os.Getpid(), side)
		if err := netns.Create(name); err != nil {
			t.Fatalf("these tests run as root and make network namespaces: %v", err)
		}
		t.Cleanup(func() {
			if err := netns.Delete(name); err != nil {
				t.Error(err)
			}
		})
		opened, err := netns.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = opened.Close() })
		*ns = opened
	}
	s.run(s.exit, "sysctl -qw net.ipv6.conf.default.accept_dad=0")
	s.run(s.peer, "sysctl -qw net.ipv6.conf.default.accept_dad=0")
	s.run(s.exit, "ip link add up0 type veth peer name far0 netns "+s.peer.Name())
	s.run(s.exit, "ip link set up0 up")
	s.run(s.peer, "ip link set far0 up")
	return s
}

func (s *street) run(ns *netns.NS, line string) string {
	s.t.Helper()
	var out []byte
	err := ns.Do(func() (err error) {
		fields := strings.Fields(line)
		out, err = exec.Command(fields[0], fields[1:]...).CombinedOutput()
		return err
	})
	if err != nil {
		s.t.Fatalf("%s: %v: %s", line, err, out)
	}
	return string(out)
}

func (s *street) desired() Desired {
	s.t.Helper()
	d := Desired{Port: "up0", Carrier: true}
	err := s.exit.Do(func() error {
		device, err := net.InterfaceByName("up0")
		if err != nil {
			return err
		}
		d.Index, d.MAC = device.Index, device.HardwareAddr.String()
		addresses, err := device.Addrs()
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().IsLinkLocalUnicast() {
				d.LinkLocal = p.Addr()
			}
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// operator is what a kernel says that an operator has configured.
type operator struct {
	mu        sync.Mutex
	addresses []netip.Prefix
	routers   []netip.Addr
}

func (o *operator) Addresses(string) ([]netip.Prefix, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.addresses, nil
}

func (o *operator) Routers(string) ([]netip.Addr, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.routers, nil
}

// watch runs a watcher that asks from inside the exit until the end of the test.
func (s *street) watch(k Kernel) *Watcher {
	s.t.Helper()
	w := New(k, filepath.Join(s.t.TempDir(), "lease"), slog.New(slog.DiscardHandler))
	w.open = func(t target) (a asker, err error) {
		err = s.exit.Do(func() (err error) { a, err = openAsker(t); return err })
		return a, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- w.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	})
	return w
}

// TestCableThatIsBackAtOnce has a cable go and come back before the watcher hears
// of either: what it said of the router counts no more for whoever listens, so
// it asks and tells anew.
func TestCableThatIsBackAtOnce(t *testing.T) {
	w := New(&operator{}, "", slog.New(slog.DiscardHandler))
	w.open = func(target) (asker, error) { return nil, errors.New("nobody is asked here") }
	here := Desired{
		Port: "up0", Index: 2, Carrier: true,
		Addresses: [Families]netip.Addr{netip.MustParseAddr("192.0.2.2")}, Routers: [Families]netip.Addr{netip.MustParseAddr("192.0.2.1")},
	}
	begin := func() {
		w.begin(t.Context())
		w.tell()
	}
	w.Set(here)
	begin()
	defer w.stop()
	w.state.Families[IPv4].Verdict = Answers
	w.tell()
	<-w.Events()
	gone := here
	gone.Carrier = false
	w.Set(gone)
	w.Set(here)
	begin()
	select {
	case s := <-w.Events():
		if s.Families[IPv4].Verdict != Unknown || w.probers[IPv4] == nil {
			t.Errorf("it says %+v, and asks %v", s, w.probers[IPv4])
		}
	default:
		t.Error("it says nothing")
	}
}

// TestAskers asks a router in the next namespace.
func TestAskers(t *testing.T) {
	s := newStreet(t)
	s.run(s.peer, "ip address add 192.0.2.1/24 dev far0")
	s.run(s.peer, "ip address add 2001:db8::1/64 dev far0 nodad")
	d := s.desired()
	to := func(f Family, address string) target {
		return target{family: f, port: d.Port, index: d.Index, mac: d.MAC,
			router: netip.MustParseAddr(address), source: [...]netip.Addr{netip.MustParseAddr("192.0.2.2"), d.LinkLocal}[f]}
	}
	ask := func(t target, out *error) func() error {
		return func() error {
			a, err := openAsker(t)
			if err != nil {
				return err
			}
			defer func() { _ = a.close() }()
			*out = askOnce(context.Background(), a)
			return nil
		}
	}
	for _, test := range []struct {
		family  Family
		address string
		answers bool
	}{
		{IPv4, "192.0.2.1", true}, {IPv4, "192.0.2.9", false}, {IPv6, "2001:db8::1", true}, {IPv6, "2001:db8::9", false},
	} {
		var answer error
		if err := s.exit.Do(ask(to(test.family, test.address), &answer)); err != nil {
			t.Fatal(err)
		}
		if (answer == nil) != test.answers {
			t.Errorf("%s: %v, want an answer: %v", test.address, answer, test.answers)
		}
	}
	// What is for one is heard by the other.
	err := s.exit.Do(func() error {
		nobody, err := openAsker(to(IPv6, "2001:db8::9"))
		if err != nil {
			return err
		}
		defer func() { _ = nobody.close() }()
		var answer error
		if err := ask(to(IPv6, "2001:db8::1"), &answer)(); err != nil || answer != nil {
			return errors.Join(err, answer)
		}
		if err := nobody.answered(time.Now().Add(100 * time.Millisecond)); !errors.Is(err, errSilent) {
			t.Errorf("another router's answer is taken for its own: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// next waits for a state that is as wanted.
func next(t *testing.T, w *Watcher, what string, ok func(State) bool) State {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		select {
		case s := <-w.Events():
			if ok(s) {
				return s
			}
		case <-limit:
			t.Fatalf("%s: not told", what)
		}
	}
}

func TestWatcherFindsTheOperatorsRouter(t *testing.T) {
	s := newStreet(t)
	o := &operator{}
	w := s.watch(o)
	d := s.desired()
	w.Set(d)
	next(t, w, "nobody is known", func(s State) bool {
		return s.Families[IPv4].Verdict == Silent && !s.Families[IPv4].Addr.IsValid()
	})
	first, second := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fe80::1")
	o.mu.Lock()
	o.addresses, o.routers = []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}, []netip.Addr{first, second}
	o.mu.Unlock()
	next(t, w, "the kernel's routers", func(s State) bool {
		return s.Families[IPv4].Addr == first && s.Families[IPv6].Addr == second
	})
	d.Routers[IPv4] = netip.MustParseAddr("192.0.2.3")
	w.Set(d)
	next(t, w, "the document's goes first", func(s State) bool { return s.Families[IPv4].Addr == d.Routers[IPv4] && s.Desired == d })
	s.run(s.peer, "ip address add 192.0.2.3/24 dev far0")
	next(t, w, "it answers", func(s State) bool { return s.Families[IPv4].Verdict == Answers })
	s.run(s.peer, "ip address del 192.0.2.3/24 dev far0")
	next(t, w, "it is gone", func(s State) bool { return s.Families[IPv4].Verdict == Silent && s.Families[IPv4].Addr.IsValid() })
	d.Carrier = false
	w.Set(d)
	state := next(t, w, "nothing without carrier", func(s State) bool { return s.Desired == d })
	if state.Families != [Families]Router{} {
		t.Errorf("without carrier: %+v", state.Families)
	}
}
