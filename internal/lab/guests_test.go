package lab

import (
	"bytes"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"frond/internal/api"
)

// spine1 is the address of a node outside of all segments.
const spine1 = "10.0.254.1"

// services has the document's segment speak IPv6, and adds a second one and
// one with an elected gateway.
func services(document string) string {
	return strings.Replace(document, "prefix: 172.16.0.0/16",
		`prefix: 172.16.0.0/16, prefix6: "fd00:16::/64", gateway: {address: 172.16.0.1, address6: "fd00:16::1"}, dns: [`+spine1+`]`, 1) +
		`  red: {vni: 200, nodes: ["leaf*"], prefix: 172.17.0.0/24, prefix6: "fd00:17::/64", gateway: {address: 172.17.0.1, address6: "fd00:17::1"}}
  blue6: {vni: 400, nodes: ["leaf*"], prefix6: "fd00:19::/64", gateway: {address6: "fd00:19::1"}, dns_names: off}
  green: {vni: 300, nodes: ["leaf*"], prefix: 172.18.0.0/24, prefix6: "fd00:18::/64", gateway: {address: 172.18.0.1, address6: "fd00:18::1", mode: elected}}
`
}

// capture notes what tcpdump shows inside a host until the function that it
// returns is called.
func (w *world) capture(host, filter string) func() string {
	w.t.Helper()
	ns, err := w.Host(host)
	must(w.t, err)
	defer func() { must(w.t, ns.Close()) }()
	var out, says bytes.Buffer
	command := exec.Command("tcpdump", "-lnni", "any", "--immediate-mode", filter)
	command.Stdout, command.Stderr = &out, &says
	must(w.t, ns.Do(command.Start))
	time.Sleep(time.Second) // until it listens
	return func() string {
		must(w.t, command.Process.Signal(unix.SIGINT))
		if err := command.Wait(); err != nil {
			w.t.Fatalf("tcpdump: %v\n%s", err, &says)
		}
		return out.String()
	}
}

// says waits until a command inside a host gives all these texts.
func (w *world) says(host, line string, want ...string) string {
	w.t.Helper()
	var out string
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); time.Sleep(askInterval) {
		out = w.tries(host, line)
		all := true
		for _, text := range want {
			all = all && strings.Contains(out, text)
		}
		if all {
			return out
		}
	}
	w.t.Fatalf("%s: %s never gives %q but\n%s", host, line, want, out)
	return ""
}

// tries runs a command inside a host, whether it succeeds or not.
func (w *world) tries(host, line string) string {
	w.t.Helper()
	ns, err := w.Host(host)
	must(w.t, err)
	defer func() { must(w.t, ns.Close()) }()
	var out []byte
	must(w.t, ns.Do(func() error {
		out, _ = exec.Command("sh", "-c", line).CombinedOutput()
		return nil
	}))
	return string(out)
}

// addGuestOn adds the next guest and returns its name.
func (w *world) addGuestOn(segment, node string) string {
	w.t.Helper()
	g, err := w.NextGuest(segment, node)
	must(w.t, err)
	must(w.t, w.AddGuest(w.t.Context(), g))
	return g.Name
}

// insideVXLAN is a filter for ICMPv6 of a type in VXLAN over IPv4: outer UDP
// and VXLAN headers and the inner Ethernet header come before IPv6.
func insideVXLAN(icmpType string) string {
	return "udp dst port 4789 and udp[28:2] == 0x86dd and udp[36] == 58 and udp[70] == " + icmpType
}

// TestGuestsConfigureThemselves has guests take addresses and routers from
// advertisements with nothing but the kernel's own code. Not one crosses the
// fabric, but where a gateway is on one node for all.
func TestGuestsConfigureThemselves(t *testing.T) {
	w := populate(t, "autoconf", SpineLeaf(1, 2), 0, services)
	w.steady()
	const notGreen = " and udp[12:4] != 300 << 8"
	crossed := w.capture("spine1", insideVXLAN("134")+notGreen)
	asked := w.capture("spine1", insideVXLAN("133"))
	b1, b2 := w.addGuestOn("blue", "leaf1"), w.addGuestOn("blue", "leaf2")
	r1 := w.addGuestOn("red", "leaf2")
	for _, g := range []string{b1, b2} {
		w.says(g, "ip -6 addr show dev eth0 scope global", "fd00:16:", "/64")
		w.says(g, "ip -6 route show default", "via fe80::68:ff:fe00:64 dev eth0 proto ra")
	}
	w.says(r1, "ip -6 route show default", "via fe80::68:ff:fe00:c8 dev eth0 proto ra")
	far := w.global(r1)
	for _, g := range []string{b1, b2} {
		w.says(g, "ping -6 -c 1 -W 1 "+far, " 0% packet loss")
		w.says(g, "ping -6 -c 1 -W 1 "+w.node("spine1").Loopback6.String(), " 0% packet loss")
	}

	// Long enough for each to have been told three times and once asked.
	time.Sleep(35 * time.Second)
	if out := crossed(); strings.TrimSpace(out) != "" {
		t.Errorf("router advertisements have crossed the fabric:\n%s", out)
	}
	if out := asked(); strings.TrimSpace(out) == "" {
		t.Error("not even a guest's solicitation was seen on the fabric: does the capture work?")
	}

	t.Run("names", func(t *testing.T) {
		w := w.in(t)
		w.nameServer("spine1")
		const dig = "dig +timeout=2 +tries=1 "
		for _, g := range []string{b1, b2} {
			for _, at := range []string{"@172.16.0.1 ", "@fd00:16::1 ", "+tcp @fd00:16::1 "} {
				w.says(g, dig+"+short "+at+"gateway.red."+w.Name, "172.17.0.1")
				w.says(g, dig+"+short "+at+"-x fd00:17::1", "gateway.red."+w.Name)
				w.says(g, dig+"+short "+at+"www.example", "203.0.113.1")
				w.says(g, dig+at+"nobody.blue."+w.Name, "NXDOMAIN", "gateway.blue."+w.Name)
			}
		}
		w.says(r1, dig+"@fd00:17::1 www.example", "REFUSED") // which has no dns
		for _, host := range []string{"spine1", r1} {
			for _, at := range []string{"@172.16.0.1 ", "@fd00:16::1 "} {
				if out := w.tries(host, dig+at+"gateway.red."+w.Name); !strings.Contains(out, "no servers could be reached") {
					t.Errorf("%s is no guest of segment blue, but answered:\n%s", host, out)
				}
			}
		}
		if out := w.inside("leaf1", "ss -Hlnu sport = :53"); strings.Contains(out, "fd00:19::1") {
			t.Errorf("a segment without names is answered:\n%s", out)
		}
	})
	t.Run("elected", func(t *testing.T) {
		w := w.in(t)
		crossed := w.capture("spine1", insideVXLAN("134")+" and udp[12:4] == 300 << 8")
		g1, g2 := w.addGuestOn("green", "leaf1"), w.addGuestOn("green", "leaf2")
		for _, g := range []string{g1, g2} {
			w.says(g, "ip -6 route show default", "via fe80::68:ff:fe00:12c dev eth0 proto ra")
			w.says(g, "ping -6 -c 1 -W 1 "+far, " 0% packet loss")
			w.says(g, "dig +short @fd00:18::1 -x 172.18.0.1", "gateway.green."+w.Name)
		}
		if out := crossed(); strings.TrimSpace(out) == "" {
			t.Error("a guest has heard of a gateway elsewhere, but nothing was seen on the fabric")
		}
	})
	t.Run("agent restarts", func(t *testing.T) {
		w := w.in(t)
		must(t, w.Stop(t.Context(), "leaf1"))
		if out := w.inside(b1, "ip -6 route show default"); !strings.Contains(out, "fe80::68") {
			t.Errorf("the guest has lost its router: %s", out)
		}
		must(t, w.Start("leaf1"))
		w.steady()
	})
	t.Run("node leaves", func(t *testing.T) {
		w := w.in(t)
		must(t, w.down("leaf1"))
		limit := time.Now().Add(20 * time.Second)
		for strings.Contains(w.inside(b1, "ip -6 route show default"), "fe80::68") {
			if time.Now().After(limit) {
				t.Fatal("the guest still has its router")
			}
			time.Sleep(askInterval)
		}
		if out := w.inside(b2, "ip -6 route show default"); !strings.Contains(out, "fe80::68") {
			t.Errorf("a guest of another node has lost its router: %s", out)
		}
	})
}

// global is a guest's address that it has made itself.
func (w *world) global(guest string) string {
	w.t.Helper()
	out := w.says(guest, "ip -6 -o addr show dev eth0 scope global", "inet6 fd00:")
	_, after, _ := strings.Cut(out, "inet6 ")
	address, _, _ := strings.Cut(after, "/")
	return address
}

// down has a node leave the fabric in order.
func (w *world) down(node string) error {
	return api.NewClient(w.Socket(node)).Down(w.t.Context())
}

// nameServer answers every question on a node with one address until the test
// ends.
func (w *world) nameServer(node string) {
	w.t.Helper()
	var conn net.PacketConn
	must(w.t, w.namespace(node).Do(func() (err error) {
		conn, err = net.ListenPacket("udp", ":53")
		return err
	}))
	server := &dns.Server{PacketConn: conn, Handler: dns.HandlerFunc(func(to dns.ResponseWriter, query *dns.Msg) {
		m := new(dns.Msg)
		m.SetReply(query)
		m.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: query.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1},
			A:   net.IPv4(203, 0, 113, 1),
		}}
		_ = to.WriteMsg(m)
	})}
	done := make(chan error)
	go func() { done <- server.ActivateAndServe() }()
	w.t.Cleanup(func() {
		_ = conn.Close()
		_ = <-done // that the socket is closed
	})
}
