package lab

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sys/unix"

	"frond/internal/api"
)

// arrivals counts the frames of a kind that reach a guest until one for it alone
// does, which is sent after them.
func (a *attacker) arrivals(victim int, to net.HardwareAddr, frames [][]byte, is func(heard []byte) bool) (n int) {
	a.w.t.Helper()
	a.markers++
	end := append(ethernet(to, a.mac, experiment), byte(a.markers), 'e', 'n', 'd')
	end = append(end, make([]byte, 60-len(end))...)
	for _, f := range frames {
		a.send(f)
	}
	a.send(end)
	buf := make([]byte, 2048)
	for {
		size, _, err := unix.Recvfrom(victim, buf, 0)
		if err != nil {
			a.w.t.Fatalf("the frame after the others does not arrive: %v", err)
		}
		if bytes.HasPrefix(buf[:size], end[:18]) {
			return n
		}
		if is(buf[:size]) {
			n++
		}
	}
}

// TestGuardStrict has a guest speak from addresses that it was not given, whole
// and in fragments, and send more broadcast than it may; with and without what
// keeps it from that.
func TestGuardStrict(t *testing.T) {
	w := populate(t, "guardstrict", SpineLeaf(1, 2), 0, leasing)
	w.steady()
	document, err := os.ReadFile(w.Document())
	must(t, err)
	plain := string(document) + "  bare: {vni: 300, nodes: [leaf1]}\n"
	w.reload(plain + "guard: {strict: on}\n")
	w.steady()
	one, other := w.ask("leaf1"), w.ask("leaf1")
	// Where the fabric gives no addresses, guests have their own.
	bare, far := w.bare(netip.MustParsePrefix("192.0.2.11/24")), w.bare(netip.MustParsePrefix("192.0.2.12/24"))
	w.ruleset("leaf1", "goto drop-source", true)
	speak := func(when string) {
		t.Helper()
		for from, to := range map[string]Guest{one.Name: other, bare.Name: far} {
			if out, err := w.shell(from, "ping -c 3 -i 0.2 -W 5 "+to.Address.Addr().String()); err != nil {
				t.Errorf("%s: guests on %s do not reach each other: %s", when, to.Segment, out)
			}
		}
	}
	speak("strict")

	a := w.attacker(one.Name)
	victim := w.packetSocket(other.Name, unix.ETH_P_ALL)
	victimMAC, err := net.ParseMAC(other.MAC)
	must(t, err)
	all, free, foreign := netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("172.16.200.77"), netip.MustParseAddr("192.0.2.1")
	packet := func(from netip.Addr) []byte {
		return append(ethernet(broadcast, a.mac, unix.ETH_P_IP), ipv4(from, all, unix.IPPROTO_UDP, udp(1000, 1000, "attack, and more of it"))...)
	}
	fragment := func(from netip.Addr, flags, offset byte) []byte {
		ip := ipv4(from, all, unix.IPPROTO_UDP, udp(1000, 1000, "attack, and more of it")[:24])
		ip[6], ip[7] = flags, offset
		return append(ethernet(broadcast, a.mac, unix.ETH_P_IP), sum4(ip)...)
	}
	attacks := map[string][]byte{
		"an address that nobody has, by IP":           packet(free),
		"an address that nobody has, first fragment":  fragment(free, 0x20, 0),
		"an address that nobody has, second fragment": fragment(free, 0, 3),
		"an address that nobody has, by ARP":          arpReply(broadcast, a.mac, free),
		"an address of elsewhere, by IP":              packet(foreign),
		"an address of elsewhere, by ARP":             arpReply(broadcast, a.mac, foreign),
	}
	try := func(when string, works bool) {
		t.Helper()
		for what, frame := range attacks {
			arrived := a.arrivals(victim, victimMAC, [][]byte{frame}, func(heard []byte) bool { return bytes.HasPrefix(heard, frame[:40]) })
			if arrived > 0 != works {
				t.Errorf("%s: %s arrives: %d", when, what, arrived)
			}
		}
		own := packet(one.Address.Addr())
		if a.arrivals(victim, victimMAC, [][]byte{own}, func(heard []byte) bool { return bytes.HasPrefix(heard, own[:40]) }) != 1 {
			t.Errorf("%s: an honest packet does not arrive", when)
		}
	}
	try("strict", false)
	must(t, w.Stop(t.Context(), "leaf1"))
	try("strict, without the agent", false)
	must(t, w.Start("leaf1"))
	w.steady()
	speak("strict, after a restart")
	try("strict, after a restart", false)
	drops, err := api.NewClient(w.Socket("leaf1")).Guard(t.Context())
	must(t, err)
	counted := uint64(0)
	for _, d := range drops.Drops {
		if d.Rule == "source" && d.Port == "v"+one.Name {
			counted += d.Packets
		}
	}
	if counted < uint64(3*len(attacks)) {
		t.Errorf("counted are %d packets: %+v", counted, drops.Drops)
	}

	const sent = 200
	var flood [][]byte
	for range sent {
		flood = append(flood, packet(one.Address.Addr()))
	}
	many := func() int {
		return a.arrivals(victim, victimMAC, flood, func(heard []byte) bool { return bytes.HasPrefix(heard, flood[0][:40]) })
	}
	w.reload(plain + "guard: {broadcast: 10}\n")
	w.ruleset("leaf1", "limit rate over 10/second", true)
	if got := many(); got == 0 || got > sent/2 {
		t.Errorf("of %d broadcast packets at once %d arrive, with 10 in a second", sent, got)
	}
	speak("with a limit of broadcast")
	w.reload(plain)
	w.ruleset("leaf1", "limit rate over", false)
	w.ruleset("leaf1", "goto drop-source", false)
	if got := many(); got != sent {
		t.Errorf("of %d broadcast packets %d arrive without a limit", sent, got)
	}
	try("not strict", true)
}

// bare adds a guest with an address of its own choice to leaf1, on a segment
// without a prefix.
func (w *world) bare(address netip.Prefix) Guest {
	w.t.Helper()
	g, err := w.NextGuest("blue", "leaf1")
	must(w.t, err)
	g.Segment, g.Address = "bare", address
	must(w.t, w.AddGuest(w.t.Context(), g))
	return g
}

// TestDHCPStarvation has a guest ask for addresses as many clients: others get
// theirs, unless the document lets one port have all.
func TestDHCPStarvation(t *testing.T) {
	w := populate(t, "starvation", SpineLeaf(1, 2), 0, leasing, func(document string) string {
		return strings.Replace(document, "172.16.1.0-172.16.9.255", "172.16.1.0-172.16.1.15", 1)
	})
	w.steady()
	guest := w.ask("leaf1")
	a := w.attacker(guest.Name)
	starve := func(first int) {
		for n := first; n < first+1000; n++ {
			m, err := dhcpv4.NewDiscovery(net.HardwareAddr{2, 0xbb, 0, 0, byte(n >> 8), byte(n)})
			must(t, err)
			a.send(append(ethernet(broadcast, a.mac, unix.ETH_P_IP),
				ipv4(netip.IPv4Unspecified(), netip.MustParseAddr("255.255.255.255"), unix.IPPROTO_UDP, udp(68, 67, string(m.ToBytes())))...))
		}
	}
	metrics := "curl -s --unix-socket " + w.Socket("leaf1") + " http://frond/metrics"
	starve(0)
	w.metric("leaf1", metrics, `frond_dhcp_pool_used_addresses{segment="blue"} 8`)
	w.metric("leaf1", metrics, `frond_conditions{name="dhcp-port-limit",severity="warning"} 1`)
	for _, node := range []string{"leaf1", "leaf2", "leaf1"} {
		w.ask(node)
	}

	document, err := os.ReadFile(w.Document())
	must(t, err)
	w.reload(strings.Replace(string(document), "172.16.1.0-172.16.1.15", "172.16.1.0-172.16.1.15, port_limit: 1000", 1))
	starve(1000)
	w.metric("leaf1", metrics, `frond_conditions{name="dhcp-pool",severity="failure"} 1`)
}
