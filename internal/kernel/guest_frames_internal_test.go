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
