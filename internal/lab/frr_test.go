package lab

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"frond/internal/netns"
)

// frr is a real FRR (zebra, bgpd, bfdd) of Debian's package in a namespace
// of its own, with all its files in a temporary directory.
type frr struct {
	t   *testing.T
	ns  *netns.NS
	dir string
}

// startFRR starts FRR in a namespace and loads the configuration.
func startFRR(t *testing.T, ns *netns.NS, config string) *frr {
	t.Helper()
	f := &frr{t: t, ns: ns, dir: frrDir(t)}
	if err := os.WriteFile(filepath.Join(f.dir, "frr.conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	f.daemon("zebra")
	f.daemon("bgpd")
	f.daemon("bfdd", "--bfdctl", filepath.Join(f.dir, "bfdd.ctl"))
	f.vtysh("--config_dir", f.dir, "-b")
	return f
}

// frrDir is a directory that the daemons, which give up root for the user
// frr, can make their sockets in.
func frrDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lab-frr-")
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	owner, err := user.Lookup("frr")
	must(t, err)
	uid, err := strconv.Atoi(owner.Uid)
	must(t, err)
	gid, err := strconv.Atoi(owner.Gid)
	must(t, err)
	must(t, os.Chown(dir, uid, gid))
	return dir
}

// daemon runs one daemon until the test ends and waits until it answers.
func (f *frr) daemon(name string, args ...string) {
	f.t.Helper()
	args = append([]string{
		"-z", filepath.Join(f.dir, "zserv.api"),
		"-i", filepath.Join(f.dir, name+".pid"), "--vty_socket", f.dir, "-f", "/dev/null",
	}, args...)
	cmd := exec.Command(filepath.Join("/usr/lib/frr", name), args...)
	if err := f.ns.Start(cmd); err != nil {
		f.t.Fatalf("start %s: %v (is the package frr installed?)", name, err)
	}
	f.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
		_ = os.RemoveAll(fmt.Sprintf("/var/tmp/frr/%s.%d", name, cmd.Process.Pid)) // for its crash log
	})
	socket := filepath.Join(f.dir, name+".vty")
	limit := time.Now().Add(20 * time.Second)
	for {
		if _, err := os.Stat(socket); err == nil {
			return
		}
		if time.Now().After(limit) {
			f.t.Fatalf("%s does not come up", name)
		}
		time.Sleep(20 * time.Millisecond) // a daemon of others gives no event for this
	}
}

func (f *frr) vtysh(args ...string) string {
	f.t.Helper()
	out, err := exec.Command("vtysh", append([]string{"--vty_socket", f.dir}, args...)...).CombinedOutput()
	if err != nil {
		f.t.Fatalf("vtysh %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// show returns what a command of FRR's command line prints.
func (f *frr) show(command string) string {
	f.t.Helper()
	return f.vtysh("-c", command)
}

// eventually waits until a command's output satisfies ok.
func (f *frr) eventually(command string, ok func(output string) bool) {
	f.t.Helper()
	limit := time.Now().Add(30 * time.Second)
	for {
		output := f.show(command)
		if ok(output) {
			return
		}
		if time.Now().After(limit) {
			f.t.Fatalf("FRR never satisfied: %s\n%s", command, output)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
