package kernel

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"frond/internal/dataplane"

	"golang.org/x/sys/unix"
)

// Lost notifications of guests are made up for by reading everything.
func TestGuestsNotificationsAreLost(t *testing.T) {
	const guests = 2000
	k, name := openAlone(t, "lostguests")
	ctx, cancel := context.WithCancel(t.Context())
	watch, err := k.WatchOverlay(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		for range watch.Events() { // until it is closed
		}
	}()
	watch.SetSegments([]dataplane.Segment{{Name: "blue", Bridge: "br-blue", VXLAN: "vx-blue", VNI: 100}})
	batch := func(tool, lines string) {
		t.Helper()
		command := exec.Command(tool, "-n", name, "-batch", "-")
		command.Stdin = strings.NewReader(lines)
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	batch("ip", "link add br-blue type bridge\nlink set br-blue alias '"+dataplane.AliasPrefix+"blue'\n"+
		"link add tap1 type veth peer name guest1\nlink set tap1 master br-blue up\n")

	raw, err := watch.socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const little = 1 // octets, which the kernel makes the least it can do with
	if err := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, little)
	}); err != nil {
		t.Fatal(err)
	}
	there := make(map[dataplane.MAC]bool)
	drifted := false
	until := func(want int) {
		t.Helper()
		timeout := time.After(20 * time.Second)
		for len(there) != want || !drifted {
			select {
			case event := <-watch.Events():
				switch event := event.(type) {
				case dataplane.LocalMACs:
					for _, local := range event {
						if there[local.MAC] = true; local.Aged {
							delete(there, local.MAC)
						}
					}
				case dataplane.OverlayDrifted:
					drifted = true
				}
			case <-timeout:
				t.Fatalf("%d MACs are there, want %d; drift told: %v", len(there), want, drifted)
			}
		}
	}
	script := func(verb string) string {
		var lines strings.Builder
		for i := range guests {
			fmt.Fprintf(&lines, "fdb %s 02:00:00:00:%02x:%02x dev tap1 master static\n", verb, i>>8, i&255)
		}
		return lines.String()
	}
	watch.mu.Lock() // nobody reads
	batch("bridge", script("add"))
	watch.mu.Unlock()
	until(guests)
	drifted = false
	watch.mu.Lock()
	batch("bridge", script("del"))
	watch.mu.Unlock()
	until(0)
}
