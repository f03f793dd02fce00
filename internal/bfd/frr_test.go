package bfd

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"frond/internal/netns"
)

// FRR's bfdd is the second judge of what we send: Debian's package, run in a
// namespace with its own sockets and files.

const frrDaemons = "/usr/lib/frr/"

// frr is FRR in one namespace: zebra, which tells bfdd of interfaces, and bfdd.
type frr struct {
	ns    *netns.NS
	dir   string
	peer  netip.Addr
	zebra *exec.Cmd
	bfdd  *exec.Cmd
}

func newFRR(t *testing.T, ns *netns.NS, peer netip.Addr, timers string) *frr {
	t.Helper()
	f := &frr{ns: ns, dir: frrDir(t), peer: peer}
	config := fmt.Sprintf("bfd\n peer %s interface p0\n  %s\n exit\nexit\n", peer, timers)
	f.write(t, "bfdd.conf", config)
	f.write(t, "zebra.conf", "")
	f.zebra = f.run(t, "zebra")
	f.bfdd = f.run(t, "bfdd")
	return f
}

// frrDir is where the daemons, which give up root for the user frr, can make
// their sockets; what t.TempDir returns is below a directory of root's.
func frrDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bfd-frr-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	owner, err := user.Lookup("frr")
	if err != nil {
		t.Fatalf("FRR is not installed: %v", err)
	}
	uid, errUID := strconv.Atoi(owner.Uid)
	gid, errGID := strconv.Atoi(owner.Gid)
	if err := errors.Join(errUID, errGID, os.Chown(dir, uid, gid)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (f *frr) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.dir, name), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// run starts a daemon and waits until its vty answers.
func (f *frr) run(t *testing.T, daemon string) *exec.Cmd {
	t.Helper()
	in := func(name string) string { return filepath.Join(f.dir, name) }
	args := []string{
		"-f", in(daemon + ".conf"), "-i", in(daemon + ".pid"), "-z", in("zserv.api"),
		"--vty_socket", f.dir, "-A", "127.0.0.1", "-P", "0",
		"--log", "file:" + in(daemon+".log"),
	}
	if daemon == "bfdd" {
		args = append(args, "--bfdctl", in("bfdctl"))
	}
	cmd := exec.Command(frrDaemons+daemon, args...)
	if err := f.ns.Start(cmd); err != nil {
		t.Fatalf("start %s of FRR: %v", daemon, err)
	}
	t.Cleanup(func() {
		kill(cmd)
		_ = os.RemoveAll(fmt.Sprintf("/var/tmp/frr/%s.%d", daemon, cmd.Process.Pid)) // for its crash log
	})
	f.until(t, daemon+" to answer", func() bool {
		_, err := os.Stat(in(daemon + ".vty"))
		return err == nil
	})
	return cmd
}

func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// frrPeer is what `show bfd peer json` says, as far as it matters here.
type frrPeer struct {
	Status         string `json:"status"`
	Diagnostic     string `json:"diagnostic"`
	RemoteReceive  int    `json:"remote-receive-interval"` // ms
	RemoteTransmit int    `json:"remote-transmit-interval"`
	RemoteMultiple int    `json:"remote-detect-multiplier"`
}

func (f *frr) peerView(t *testing.T) frrPeer {
	t.Helper()
	out, err := f.vtysh(fmt.Sprintf("show bfd peer %s interface p0 json", f.peer))
	if err != nil {
		return frrPeer{Status: err.Error()}
	}
	var p frrPeer
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		t.Fatalf("FRR says %s: %v", out, err)
	}
	return p
}

func (f *frr) vtysh(command string) (string, error) {
	out, err := exec.Command("vtysh", "--vty_socket", f.dir, "-d", "bfdd", "-c", command).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("vtysh -c %q: %w: %s", command, err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// until looks until something is true, which FRR does not tell by itself.
func (f *frr) until(t *testing.T, what string, is func() bool) {
	t.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for deadline := time.After(patience); !is(); {
		select {
		case <-look.C:
		case <-deadline:
			t.Fatalf("waited for %s; peer %+v", what, f.peerView(t))
		}
	}
}

func (f *frr) awaitStatus(t *testing.T, status string) {
	t.Helper()
	f.until(t, "FRR to see "+status, func() bool { return f.peerView(t).Status == status })
}

func TestFRR(t *testing.T) {
	t.Parallel()
	const timers = "detect-multiplier 4\n  receive-interval 150\n  transmit-interval 120"
	nsA, nsB := newNamespaces(t)
	n := newNode(t, nsA, peerB)
	n.watchPeer()
	n.await(t, "unanswered")
	f := newFRR(t, nsB, peerA, timers)

	n.await(t, "up")
	f.awaitStatus(t, "up")
	f.until(t, "FRR to hear our timers", func() bool {
		p := f.peerView(t)
		return p.RemoteReceive == 100 && p.RemoteTransmit == 100 && p.RemoteMultiple == 3
	})

	t.Run("timers change without a flap", func(t *testing.T) {
		slower := ask(peerB)
		slower.Interval, slower.Multiplier = 200*ms, 5
		n.Set([]Session{slower})
		f.until(t, "FRR to hear our new timers", func() bool {
			p := f.peerView(t)
			return p.Status == "up" && p.RemoteReceive == 200 && p.RemoteTransmit == 200 && p.RemoteMultiple == 5
		})
		n.watchPeer()
		f.until(t, "FRR to hear the old ones again", func() bool {
			p := f.peerView(t)
			return p.Status == "up" && p.RemoteTransmit == 100 && p.RemoteMultiple == 3
		})
	})
	t.Run("cable muted", func(t *testing.T) {
		mute(t, nsB)
		if st := n.await(t, "down"); !strings.Contains(st.Diagnostic, "does not hear us") || st.Flaps != 1 {
			t.Errorf("our view %+v, want one flap, told by FRR that hears nothing", st)
		}
		f.awaitStatus(t, "down")
		unmute(t, nsB)
		n.await(t, "up")
		f.awaitStatus(t, "up")
	})
	whole := t
	t.Run("our agent restarts", func(t *testing.T) {
		n.stop()
		n.agent(whole) // it lives on after this part
		if st := n.await(t, "up"); st.Flaps != 1 {
			t.Errorf("our view %+v, want no flap but the muted cable's", st)
		}
		n.watchPeer()
	})
	t.Run("FRR shuts down the session", func(t *testing.T) {
		config := fmt.Sprintf("configure terminal\nbfd\npeer %s interface p0\n", f.peer)
		f.configure(t, config+"shutdown")
		if st := n.await(t, "admin-down"); st.Flaps != 2 {
			t.Errorf("our view %+v", st)
		}
		f.configure(t, config+"no shutdown")
		n.await(t, "up")
		f.awaitStatus(t, "up")
	})
	t.Run("bfdd killed and restarted", func(t *testing.T) {
		kill(f.bfdd)
		if st := n.await(t, "down"); st.Diagnostic != "control detection time expired" {
			t.Errorf("our view %+v", st)
		}
		if err := os.Remove(filepath.Join(f.dir, "bfdd.vty")); err != nil {
			t.Fatal(err)
		}
		f.bfdd = f.run(whole, "bfdd")
		n.await(t, "up")
		f.awaitStatus(t, "up")
	})
	t.Run("we stop", func(t *testing.T) {
		if err := n.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.until(t, "FRR to hear that we left", func() bool {
			p := f.peerView(t)
			return p.Status == "down" && p.Diagnostic == "neighbor signaled session down"
		})
	})
}

func (f *frr) configure(t *testing.T, lines string) {
	t.Helper()
	var args []string
	for line := range strings.SplitSeq(lines, "\n") {
		args = append(args, "-c", line)
	}
	out, err := exec.Command("vtysh", append([]string{"--vty_socket", f.dir, "-d", "bfdd"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("vtysh %q: %v: %s", args, err, out)
	}
}
