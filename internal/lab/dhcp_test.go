package lab

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"frond/internal/api"
	"frond/internal/status"
)

// leasing is a document whose guests get their addresses by DHCP.
func leasing(document string) string {
	return strings.Replace(document, "prefix: 172.16.0.0/16",
		"prefix: 172.16.0.0/16, gateway: {address: 172.16.0.1}, dhcp: {range: 172.16.1.0-172.16.9.255}", 1)
}

// ask adds a guest that gets its address by DHCP.
func (w *world) ask(node string) Guest {
	w.t.Helper()
	g, err := w.NextGuest("", node)
	must(w.t, err)
	g.DHCP = true
	must(w.t, w.AddGuest(w.t.Context(), g))
	g, err = w.Guest(g.Name)
	must(w.t, err)
	return g
}

// shell runs a command in a guest or node, which may fail.
func (w *world) shell(host, command string) (string, error) {
	w.t.Helper()
	ns, err := w.Host(host)
	must(w.t, err)
	defer func() { must(w.t, ns.Close()) }()
	var out []byte
	err = ns.Do(func() (err error) {
		out, err = exec.CommandContext(w.t.Context(), "sh", "-c", command).CombinedOutput()
		return err
	})
	return string(out), err
}

// renews wants a guest to be answered with the address that it has.
func (w *world) renews(g Guest, how string) {
	w.t.Helper()
	const once = "udhcpc -i eth0 -f -q -n -t 20 -T 1 -s /bin/true -r %s"
	out, err := w.shell(g.Name, fmt.Sprintf(once, g.Address.Addr()))
	if err != nil || !strings.Contains(out, "lease of "+g.Address.Addr().String()+" obtained") {
		w.t.Errorf("%s: %s asks for %s: %v\n%s", how, g.Name, g.Address.Addr(), err, out)
	}
}

func (w *world) leases(node string) []status.Lease {
	w.t.Helper()
	list, err := api.NewClient(w.Socket(node)).Leases(w.t.Context(), "blue")
	must(w.t, err)
	return list
}

// TestDHCP has guests ask for their addresses while nodes and the store fail.
func TestDHCP(t *testing.T) {
	w := populate(t, "dhcp", SpineLeaf(2, 2), 0, leasing)
	w.steady()
	crossing := w.overhear("leaf1", "vx-blue", "udp and (port 67 or port 68)")
	w.inside("leaf1", "nft flush ruleset")
	w.ruleset("leaf1", "table bridge frond-dhcp", true)

	one, two, other := w.ask("leaf1"), w.ask("leaf1"), w.ask("leaf2")
	within := netip.MustParsePrefix("172.16.0.0/16")
	for _, g := range []Guest{one, two, other} {
		if a := g.Address; a.Bits() != 16 || !within.Contains(a.Addr()) || a.Addr().As4()[2] < 1 || a.Addr().As4()[2] > 9 {
			t.Errorf("%s has %s", g.Name, a)
		}
		for _, far := range []string{"172.16.0.1", one.Address.Addr().String(), other.Address.Addr().String()} {
			if out, err := w.shell(g.Name, "ping -c 1 -W 5 "+far); err != nil {
				t.Errorf("%s does not reach %s: %s", g.Name, far, out)
			}
		}
	}
	if one.Address == two.Address || one.Address == other.Address || two.Address == other.Address {
		t.Errorf("addresses are %s, %s and %s", one.Address, two.Address, other.Address)
	}
	for _, node := range []string{"leaf1", "leaf2"} {
		list := w.leases(node)
		if len(list) != 3 || !slices.ContainsFunc(list, func(l status.Lease) bool {
			return l.Address == other.Address.Addr().String() && l.MAC == other.MAC && l.Node == "leaf2" && l.State == "leased"
		}) {
			t.Errorf("%s says of leases: %+v", node, list)
		}
	}
	w.isKnownUnused(one, "leaf2")
	out, err := w.shell(one.Name, "dhclient -1 -v -sf /bin/true -lf /dev/null -pf "+w.Dir()+"/dhclient.pid eth0; kill $(cat "+w.Dir()+"/dhclient.pid)")
	if !strings.Contains(out, "bound to "+one.Address.Addr().String()) {
		t.Errorf("dhclient: %v\n%s", err, out)
	}

	must(t, w.Stop(t.Context(), "leaf1"))
	must(t, w.Start("leaf1"))
	w.steady()
	w.renews(one, "after a restart of its agent")

	must(t, w.MoveGuest(t.Context(), two.Name, "leaf2", false))
	w.renews(two, "on another node")
	must(t, w.MoveGuest(t.Context(), two.Name, "leaf1", false))
	w.renews(two, "back again")

	for _, spine := range []string{"spine1", "spine2"} { // with the majority of the store
		must(t, w.Stop(t.Context(), spine))
	}
	w.eventually("leaf1", "says that the store is away", func(s status.Snapshot) bool {
		return strings.Contains(fmt.Sprint(s.Conditions), "store-away")
	})
	for _, g := range []Guest{one, two, other} {
		w.renews(g, "without the store")
	}
	for _, spine := range []string{"spine1", "spine2"} {
		must(t, w.Start(spine))
	}
	w.steady()
	if g := w.ask("leaf1"); g.Address == one.Address || g.Address == two.Address || g.Address == other.Address {
		t.Errorf("%s gets %s, which somebody has", g.Name, g.Address)
	}

	must(t, api.NewClient(w.Socket("leaf2")).Release(t.Context(), other.Address.Addr().String()))
	for limit := time.Now().Add(10 * time.Second); len(w.leases("leaf2")) != 3; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("the leases are %+v", w.leases("leaf2"))
		}
	}
	if out := crossing(); out != "" {
		t.Errorf("requests cross the fabric:\n%s", out)
	}
}

// isKnownUnused has a guest be given one more address, by which it never says a
// word, and wants another node to know of it.
func (w *world) isKnownUnused(g Guest, node string) {
	w.t.Helper()
	out, err := w.shell(g.Name, "udhcpc -i eth0 -f -q -n -t 20 -T 1 -s /bin/true -x 0x3d:ff00000000")
	_, rest, _ := strings.Cut(out, "lease of ")
	address, _, _ := strings.Cut(rest, " ")
	if err != nil || address == "" {
		w.t.Fatalf("%s asks for one more address: %v\n%s", g.Name, err, out)
	}
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(askInterval) {
		macs, err := api.NewClient(w.Socket(node)).MACs(w.t.Context(), g.Segment)
		must(w.t, err)
		if slices.ContainsFunc(macs, func(m status.MAC) bool { return m.MAC == g.MAC && slices.Contains(m.IPs, address) }) {
			break
		}
		if time.Now().After(limit) {
			w.t.Fatalf("%s does not know that %s is leased to %s: %+v", node, address, g.MAC, macs)
		}
	}
	must(w.t, api.NewClient(w.Socket(g.Node)).Release(w.t.Context(), address))
}

// overhear notes what tcpdump shows on an interface of a host, until the
// function that it returns is called.
func (w *world) overhear(host, port, filter string) (stop func() string) {
	w.t.Helper()
	ns, err := w.Host(host)
	must(w.t, err)
	w.t.Cleanup(func() { must(w.t, ns.Close()) })
	var out strings.Builder
	listen := exec.CommandContext(w.t.Context(), "tcpdump", "-lnni", port, filter)
	listen.Stdout = &out
	must(w.t, ns.Start(listen))
	return func() string {
		must(w.t, listen.Process.Kill())
		_ = listen.Wait()
		return out.String()
	}
}

// BenchmarkDHCP has many guests on three nodes ask at once: how long until the
// last has its address.
func BenchmarkDHCP(b *testing.B) {
	const guests = 300
	w := populate(b, "dhcpbench", SpineLeaf(2, 3), guests, leasing)
	w.steady()
	for b.Loop() {
		addresses := make([]string, guests)
		begun := time.Now()
		var asking sync.WaitGroup
		for i, g := range w.Topology.Guests {
			asking.Go(func() {
				out, err := w.shell(g.Name, "udhcpc -i eth0 -f -q -n -t 20 -T 1 -s /bin/true")
				_, rest, _ := strings.Cut(out, "lease of ")
				addresses[i], _, _ = strings.Cut(rest, " ")
				if err != nil || addresses[i] == "" {
					b.Errorf("%s: %v\n%s", g.Name, err, out)
				}
			})
		}
		asking.Wait()
		b.ReportMetric(time.Since(begun).Seconds(), "s-all")
		slices.Sort(addresses)
		if different := len(slices.Compact(addresses)); different != guests {
			b.Errorf("%d guests have %d addresses", guests, different)
		}
	}
}
