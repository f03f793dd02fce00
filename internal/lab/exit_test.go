package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"frond/internal/fabric"
	"frond/internal/netns"
	"frond/internal/probe"
	"frond/internal/status"
)

// outward is a world with two leafs, exits and a guest on each leaf, whose
// segment has a gateway. What change makes of the document is what counts.
func outward(t testing.TB, name string, exits int, change ...func(document string) string) *world {
	t.Helper()
	topology, err := SpineLeaf(2, 2).WithExits(exits)
	must(t, err)
	document := string(WithSegment(Document(name, topology), topology, false))
	for _, f := range change {
		document = f(document)
	}
	f, err := fabric.Parse("fabric.yaml", []byte(document), ".")
	must(t, err)
	topology, err = topology.WithInternet(f)
	must(t, err)
	w := raise(t, name, topology, Source{Content: []byte(document)})
	guests, err := Guests(f, 2)
	must(t, err)
	for _, g := range guests {
		must(t, w.AddGuest(t.Context(), g))
		// With a flow label of its own making, a packet carries its hash through
		// all namespaces, and every node would choose by the same.
		ns, err := w.Host(g.Name)
		must(t, err)
		must(t, ns.Do(func() error { return writeSysctls(map[string]string{"ipv6/auto_flowlabels": "0"}) }))
		must(t, ns.Close())
	}
	return w
}

// uplinkOf1 gives the only exit of a document another uplink.
func uplinkOf1(uplink string) func(string) string {
	return func(document string) string {
		before, rest, _ := strings.Cut(document, "uplink: {")
		_, after, _ := strings.Cut(rest, "}}\n")
		return before + "uplink: {" + uplink + "}}\n" + after
	}
}

// seenAs sends packets from a host to the internet, each from a port of its
// own, and returns the addresses that those which arrived came from.
func (w *world) seenAs(host string, far netip.Addr) []string {
	w.t.Helper()
	from, err := w.Host(host)
	must(w.t, err)
	defer func() { _ = from.Close() }()
	internet := w.namespace(Internet)
	var server *net.UDPConn
	must(w.t, internet.Do(func() (err error) {
		server, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(far, 0)))
		return err
	}))
	defer func() { _ = server.Close() }()
	const packets = 32
	for range packets {
		must(w.t, from.Do(func() error {
			// Not connected: the hash of a socket that is would go with its packets
			// through all namespaces, and every node would choose by the same.
			conn, err := net.ListenUDP("udp", nil)
			if err != nil {
				return err
			}
			_, _ = conn.WriteTo([]byte("who am I"), server.LocalAddr()) // without a route nothing arrives
			return conn.Close()
		}))
	}
	var seen []string
	must(w.t, server.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
	for {
		_, sender, err := server.ReadFromUDPAddrPort(make([]byte, 64))
		if err != nil {
			slices.Sort(seen)
			return slices.Compact(seen)
		}
		seen = append(seen, sender.Addr().Unmap().String())
	}
}

// leavesBy waits until packets of a host leave by exactly these addresses.
func (w *world) leavesBy(host string, far netip.Addr, want ...string) {
	w.t.Helper()
	var seen []string
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); {
		if seen = w.seenAs(host, far); slices.Equal(seen, want) {
			return
		}
	}
	w.t.Fatalf("packets of %s arrive from %v, want %v", host, seen, want)
}

// downloads has a guest fetch some MiB by HTTP from the internet, as a package
// is installed: what is larger than a segment must pass whole.
func (w *world) downloads(guest string, from netip.Addr) {
	w.t.Helper()
	payload := bytes.Repeat([]byte("frond"), 1<<20)
	var listener net.Listener
	must(w.t, w.namespace(Internet).Do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(from, 0).String())
		return err
	}))
	server := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(payload) })}
	go func() { _ = server.Serve(listener) }()
	defer func() { _ = server.Close() }()
	ns, err := w.Host(guest)
	must(w.t, err)
	defer func() { _ = ns.Close() }()
	dial := func(_ context.Context, network, address string) (conn net.Conn, err error) {
		err = ns.Do(func() error {
			conn, err = net.DialTimeout(network, address, 5*time.Second)
			return err
		})
		return conn, err
	}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	answer, err := client.Get("http://" + listener.Addr().String())
	must(w.t, err)
	defer func() { _ = answer.Body.Close() }()
	got, err := io.ReadAll(answer.Body)
	must(w.t, err)
	if !bytes.Equal(got, payload) {
		w.t.Errorf("%s got %d bytes from %s, not the %d that there are", guest, len(got), from, len(payload))
	}
}

// echoes starts traffic from a guest to the internet and back.
func (w *world) echoes(guest string) func() probe.Result {
	w.t.Helper()
	g, err := w.Guest(guest)
	must(w.t, err)
	from, err := w.Host(guest)
	must(w.t, err)
	w.t.Cleanup(func() { must(w.t, from.Close()) })
	p, err := probe.Start(w.t.Context(), probe.Config{
		From: from, FromAddr: g.Address.Addr(), To: w.namespace(Internet), ToAddr: FarAway()[0],
		Flows: 8, Rate: 1000, Echo: true,
	})
	must(w.t, err)
	enough := time.After(500 * time.Millisecond)
	return func() probe.Result {
		<-enough
		return p.Stop()
	}
}

func hasCondition(s status.Snapshot, name string) bool {
	return slices.ContainsFunc(s.Conditions, func(c status.Condition) bool { return c.Name == name })
}

func healthy(s status.Snapshot) bool { return s.Ready && len(s.Conditions) == 0 }

const (
	edge1 = "192.0.2.2"
	edge2 = "192.0.2.6"
)

func TestExit(t *testing.T) {
	w := outward(t, "exit", 2)
	w.whole()
	far := FarAway()
	both := func(t *testing.T) {
		t.Helper()
		w := w.in(t)
		w.eventually("edge1", "healthy", healthy)
		w.leavesBy("g1", far[0], edge1, edge2)
		w.leavesBy("g1", far[1], "2001:db8:1::2", "2001:db8:2::2")
	}
	other := func(t *testing.T) {
		t.Helper()
		w := w.in(t)
		w.leavesBy("g1", far[0], edge2)
		w.leavesBy("g1", far[1], "2001:db8:2::2")
		w.leavesBy("edge1", far[0], edge2) // by its own default route from BGP
		w.eventually("edge1", "a dead uplink", func(s status.Snapshot) bool { return hasCondition(s, "uplink-down") })
		w.whole() // by the uplink that is left
		proof, err := w.Check(t.Context(), CheckConfig{Timeout: 20 * time.Second}, silent)
		must(t, err)
		if len(proof.Failures) != 1 || !strings.HasPrefix(proof.Failures[0], "uplink edge1:up0–internet:eth1 is ") || proof.Internet.Answered != proof.Internet.Rounds {
			t.Errorf("with all cables the measure: %q", proof.Failures)
		}
	}
	both(t)
	uplink := []End{end("edge1"), end(Internet)}
	t.Run("check", func(t *testing.T) {
		proof, err := w.Check(t.Context(), CheckConfig{Timeout: 20 * time.Second}, silent)
		must(t, err)
		if p := proof.Internet; p == nil || p.Guests != 2 || p.Rounds != 4 || p.Answered != 4 || len(proof.Failures) > 0 {
			t.Errorf("%+v: %q", proof.Internet, proof.Failures)
		}
	})
	t.Run("download", func(t *testing.T) {
		for _, from := range far {
			w.in(t).downloads("g1", from)
		}
	})
	t.Run("cut", func(t *testing.T) {
		must(t, w.Cut(uplink[0], uplink[1]))
		other(t)
		must(t, w.Mend(uplink[0], uplink[1]))
		both(t)
	})
	t.Run("muted", func(t *testing.T) {
		for _, oneWay := range []bool{false, true} {
			must(t, w.Mute(uplink[1], uplink[0], oneWay))
			other(t)
			must(t, w.Mend(uplink[0], uplink[1]))
			both(t)
		}
	})
	t.Run("source NAT deleted", func(t *testing.T) {
		w := w.in(t)
		table := func(args ...string) error {
			return w.namespace("edge1").Do(func() error { return exec.Command("nft", args...).Run() })
		}
		must(t, table("delete", "table", "inet", "frond-nat"))
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		must(t, poll(ctx, func() bool { return table("list", "table", "inet", "frond-nat") == nil }, "source NAT is not mended"))
		both(t)
	})
	t.Run("agent killed", func(t *testing.T) {
		w := w.in(t)
		stop := w.echoes("g1")
		must(t, w.Kill(t.Context(), "edge1"))
		time.Sleep(500 * time.Millisecond) // traffic has to go on meanwhile
		must(t, w.Start("edge1"))
		w.eventually("edge1", "healthy", healthy)
		time.Sleep(1500 * time.Millisecond) // until a router that is silent would count as such
		w.nothingLost(stop())
		both(t)
	})
	t.Run("agent down", func(t *testing.T) {
		w := w.in(t)
		w.down("edge1")
		ns := w.namespace("edge1")
		for _, left := range [][]string{{"ip", "address", "show", "dev", upPort}, {"nft", "list", "tables"}, {"ip", "route", "show", "default"}} {
			var out []byte
			must(t, ns.Do(func() (err error) { out, err = exec.Command(left[0], left[1:]...).Output(); return err }))
			if text := string(out); strings.Contains(text, edge1) || strings.Contains(text, "frond") || strings.HasPrefix(text, "default") {
				t.Errorf("%v shows what is left of frond: %s", left, text)
			}
		}
		w.leavesBy("g1", far[0], edge2)
		must(t, w.Start("edge1"))
		both(t)
	})
}

// TestExitPreference uses the exit that is preferred while it works.
func TestExitPreference(t *testing.T) {
	w := outward(t, "preference", 2, func(d string) string {
		return strings.Replace(d, "next_hop: 192.0.2.5,", "next_hop: 192.0.2.5, preference: 50,", 1)
	})
	far := FarAway()[0]
	w.leavesBy("g1", far, edge1)
	must(t, w.Cut(end("edge1"), end(Internet)))
	w.leavesBy("g1", far, edge2)
	must(t, w.Mend(end("edge1"), end(Internet)))
	w.leavesBy("g1", far, edge1)
}

// TestExitOfTheOperator takes the port as it finds it, and leaves it so.
func TestExitOfTheOperator(t *testing.T) {
	w := outward(t, "operator", 1, uplinkOf1("port: up0, masquerade: true"))
	w.leavesBy("g1", FarAway()[0], "203.0.113.2")
	w.eventually("edge1", "healthy", healthy)
	w.down("edge1")
	var out []byte
	must(t, w.namespace("edge1").Do(func() (err error) { out, err = exec.Command("ip", "route").Output(); return err }))
	if text := string(out); !strings.Contains(text, "default via 203.0.113.1 dev up0 metric 100") || !strings.Contains(text, "203.0.113.0/30 dev up0") {
		t.Errorf("the operator's routes are gone:\n%s", text)
	}
}

// down takes a node out of the fabric and waits for the end of its agent.
func (w *world) down(node string) {
	w.t.Helper()
	must(w.t, exec.Command(built, "down", "--socket", w.Socket(node)).Run())
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	must(w.t, poll(ctx, func() bool { _, runs := w.AgentPID(node); return !runs }, "the agent of "+node+" has not ended"))
}

// dhcpServer runs udhcpd in the internet until stop is called.
func (w *world) dhcpServer(lease time.Duration) (stop func()) {
	w.t.Helper()
	dir := w.t.TempDir()
	config := filepath.Join(dir, "udhcpd.conf")
	must(w.t, os.WriteFile(filepath.Join(dir, "leases"), nil, 0o600))
	must(w.t, os.WriteFile(config, fmt.Appendf(nil, "start 203.0.113.2\nend 203.0.113.2\ninterface eth1\nlease_file %s/leases\npidfile %s/pid\n"+
		"opt subnet 255.255.255.252\nopt router 203.0.113.1\nopt lease %d\nmin_lease 10\n", dir, dir, int(lease.Seconds())), 0o600))
	cmd := exec.Command("udhcpd", "-f", config)
	internet, err := netns.Open(namespace(w.Name, Internet))
	must(w.t, err)
	defer func() { _ = internet.Close() }()
	must(w.t, internet.Start(cmd))
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// TestExitByDHCP gets a lease, renews it, keeps it over a restart, and gives
// the address up when it is over.
func TestExitByDHCP(t *testing.T) {
	w := outward(t, "dhcp", 1, uplinkOf1("port: up0, dhcp: true, masquerade: true"))
	w.eventually("edge1", "no lease", func(s status.Snapshot) bool {
		return slices.ContainsFunc(s.Conditions, func(c status.Condition) bool { return strings.Contains(c.Text, "no DHCP lease") })
	})
	const lease = 12 * time.Second
	stop := w.dhcpServer(lease)
	defer func() { stop() }()
	begun := time.Now()
	w.leavesBy("g1", FarAway()[0], "203.0.113.2")
	w.eventually("edge1", "healthy", healthy)
	traffic := w.echoes("g1")
	must(t, w.Kill(t.Context(), "edge1"))
	must(t, w.Start("edge1"))
	w.eventually("edge1", "healthy", healthy)
	time.Sleep(time.Until(begun.Add(lease + 2*time.Second))) // it was renewed if it is there then
	w.nothingLost(traffic())
	w.leavesBy("g1", FarAway()[0], "203.0.113.2")
	stop()
	w.eventually("edge1", "the lease is over", func(s status.Snapshot) bool { return hasCondition(s, "uplink-down") })
	var out []byte
	must(t, w.namespace("edge1").Do(func() (err error) {
		out, err = exec.Command("ip", "address", "show", "dev", upPort).Output()
		return err
	}))
	if strings.Contains(string(out), "203.0.113.2") {
		t.Errorf("the address outlives its lease: %s", out)
	}
	stop = w.dhcpServer(lease)
	w.leavesBy("g1", FarAway()[0], "203.0.113.2")
}
