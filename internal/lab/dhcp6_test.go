package lab

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"frond/internal/api"
)

// leasing6 is a document whose guests get addresses of both families.
func leasing6(document string) string {
	return strings.Replace(document, "prefix: 172.16.0.0/16", `prefix: 172.16.0.0/16, prefix6: "fd00:16::/64", `+
		`gateway: {address: 172.16.0.1, address6: "fd00:16::1"}, dhcp: {range: 172.16.1.0-172.16.9.255}, `+
		`dhcp6: {range: "fd00:16::1:0-fd00:16::1:ffff", reservations: {printer: {mac: "02:00:00:00:00:99", address: "fd00:16::9"}}}, `+
		`ntp: ["2001:db8::123"]`, 1) +
		`  own: {vni: 200, nodes: ["leaf*"], prefix: 172.17.0.0/24, prefix6: "fd00:17::/64", gateway: {address: 172.17.0.1, address6: "fd00:17::1"}}
`
}

// addressScript has a guest be as dhclient says, and notes all that it knows.
const addressScript = `#!/bin/sh
env >> $0.$reason
case $reason in
BOUND6 | RENEW6 | REBIND6)
	ip -6 addr replace $new_ip6_address/$new_ip6_prefixlen dev $interface nodad valid_lft $new_max_life preferred_lft $new_preferred_life
	;;
esac
`

// ask6 has a guest ask by dhclient, and returns what its client was told. The
// client ends without giving anything back.
func (w *world) ask6(guest, options, reason string) (told map[string]string) {
	w.t.Helper()
	dir := w.t.TempDir()
	script := filepath.Join(dir, "script")
	must(w.t, os.WriteFile(script, []byte(addressScript), 0o755))
	must(w.t, os.WriteFile(filepath.Join(dir, "conf"), []byte(
		"also request dhcp6.name-servers, dhcp6.domain-search;\nsend fqdn.fqdn \""+guest+"\";\nsend fqdn.encoded on;\n"), 0o644))
	out, err := w.shell(guest, fmt.Sprintf("timeout 30 dhclient -6 -1 -v -D LL %[1]s -cf %[2]s/conf -sf %[2]s/script -lf %[2]s/leases -pf %[2]s/pid eth0 && timeout 10 sh -c '"+
		"until [ -s %[2]s/pid ]; do sleep 0.05; done; client=$(cat %[2]s/pid); kill $client; while kill -0 $client 2>/dev/null; do sleep 0.05; done'", options, dir))
	if err != nil {
		w.t.Fatalf("dhclient of %s: %v\n%s", guest, err, out)
	}
	text, err := os.ReadFile(script + "." + reason)
	if err != nil {
		w.t.Fatalf("dhclient of %s: %v\n%s", guest, err, out)
	}
	told = make(map[string]string)
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		told[name] = value
	}
	return told
}

// TestDHCPv6 has guests get their IPv6 addresses by real clients, and find each
// other by name.
func TestDHCPv6(t *testing.T) {
	w := populate(t, "dhcp6", SpineLeaf(2, 2), 0, leasing6)
	w.steady()
	crossing := w.overhear("leaf1", "vx-blue", "ip6 and udp and (port 546 or port 547)")
	one, two := w.ask("leaf1"), w.ask("leaf2")
	within := netip.MustParsePrefix("fd00:16::1:0/112")
	addresses := map[string]string{}
	for _, g := range []Guest{one, two} {
		told := w.ask6(g.Name, "", "BOUND6")
		if a, err := netip.ParseAddr(told["new_ip6_address"]); err != nil || !within.Contains(a) {
			t.Errorf("%s has %q", g.Name, told["new_ip6_address"])
		}
		if told["new_dhcp6_name_servers"] != "fd00:16::1" || !strings.HasPrefix(told["new_dhcp6_domain_search"], "blue."+w.Name) {
			t.Errorf("%s is told of name servers %q, domains %q", g.Name, told["new_dhcp6_name_servers"], told["new_dhcp6_domain_search"])
		}
		addresses[g.Name] = told["new_ip6_address"]
	}
	if addresses[one.Name] == addresses[two.Name] {
		t.Errorf("both have %s", addresses[one.Name])
	}
	below := ".blue." + w.Name
	for asking, other := range map[string]string{one.Name: two.Name, two.Name: one.Name} {
		const dig = "dig +timeout=2 +tries=1 +short @fd00:16::1 "
		w.shows(asking, "ping -6 -c 1 -W 1 "+addresses[other], " 0% packet loss")
		w.shows(asking, dig+"AAAA "+other+below, addresses[other])
		w.shows(asking, dig+"-x "+addresses[other], other+below)
		w.shows(asking, dig+"AAAA printer"+below, "fd00:16::9")
		w.shows(asking, "ip -6 route show default", "via fe80::68:ff:fe00:64 dev eth0 proto ra")
		if out, _ := w.shell(asking, "ip -6 addr show dev eth0 scope global"); strings.Count(out, "inet6") != 1 {
			t.Errorf("%s has made addresses of its own:\n%s", asking, out)
		}
	}
	list := w.leases("leaf1")
	for _, g := range []Guest{one, two} {
		found := false
		for _, l := range list {
			found = found || l.Address == addresses[g.Name] && l.MAC == g.MAC && l.State == "leased" && l.Hostname == g.Name
		}
		if !found {
			t.Errorf("%s of %s is not among the leases: %+v", addresses[g.Name], g.Name, list)
		}
	}

	// dhcpcd solicits where a router says so, and keeps its files to itself. On
	// an address that is there before, it listens twice.
	w.inside(one.Name, "ip -6 addr flush dev eth0 scope global")
	out, err := w.shell(one.Name, "unshare -m sh -c 'mount -t tmpfs none /run && mount -t tmpfs none /var/lib/dhcpcd && "+
		"timeout 30 dhcpcd -6 -1 -d -f /dev/null -c /bin/true -t 20 -w -o domain_name_servers -o dhcp6_name_servers eth0'")
	if err != nil || !strings.Contains(out, "REPLY6 received") || !strings.Contains(out, "adding address fd00:16::1:") {
		sockets, _ := w.shell(one.Name, "ss -lnup")
		t.Errorf("dhcpcd: %v\n%s\n%s", err, out, sockets)
	}

	must(t, w.Stop(t.Context(), "leaf1"))
	must(t, w.Start("leaf1"))
	w.steady()
	if again := w.ask6(one.Name, "", "BOUND6")["new_ip6_address"]; again != addresses[one.Name] {
		t.Errorf("after a restart of the agent, %s has %s, not %s", one.Name, again, addresses[one.Name])
	}

	own, err := w.NextGuest("own", "leaf1")
	must(t, err)
	must(t, w.AddGuest(t.Context(), own))
	w.shows(own.Name, "ip -6 addr show dev eth0 scope global", "inet6 fd00:17:")
	told := w.ask6(own.Name, "-S", "RENEW6")
	if told["new_dhcp6_name_servers"] != "fd00:17::1" || !strings.HasPrefix(told["new_dhcp6_domain_search"], "own."+w.Name) {
		t.Errorf("without addresses, told of is %v", told)
	}

	if out := crossing(); out != "" {
		t.Errorf("requests cross the fabric:\n%s", out)
	}
	must(t, api.NewClient(w.Socket("leaf1")).Down(t.Context()))
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(askInterval) {
		out, _ := w.shell(own.Name, "ip -6 route show default")
		if !strings.Contains(out, "fe80::68") {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("its node has left, but the guest still has its router: %s", out)
		}
	}
}
