package lab

import (
	"bufio"
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestRouterAdvertisements has guests' kernels configure themselves by what
// their own node tells them, and nothing of it cross the fabric.
func TestRouterAdvertisements(t *testing.T) {
	w := outward(t, "routers", 1)
	w.whole()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watch := exec.CommandContext(ctx, "tcpdump", "-lnvi", "any", "--immediate-mode", "udp port 4789")
	out, err := watch.StdoutPipe()
	must(t, err)
	says, err := watch.StderrPipe()
	must(t, err)
	must(t, w.namespace("leaf1").Do(watch.Start))
	for hears := bufio.NewScanner(says); hears.Scan() && !strings.Contains(hears.Text(), "listening on"); {
	}
	for _, guest := range []string{"g1", "g2"} {
		w.inside(guest, "ip -6 addr flush dev eth0 scope global")
		w.inside(guest, "ip link set eth0 down")
		w.inside(guest, "ip link set eth0 up")
		w.shows(guest, "ip -6 addr show dev eth0 scope global dynamic", "inet6 fd00:172:16:")
		w.shows(guest, "ip -6 route show default", "via fe80::68:ff:fe00:64 dev eth0 proto ra")
		w.shows(guest, "ping -6 -c 1 -W 1 "+FarAway()[1].String(), " 0% packet loss")
	}
	g2, err := w.Guest("g2")
	must(t, err)
	w.shows("g1", "ping -c 1 -W 1 "+g2.Address.Addr().String(), " 0% packet loss")
	var heard []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		heard = append(heard, lines.Text())
		if strings.Contains(lines.Text(), "ICMP echo request") {
			break // all that was there before has been heard
		}
	}
	cancel()
	_ = watch.Wait()
	text := strings.Join(heard, "\n")
	if !strings.Contains(text, "ICMP echo request") || strings.Contains(text, "router advertisement") {
		t.Errorf("in VXLAN there are to be pings and no router advertisements:\n%s", text)
	}
}

// shows waits until what a command prints on a host holds a text.
func (w *world) shows(host, line, want string) {
	w.t.Helper()
	ns, err := w.Host(host)
	must(w.t, err)
	defer func() { _ = ns.Close() }()
	var out []byte
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); time.Sleep(askInterval) {
		_ = ns.Do(func() (err error) {
			fields := strings.Fields(line)
			out, err = exec.Command(fields[0], fields[1:]...).CombinedOutput()
			return err
		})
		if strings.Contains(string(out), want) {
			return
		}
	}
	w.t.Fatalf("%s: %s never shows %q:\n%s", host, line, want, out)
}
