package netns_test

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"frond/internal/netns"
)

func create(t *testing.T, suffix string) (string, *netns.NS) {
	t.Helper()
	name := fmt.Sprintf("netns-%d-%s", os.Getpid(), suffix)
	if err := netns.Create(name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Delete(name); err != nil {
			t.Error(err)
		}
	})
	ns, err := netns.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	return name, ns
}

func TestLifeOfAName(t *testing.T) {
	name, _ := create(t, "life")
	if names, err := netns.List(); err != nil || !slices.Contains(names, name) {
		t.Fatalf("List() = %v, %v; want it to hold %s", names, err, name)
	}
	if err := netns.Create(name); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Create: %v; want fs.ErrExist", err)
	}
	if out, err := exec.Command("ip", "netns", "exec", name, "ip", "-br", "link").CombinedOutput(); err != nil || strings.Count(string(out), "\n") != 1 {
		t.Errorf("ip netns exec: %v: %s; want lo alone", err, out)
	}
	if err := netns.Delete(name); err != nil {
		t.Fatal(err)
	}
	if err := netns.Delete(name); err != nil {
		t.Errorf("second Delete: %v; want nil", err)
	}
	if _, err := netns.Open(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open after Delete: %v; want fs.ErrNotExist", err)
	}
}

func TestDeleteLeftByCrash(t *testing.T) {
	create(t, "dir") // makes netns.Dir
	name := fmt.Sprintf("netns-%d-crash", os.Getpid())
	if err := os.WriteFile(netns.Path(name), nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if _, err := netns.Open(name); err == nil {
		t.Error("Open of a plain file succeeded")
	}
	if err := netns.Delete(name); err != nil {
		t.Fatal(err)
	}
}

func TestNamesStayInDir(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "../x"} {
		if netns.Create(name) == nil || netns.Delete(name) == nil {
			t.Errorf("name %q was accepted", name)
		}
		if _, err := netns.Open(name); err == nil {
			t.Errorf("Open(%q) succeeded", name)
		}
	}
}

func TestDoEntersAndReturns(t *testing.T) {
	_, ns := create(t, "do")
	want, err := ns.Inode()
	if err != nil {
		t.Fatal(err)
	}
	home := currentInode(t)
	failure := errors.New("from inside")
	for range 50 {
		err := ns.Do(func() error {
			if got := currentInode(t); got != want {
				t.Errorf("inside: namespace %d; want %d", got, want)
			}
			links, err := net.Interfaces()
			if err != nil || len(links) != 1 {
				t.Errorf("inside: links %v, %v; want lo alone", links, err)
			}
			return failure
		})
		if !errors.Is(err, failure) {
			t.Fatalf("Do: %v; want the function's own error", err)
		}
		if got := currentInode(t); got != home {
			t.Fatalf("afterwards: namespace %d; want %d", got, home)
		}
	}
}

func currentInode(t *testing.T) uint64 {
	t.Helper()
	ns, err := netns.Current()
	if err != nil {
		t.Error(err)
		return 0
	}
	defer func() { _ = ns.Close() }()
	inode, err := ns.Inode()
	if err != nil {
		t.Error(err)
	}
	return inode
}

func TestStartInherits(t *testing.T) {
	_, ns := create(t, "start")
	var out strings.Builder
	cmd := exec.Command("sh", "-c", "readlink /proc/self/ns/net")
	cmd.Stdout = &out
	if err := ns.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	inode, _ := ns.Inode()
	if want := fmt.Sprintf("net:[%d]\n", inode); out.String() != want {
		t.Errorf("child is in %q; want %q", out.String(), want)
	}
}

// TestExec runs itself again, because Exec does not come back.
func TestExec(t *testing.T) {
	if name := os.Getenv("NETNS_TEST_EXEC"); name != "" {
		ns, err := netns.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Fatal(ns.Exec("/bin/ls", []string{"ls", "/sys/class/net"}, os.Environ()))
	}
	name, _ := create(t, "exec")
	cmd := exec.Command(os.Args[0], "-test.run=^TestExec$")
	cmd.Env = append(os.Environ(), "NETNS_TEST_EXEC="+name)
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "lo\n" {
		t.Errorf("ls /sys/class/net inside: %q, %v; want lo alone", out, err)
	}
}
