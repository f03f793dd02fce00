package bfd

import (
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTransportLeaksNothingOnAbsentPort(t *testing.T) {
	w := newTransport(make(chan arrival), slog.New(slog.DiscardHandler))
	defer w.Close()
	before := openFiles(t)
	for range 100 {
		if err := w.Send(endpoint{"absent", peerA}, make([]byte, packetLength)); !errors.Is(err, unix.ENODEV) {
			t.Fatalf("error %v, want no such device", err)
		}
	}
	if after := openFiles(t); after != before {
		t.Errorf("%d files open, %d before", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// Whoever comes second on a device is told why it cannot listen; sockets are
// released with the last session.
func TestTransportDoesNotShareItsPort(t *testing.T) {
	ns := newNamespace(t, "share")
	layCable(t, ns, newNamespace(t, "far"))
	err := ns.Do(func() error {
		first := newTransport(make(chan arrival), slog.New(slog.DiscardHandler))
		defer first.Close()
		second := newTransport(make(chan arrival), slog.New(slog.DiscardHandler))
		defer second.Close()
		to, packet := endpoint{"p0", peerB}, make([]byte, packetLength)
		if err := first.Send(to, packet); err != nil && !errors.Is(err, unix.EINVAL) { // not ready yet
			return err
		}
		err := second.Send(to, packet)
		if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "another BFD daemon") {
			t.Errorf("error %v, want the reason", err)
		}
		first.Forget(to)
		if err := second.Send(to, packet); errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("after the first has gone: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// discard is a wire that takes everything.
type discard struct{}

func (discard) Send(endpoint, []byte) error { return nil }
func (discard) Forget(endpoint)             {}

func TestPacketsAllocateNothing(t *testing.T) {
	e := newEngine(discard{}, nil, func(State) {}, slog.New(slog.DiscardHandler))
	if err := e.set([]Session{ask(peerA)}); err != nil {
		t.Fatal(err)
	}
	now := epoch
	from := endpoint{"p0", peerA}
	var b [packetLength]byte
	receive := func(state sessionState) {
		p := heard(state)
		p.yours = e.sessions[from].discriminator
		p.put(&b)
		p, err := parsePacket(b[:])
		if err != nil {
			t.Fatal(err)
		}
		now = now.Add(100 * time.Millisecond)
		e.receive(arrival{from, p}, now)
		e.work(now)
	}
	receive(initializing)
	if allocated := testing.AllocsPerRun(1000, func() { receive(up) }); allocated != 0 {
		t.Errorf("%v allocations for a packet in and one out", allocated)
	}
	if e.sessions[from].state != up {
		t.Error("not up: the test measured something else")
	}
}
