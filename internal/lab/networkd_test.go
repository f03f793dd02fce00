package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"frond/internal/status"
)

// networkdProgram is where Debian's package systemd has it.
const networkdProgram = "/lib/systemd/systemd-networkd"

// networkdPlace has systemd-networkd run in a guest without systemd: what it
// shares with the machine it has of its own, so that it neither meets the
// machine's bus nor waits for udev, which it does where /sys can be written.
const networkdPlace = `
mount -t tmpfs none /run
mkdir -p /run/systemd/netif/links /run/systemd/netif/leases /run/systemd/netif/lldp
chown -R systemd-network: /run/systemd/netif
mount --bind /sys /sys
mount -o remount,bind,ro /sys
mount --bind %[1]s /etc/systemd/network
exec %[2]s
`

const networkdConfig = `[Match]
Name=eth0
[Network]
DHCP=yes
[DHCPv4]
SendHostname=no
`

// networkd runs systemd-networkd in a guest until it is stopped.
func (w *world) networkd(guest string) (stop func() string) {
	w.t.Helper()
	dir := w.t.TempDir()
	must(w.t, os.Chmod(dir, 0o755))
	must(w.t, os.WriteFile(filepath.Join(dir, "eth0.network"), []byte(networkdConfig), 0o644))
	log, err := os.Create(filepath.Join(w.t.TempDir(), "log"))
	must(w.t, err)
	w.t.Cleanup(func() { _ = log.Close() })
	ns, err := w.Host(guest)
	must(w.t, err)
	defer func() { must(w.t, ns.Close()) }()
	cmd := exec.CommandContext(w.t.Context(), "unshare", "--mount", "sh", "-ec", fmt.Sprintf(networkdPlace, dir, networkdProgram))
	cmd.Env = append(os.Environ(), "SYSTEMD_LOG_LEVEL=debug", "SYSTEMD_LOG_TARGET=console")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	must(w.t, ns.Start(cmd))
	return func() string {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
		said, err := os.ReadFile(log.Name())
		must(w.t, err)
		return string(said)
	}
}

// TestNetworkd has a guest get its addresses of both families by
// systemd-networkd.
func TestNetworkd(t *testing.T) {
	if _, err := os.Stat(networkdProgram); err != nil {
		t.Skipf("%s is not installed (Debian: apt-get install systemd)", networkdProgram)
	}
	w := populate(t, "networkd", SpineLeaf(2, 2), 0, leasing6)
	w.steady()
	g, err := w.NextGuest("blue", "leaf1")
	must(t, err)
	must(t, w.AddGuest(t.Context(), g))
	if out, err := w.shell(g.Name, "ip addr flush dev eth0 scope global && ip route flush dev eth0 proto boot && ip -6 route flush dev eth0 proto boot"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	stop := w.networkd(g.Name)
	said := ""
	defer func() {
		if said == "" {
			said = stop()
		}
		if t.Failed() {
			t.Log(said)
		}
	}()
	four, six := netip.MustParsePrefix("172.16.0.0/20"), netip.MustParsePrefix("fd00:16::1:0/112")
	leased := func(within netip.Prefix) bool {
		return slices.ContainsFunc(w.leases("leaf1"), func(l status.Lease) bool {
			a, err := netip.ParseAddr(l.Address)
			return err == nil && within.Contains(a) && l.MAC == g.MAC && l.State == "leased"
		})
	}
	eventually := func(what string, ok func() bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := poll(ctx, ok, what); err != nil {
			t.Fatal(err)
		}
	}
	shows := func(command string, all ...string) func() bool {
		return func() bool {
			out, err := w.shell(g.Name, command)
			return err == nil && !slices.ContainsFunc(all, func(part string) bool { return !strings.Contains(out, part) })
		}
	}
	eventually("an IPv4 lease", func() bool { return leased(four) })
	eventually("an IPv6 lease", func() bool { return leased(six) })
	eventually("both addresses", shows("ip addr show dev eth0 scope global", "inet 172.16.", "inet6 fd00:16::1:"))
	eventually("both routers", shows("ip route show default; ip -6 route show default", "via 172.16.0.1 dev eth0 proto dhcp", "via fe80::68:ff:fe00:64 dev eth0 proto ra"))
	eventually("answers of the gateway", shows("ping -c 1 -W 1 172.16.0.1 && ping -6 -c 1 -W 1 fd00:16::1"))
	said = stop()
	eventually("the IPv4 lease is given back", func() bool { return !leased(four) }) // of IPv6, it gives none back
}
