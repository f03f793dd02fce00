package ra

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

const frrConfig = `
frr defaults datacenter
interface eth1
 no ipv6 nd suppress-ra
router bgp 65001
 bgp router-id 10.0.0.1
 neighbor eth1 interface remote-as external
`

// FRR's bgpd connects to an unnumbered neighbour only once zebra has heard
// its advertisement, so its connection proves that ours was understood.
func TestFRR(t *testing.T) {
	t.Parallel()
	a, b := newHost(t), newHost(t)
	portA, portB := cable(a, "eth1", b, "eth1")
	must(t, b.nl.LinkSetUp(b.link("lo")))
	connected := a.listenBGP()
	b.startFRR()
	x := a.discover(portA)
	expect(t, x, "eth1", portB.Addr)
	select {
	case from := <-connected:
		if from != portB.Addr {
			t.Errorf("a connection from %s, want %s", from, portB.Addr)
		}
	case <-time.After(patience):
		t.Error("FRR does not connect: it has not understood our advertisement")
	}
}

// listenBGP tells who connects to the BGP port first.
func (h *host) listenBGP() <-chan netip.Addr {
	h.t.Helper()
	var l net.Listener
	h.do(func() (err error) {
		l, err = net.Listen("tcp6", "[::]:179")
		return err
	})
	from := make(chan netip.Addr, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		from <- conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().WithZone("")
		_ = conn.Close()
	}()
	h.t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	return from
}

// startFRR runs zebra and bgpd on a host with files of their own.
func (h *host) startFRR() {
	h.t.Helper()
	// Not t.TempDir: a socket's path has at most 107 bytes.
	dir, err := os.MkdirTemp("", "ra-frr")
	must(h.t, err)
	h.t.Cleanup(func() { must(h.t, os.RemoveAll(dir)) })
	frr, err := user.Lookup("frr") // to which its daemons drop
	must(h.t, err)
	uid, err := strconv.Atoi(frr.Uid)
	must(h.t, err)
	must(h.t, os.Chown(dir, uid, -1))
	config := filepath.Join(dir, "frr.conf")
	must(h.t, os.WriteFile(config, []byte(frrConfig), 0o644))
	zserv := filepath.Join(dir, "zserv.api")
	for _, daemon := range []string{"zebra", "bgpd"} {
		cmd := exec.Command("/usr/lib/frr/"+daemon, "-f", config, "-z", zserv,
			"-i", filepath.Join(dir, daemon+".pid"), "--vty_socket", dir,
			"-P", "0", "--log", "stdout")
		cmd.Stdout, cmd.Stderr = h.t.Output(), h.t.Output()
		must(h.t, h.ns.Start(cmd))
		h.t.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			_ = os.RemoveAll(fmt.Sprintf("/var/tmp/frr/%s.%d", daemon, cmd.Process.Pid)) // for its crash log
		})
		if daemon == "zebra" {
			h.waitForFile(zserv)
		}
	}
}

func (h *host) waitForFile(path string) {
	h.t.Helper()
	limit := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(path); err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			h.t.Fatalf("%s does not appear", path)
		}
	}
}
