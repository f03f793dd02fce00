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

const bridgeWithPort = "link add br-blue type bridge\nlink set br-blue alias '" + dataplane.AliasPrefix + "blue'\n" +
	"link add tap1 type veth peer name guest1\nlink set tap1 master br-blue up\n"

// runBatch has a tool of iproute2 carry out lines in a namespace.
func runBatch(t *testing.T, namespace, tool, lines string) {
	t.Helper()
	command := exec.Command(tool, "-n", namespace, "-batch", "-")
	command.Stdin = strings.NewReader(lines)
	if out, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

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
	runBatch(t, name, "ip", bridgeWithPort)

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
	runBatch(t, name, "bridge", script("add"))
	watch.mu.Unlock()
	until(guests)
	drifted = false
	watch.mu.Lock()
	runBatch(t, name, "bridge", script("del"))
	watch.mu.Unlock()
	until(0)
}

// What was told before everything was read is older than that: no port was gone
// in between.
func TestGuestsNotificationsAreOld(t *testing.T) {
	k, name := openAlone(t, "oldguests")
	socket, err := k.subscribe(overlayFilter, []int{unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH})
	if err != nil {
		t.Fatal(err)
	}
	watch := newOverlayWatch(k, socket)
	defer func() {
		_ = socket.Close()
		watch.board.close()
		watch.work.Wait()
	}()
	runBatch(t, name, "ip", bridgeWithPort)
	watch.SetSegments([]dataplane.Segment{{Name: "blue", Bridge: "br-blue", VXLAN: "vx-blue", VNI: 100}})
	if err := watch.readAll(); err != nil {
		t.Fatal(err)
	}
	runBatch(t, name, "ip", "link add marker type veth peer name inside\n")
	raw, err := socket.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	for heard := false; !heard; {
		if _, err := watch.receive(raw, buf); err != nil {
			t.Fatal(err)
		}
		for _, link := range watch.board.links {
			heard = heard || link.Name == "marker"
		}
	}
	if len(watch.board.ports) != 1 || len(watch.pending.gone) > 0 {
		t.Errorf("ports %v, of which gone in between: %v; want tap1, and none", watch.board.ports, watch.pending.gone)
	}
	if !watch.pending.drifted {
		t.Error("what was told of was not said to be looked at")
	}
}
