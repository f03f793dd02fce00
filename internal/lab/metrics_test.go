package lab

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// metric waits until a node's metrics, asked for by this command on a host,
// have a line.
func (w *world) metric(host, command, line string) {
	w.t.Helper()
	var out string
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); time.Sleep(askInterval) {
		out = w.inside(host, command)
		if strings.Contains("\n"+out, "\n"+line+"\n") {
			return
		}
	}
	w.t.Errorf("%s: never %s in\n%s", host, line, out)
}

// TestMetrics scrapes an agent over its socket and over the network, as a pool
// fills and a guest does what it must not.
func TestMetrics(t *testing.T) {
	w := populate(t, "metrics", SpineLeaf(1, 2), 0, leasing, func(document string) string {
		return strings.Replace(document, "172.16.1.0-172.16.9.255", "172.16.1.0-172.16.1.3", 1)
	})
	w.steady()
	guest := w.ask("leaf1")
	w.ask("leaf2")
	a := w.attacker(guest.Name)
	a.send(arpReply(broadcast, a.mac, netip.MustParseAddr("172.16.0.1")))
	socket := "curl -s --unix-socket " + w.Socket("leaf1") + " http://frond/metrics"
	network := fmt.Sprintf("curl -s --cacert %[1]s/ca.crt --cert %[1]s/spine1.crt --key %[1]s/spine1.key --connect-to leaf1:7179:%[2]s:7179 https://leaf1:7179/metrics",
		w.PKI(), w.node("leaf1").Loopback)
	for host, command := range map[string]string{"leaf1": socket, "spine1": network} {
		for _, line := range []string{
			`frond_ready 1`,
			`frond_bgp_sessions{state="established"} 1`,
			`frond_bgp_session_up{port="eth1"} 1`,
			`frond_bfd_sessions{state="up"} 1`,
			`frond_segment_ready{segment="blue"} 1`,
			`frond_segment_vteps{segment="blue"} 1`,
			`frond_segment_macs{segment="blue",where="local"} 1`,
			`frond_segment_macs{segment="blue",where="remote"} 1`,
			`frond_gateway_held{mode="anycast",segment="blue"} 1`,
			`frond_dhcp_pool_addresses{segment="blue"} 4`,
			`frond_dhcp_pool_used_addresses{segment="blue"} 2`,
			`frond_guard_dropped_packets_total{port="v` + guest.Name + `",rule="gateway",segment="blue"} 1`,
			`frond_store_majority 1`,
			`frond_kernel_refused_operations{part="routes"} 0`,
		} {
			w.metric(host, command, line)
		}
	}
}
