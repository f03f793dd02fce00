package lab

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"frond/internal/api"
	"frond/internal/status"
)

// replaceByFRR stops a node's agent, removes all that was frond's, and runs
// FRR in its place, configured as its manual says for unnumbered data centres.
func (w *world) replaceByFRR(node string, password, bfd bool) *frr {
	w.t.Helper()
	must(w.t, api.NewClient(w.Socket(node)).Down(w.t.Context()))
	n := w.node(node)
	var b strings.Builder
	fmt.Fprintf(&b, "frr defaults datacenter\nhostname %s\n!\n", node)
	fmt.Fprintf(&b, "interface lo\n ip address %s/32\n ipv6 address %s/128\n!\n", n.Loopback, n.Loopback6)
	fmt.Fprintf(&b, "router bgp %d\n bgp router-id %s\n bgp bestpath as-path multipath-relax\n", n.ASN, n.Loopback)
	var activate strings.Builder
	for _, c := range w.Topology.Cables {
		near, _, ok := c.At(node)
		if !ok {
			continue
		}
		fmt.Fprintf(&b, " neighbor %s interface remote-as external\n", near.Port)
		if password {
			fmt.Fprintf(&b, " neighbor %s password correct-horse\n", near.Port)
		}
		if bfd {
			fmt.Fprintf(&b, " neighbor %s bfd\n", near.Port)
		}
		fmt.Fprintf(&activate, "  neighbor %s activate\n", near.Port)
	}
	fmt.Fprintf(&b, " address-family ipv4 unicast\n  network %s/32\n exit-address-family\n", n.Loopback)
	fmt.Fprintf(&b, " address-family ipv6 unicast\n  network %s/128\n%s exit-address-family\n", n.Loopback6, activate.String())
	fmt.Fprintf(&b, " address-family l2vpn evpn\n%s  advertise-all-vni\n exit-address-family\n!\n", activate.String())
	return startFRR(w.t.(*testing.T), w.namespace(node), b.String())
}

// TestFRR has a real FRR as spine among frond's leafs, and as leaf under
// frond's spines, plain and with everything.
func TestFRR(t *testing.T) {
	for _, node := range []string{"spine1", "leaf1"} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, password and BFD %v", node, secure), func(t *testing.T) {
				var extra []string
				if secure {
					extra = append(extra, "password_file: bgp.key")
				}
				w := bring(t, "interop", SpineLeaf(2, 2), extra...)
				w.whole()
				f := w.replaceByFRR(node, secure, secure)
				w.whole()
				if secure {
					f.eventually("show bfd peers brief", func(output string) bool { return strings.Count(output, " up ") == 2 })
				}
				for _, c := range w.Topology.Cables {
					if near, far, ok := c.At(node); ok {
						w.eventually(far.Node, "a session with FRR, which tells its host name", func(s status.Snapshot) bool {
							p := peerOn(s, far.Port)
							return p.Name != "" && p.Software == "" && p.State == "established" && (p.BFD == "up") == secure
						})
						_ = near
					}
				}
			})
		}
	}
}

func peerOn(s status.Snapshot, port string) status.Peer {
	for _, p := range s.Peers {
		if p.Port == port {
			return p
		}
	}
	return status.Peer{}
}

// TestFRRRestarts has FRR see a frond node's agent killed and brought back.
func TestFRRRestarts(t *testing.T) {
	w := bring(t, "interoprestart", SpineLeaf(2, 2))
	w.whole()
	f := w.replaceByFRR("spine1", false, false)
	w.whole()
	stop := w.traffic("leaf1", "leaf2")
	must(t, w.Kill(t.Context(), "leaf1"))
	prefix := netip.PrefixFrom(w.node("leaf1").Loopback, 32).String()
	f.eventually("show bgp ipv4 unicast "+prefix, func(output string) bool {
		return strings.Contains(output, "Stale") || strings.Contains(output, "stale")
	})
	must(t, w.Start("leaf1"))
	w.whole()
	w.eventually("leaf1", "session with FRR", func(s status.Snapshot) bool {
		return s.Ready && len(s.Peers) > 0 && s.Peers[0].State == "established"
	})
	f.eventually("show bgp ipv4 unicast "+prefix, func(output string) bool {
		return !strings.Contains(output, "stale") && strings.Contains(output, "valid")
	})
	w.nothingLost(stop())
}
