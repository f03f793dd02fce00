package kernel

import (
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"frond/internal/dataplane"
)

// TestPortThatCannotBeListenedTo has the kernel refuse a port's socket for a
// while.
func TestPortThatCannotBeListenedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries, answer := 0, unix.ENOMEM
		w := &OverlayWatch{kernel: &Kernel{log: slog.New(slog.DiscardHandler)}}
		w.guests = newGuestPorts(func(uint32) (*os.File, error) {
			if tries++; tries < 3 {
				return nil, answer
			}
			return os.Open(os.DevNull) // from which nothing is ever received
		})
		port := dataplane.LocalPort{VNI: 100, Port: "tap1"}
		heard := func() bool {
			synctest.Wait()
			w.guests.mu.Lock()
			defer w.guests.mu.Unlock()
			_, ok := w.guests.sockets[port]
			return ok
		}
		unserve := w.serve(1, port)
		if heard() {
			t.Error("it is heard before it can be")
		}
		time.Sleep(2*servePause + 1)
		w.guests.mu.Lock()
		_, ok := w.guests.sockets[port]
		w.guests.mu.Unlock()
		if !ok || tries != 3 {
			t.Errorf("after %d tries, it is heard: %t", tries, ok)
		}
		unserve()
		w.work.Wait()

		tries = 0
		unserve = w.serve(1, port)
		unserve()
		if w.work.Wait(); tries != 1 {
			t.Errorf("a port that need not be heard is tried %d times", tries)
		}
		tries, answer = 0, unix.ENODEV
		unserve = w.serve(1, port)
		w.work.Wait()
		if unserve(); tries != 1 {
			t.Errorf("a port that is gone is tried %d times", tries)
		}
	})
}

// TestPortsThatSwapNames has a port bear the name of another one, which ends
// only after that: it is heard all the same, and the other one no more.
func TestPortsThatSwapNames(t *testing.T) {
	w := &OverlayWatch{kernel: &Kernel{log: slog.New(slog.DiscardHandler)}}
	var files []*os.File
	w.guests = newGuestPorts(func(uint32) (*os.File, error) {
		f, err := os.Open(os.DevNull)
		files = append(files, f)
		return f, err
	})
	port := dataplane.LocalPort{VNI: 100, Port: "tap1"}
	endFirst, endSecond := w.serve(1, port), w.serve(2, port)
	endFirst()
	if s, ok := w.guests.sockets[port]; !ok || s.index != 2 {
		t.Errorf("heard is %+v, want port 2", s)
	}
	endSecond()
	w.work.Wait()
	for i, f := range files {
		if _, err := f.Stat(); err == nil {
			t.Errorf("socket %d is left open", i+1)
		}
	}
}
