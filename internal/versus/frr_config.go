package versus

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"frond/internal/fabric"
)

// frrStyle is how FRR is configured.
type frrStyle struct {
	// tuned sets what makes it faster than the datacenter profile alone:
	// shorter timers, routes without next hop objects, router advertisements
	// each second, graceful restart.
	tuned bool
	bfd   time.Duration // 0: none, as is the default
	// network is a segment's prefix, which nodes that have an address in it
	// announce; ARP suppression is off then, with which guests would keep the MAC
	// of a gateway that has moved. Zero: segments are not routed.
	network netip.Prefix
}

// frrConfig is each daemon's configuration file on a node with these ports to
// other nodes, as the manual says for unnumbered data centres.
func (s frrStyle) frrConfig(n fabric.Node, ports []string) map[string]string {
	head := fmt.Sprintf("frr defaults datacenter\nhostname %s\n", n.Name)
	files := map[string]string{
		"zebra":   head + s.zebra(n, ports),
		"bgpd":    head + s.bgpd(n, ports),
		"staticd": head,
		"bfdd":    head,
	}
	if s.bfd > 0 {
		ms := s.bfd.Milliseconds()
		files["bfdd"] += fmt.Sprintf("bfd\n profile fast\n  detect-multiplier 3\n  transmit-interval %d\n  receive-interval %d\n", ms, ms)
	}
	return files
}

func (s frrStyle) zebra(n fabric.Node, ports []string) string {
	var b strings.Builder
	if s.tuned {
		b.WriteString("no zebra nexthop kernel enable\n")
		for _, port := range ports {
			fmt.Fprintf(&b, "interface %s\n ipv6 nd ra-interval 1\n no ipv6 nd suppress-ra\n", port)
		}
	}
	fmt.Fprintf(&b, "interface lo\n ip address %s/32\n ipv6 address %s/128\n", n.Loopback, n.Loopback6)
	return b.String()
}

func (s frrStyle) bgpd(n fabric.Node, ports []string) string {
	var b, activate strings.Builder
	fmt.Fprintf(&b, "router bgp %d\n bgp router-id %s\n bgp bestpath as-path multipath-relax\n", n.ASN, n.Loopback)
	if s.tuned {
		b.WriteString(" bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n coalesce-time 10\n")
	}
	for _, port := range ports {
		fmt.Fprintf(&b, " neighbor %s interface remote-as external\n", port)
		if s.tuned {
			fmt.Fprintf(&b, " neighbor %s timers 1 3\n neighbor %s timers connect 1\n", port, port)
		}
		if s.bfd > 0 {
			fmt.Fprintf(&b, " neighbor %s bfd profile fast\n", port)
		}
		fmt.Fprintf(&activate, "  neighbor %s activate\n", port)
	}
	fmt.Fprintf(&b, " address-family ipv4 unicast\n  network %s/32\n", n.Loopback)
	if s.network.IsValid() {
		fmt.Fprintf(&b, "  network %s\n", s.network)
	}
	b.WriteString(" exit-address-family\n")
	fmt.Fprintf(&b, " address-family ipv6 unicast\n  network %s/128\n%s exit-address-family\n", n.Loopback6, activate.String())
	fmt.Fprintf(&b, " address-family l2vpn evpn\n%s  advertise-all-vni\n exit-address-family\n", activate.String())
	return b.String()
}
