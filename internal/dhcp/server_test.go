package dhcp

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"frond/internal/dataplane"
	"frond/internal/kv"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shared is a store that may be away.
type shared struct {
	*kv.Memory
	away atomic.Bool
}

func (s *shared) Commit(ctx context.Context, t kv.Txn) (kv.Outcome, error) {
	if s.away.Load() {
		return kv.Outcome{}, context.DeadlineExceeded
	}
	return s.Memory.Commit(ctx, t)
}

// cables are the ports of a node.
type cables struct {
	frames chan dataplane.GuestFrame
	sent   chan Sending
}

func (c *cables) Frames() <-chan dataplane.GuestFrame { return c.frames }

func (c *cables) Send(port dataplane.LocalPort, frame []byte) {
	if port.Port != "" {
		c.sent <- Sending{port, frame}
	}
}

type running struct {
	*Server
	*cables
	t     *testing.T
	bound chan dataplane.LocalAddress
}

func start(t *testing.T, store kv.Store, node string, s Segment) *running {
	t.Helper()
	began := time.Now()
	r := &running{t: t, cables: &cables{make(chan dataplane.GuestFrame), make(chan Sending, 1000)}, bound: make(chan dataplane.LocalAddress, 1000)}
	r.Server = New(Config{
		Node: node, Store: store, Wire: r.cables, Clock: func() time.Duration { return time.Hour + time.Since(began) },
	}, slog.New(slog.DiscardHandler))
	r.SetSegments([]Segment{s})
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	work.Go(func() {
		for {
			select {
			case <-r.Kept():
			case list := <-r.Bound():
				for _, a := range list {
					r.bound <- a
				}
			case <-ctx.Done():
				return
			}
		}
	})
	t.Cleanup(func() { cancel(); work.Wait() })
	return r
}

// say sends a message until it is answered.
func (r *running) say(kind dhcpv4.MessageType, guest int, options ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	r.t.Helper()
	m := message(r.t, kind, guestMAC(guest), options...)
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); {
		r.frames <- dataplane.GuestFrame{Port: dataplane.LocalPort{VNI: 100, Port: "g"}, Data: clientFrame(guestMAC(guest), m.ToBytes())}
		select {
		case s := <-r.sent:
			if reply := replyIn(r.t, s); reply.TransactionID == m.TransactionID {
				return reply
			}
		case <-time.After(time.Second):
		}
	}
	r.t.Fatalf("%s of guest %d is never answered", kind, guest)
	return nil
}

func (r *running) lease(guest int) netip.Addr {
	r.t.Helper()
	a := addr(r.say(dhcpv4.MessageTypeDiscover, guest).YourIPAddr)
	if ack := r.say(dhcpv4.MessageTypeRequest, guest, wanting(a), server(blue("172.16.0.2", "172.16.0.2"))); kindOf(ack) != dhcpv4.MessageTypeAck {
		r.t.Fatalf("guest %d is answered with %v", guest, ack)
	}
	return a
}

func TestServer(t *testing.T) {
	s := blue("172.16.0.11", "172.16.0.30")
	store := &shared{Memory: kv.NewMemory()}
	one, two := start(t, store, "n1", s), start(t, store, "n2", s)
	first, second := one.lease(1), two.lease(2)
	if first == second {
		t.Errorf("both have %s", first)
	}
	if got := <-one.bound; got != (dataplane.LocalAddress{VNI: 100, MAC: guestMAC(1), IP: first, Port: "g"}) {
		t.Errorf("told of is %+v", got)
	}
	if got := two.Leases(t.Context(), "blue"); len(got) != 2 && len(got) != 1 {
		t.Errorf("the leases are %+v", got)
	}
	store.away.Store(true)
	if ack := one.say(dhcpv4.MessageTypeRequest, 1, having(first)); kindOf(ack) != dhcpv4.MessageTypeAck {
		t.Errorf("without the store, a renewal is answered with %v", ack)
	}
	store.away.Store(false)
	if err := one.Release(t.Context(), ip("172.16.0.99")); !errors.Is(err, ErrNoLease) {
		t.Errorf("what nobody has is released: %v", err)
	}
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		err := one.Release(t.Context(), first)
		if errors.Is(err, ErrNoLease) {
			break
		}
		if time.Now().After(limit) {
			t.Fatal(err)
		}
	}
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		if p := one.Report().Pools; len(p) == 1 && p[0].Size == 20 && p[0].Used == 1 {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("reported is %+v", one.Report())
		}
	}
}
