package node

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"frond/internal/bgp"
)

// TestNotifications plays the service manager (sd_notify(3)).
func TestNotifications(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = manager.Close() }()
	t.Setenv("NOTIFY_SOCKET", socket)
	told := func(when string, want ...string) {
		t.Helper()
		for _, w := range want {
			buf := make([]byte, 256)
			_ = manager.SetReadDeadline(time.Now().Add(time.Minute))
			n, err := manager.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(buf[:n]); !strings.HasPrefix(got, w) {
				t.Errorf("%s: the service manager was told %q, want %q", when, got, w)
			}
		}
	}

	document := filepath.Join(t.TempDir(), "fabric.yaml")
	if err := os.WriteFile(document, []byte(testDocument), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	r.loop.adopted = true
	r.setLinks(link("eth0", 1))
	n := &Node{cfg: Config{Document: document, Node: "leaf1"}, requests: make(chan func(*loop)), ended: make(chan struct{})}
	go func() {
		for f := range n.requests {
			f(r.loop)
		}
	}()
	defer close(n.requests)

	reload := func() {
		if err := n.Reload(t.Context()); err != nil {
			t.Error(err)
		}
	}
	reload()
	told("reload before all has converged", "RELOADING=1\nMONOTONIC_USEC=")
	r.heard(bgp.Converged{})
	told("converged", "READY=1")
	reload()
	told("reload", "RELOADING=1\nMONOTONIC_USEC=", "READY=1")
	notifyAlive()
	told("alive", "WATCHDOG=1")
}

func TestPulseKeepsUpWithTheWatchdog(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "30000")
	synctest.Test(t, func(t *testing.T) {
		pulse := newPulse()
		defer pulse.Stop()
		start := time.Now()
		<-pulse.C
		if took := time.Since(start); took != 10*time.Millisecond {
			t.Errorf("a pulse every %v, want three within the watchdog's 30ms", took)
		}
	})
}
