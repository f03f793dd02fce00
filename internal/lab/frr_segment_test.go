package lab

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"frond/internal/api"
	"frond/internal/status"
)

// TestFRRSegment has a real FRR as leaf of a segment, with all spines frond's
// and with one of them FRR's too.
func TestFRRSegment(t *testing.T) {
	for _, spine := range []bool{false, true} {
		t.Run(fmt.Sprintf("FRR spine %v", spine), func(t *testing.T) {
			w := populate(t, "frrsegment", SpineLeaf(2, 3), 0)
			w.whole()
			if spine {
				w.replaceByFRR("spine1", false, false)
				// What is proven below goes by FRR alone.
				for _, leaf := range []string{"leaf1", "leaf2", "leaf3"} {
					must(t, w.Cut(end("spine2"), end(leaf)))
				}
			}
			f := w.replaceByFRR("leaf1", false, false)
			w.frrSegment("leaf1")
			w.whole()
			for _, g := range []string{"leaf1", "leaf2", "leaf3", "leaf2"} {
				w.addGuest(g)
			}

			t.Run("types 2 and 3 both ways", func(t *testing.T) {
				w := w.in(t)
				w.whole()
				w.knows("leaf2", "g1", "leaf1")
				w.frrKnows(f, "g2", "leaf2")
				w.evpn("leaf2", "type 3 of FRR", func(r status.EVPNRoute) bool {
					return r.Type == 3 && r.Used && r.VTEP == w.node("leaf1").Loopback.String()
				})
				f.eventually("show evpn vni 100", func(out string) bool {
					return strings.Contains(out, w.node("leaf2").Loopback.String()) && strings.Contains(out, w.node("leaf3").Loopback.String())
				})
			})
			t.Run("addresses", func(t *testing.T) {
				w := w.in(t)
				g, err := w.Guest("g2")
				must(t, err)
				f.eventually("show evpn arp-cache vni 100", func(out string) bool {
					return strings.Contains(out, g.Address.Addr().String()) && strings.Contains(out, g.MAC)
				})
			})
			t.Run("moves", func(t *testing.T) {
				w := w.in(t)
				for _, to := range []string{"leaf1", "leaf3", "leaf1", "leaf2"} {
					must(t, w.MoveGuest(t.Context(), "g2", to, true))
					for _, node := range []string{"leaf2", "leaf3"} {
						w.knows(node, "g2", to)
					}
					w.whole()
				}
			})
			t.Run("prefixes", func(t *testing.T) { w.in(t).prefixes(f, spine) })
		})
	}
}

// prefixes proves type 5 both ways between leaf1, which is FRR's, and leaf2.
// The segment has a gateway meanwhile, but not on FRR's node.
func (w *world) prefixes(f *frr, spine bool) {
	without, err := os.ReadFile(w.Document())
	must(w.t, err)
	load := func(document string) {
		must(w.t, os.WriteFile(w.Document(), []byte(document), 0o644))
		for _, n := range w.Topology.Nodes {
			if n.Name != "leaf1" && (n.Name != "spine1" || !spine) {
				must(w.t, api.NewClient(w.Socket(n.Name)).Reload(w.t.Context()))
			}
		}
	}
	// FRR tells its prefixes by a VNI that the document does not have, which the guard refuses.
	load(strings.Replace(string(without), "prefix: 172.16.0.0/16", "prefix: 172.16.0.0/16, gateway: {address: 172.16.255.254}", 1) + "guard: {routes: off}\n")
	leaf1, leaf2 := w.node("leaf1").Loopback.String(), w.node("leaf2").Loopback.String()
	const router = "02:68:00:00:00:64" // of the gateway
	f.eventually("show bgp l2vpn evpn route rd "+leaf2+":100 type prefix", func(out string) bool {
		return strings.Contains(out, "Route [5]:[0]:[16]:[172.16.0.0] VNI 100") && strings.Contains(out, "valid, external") &&
			strings.Contains(out, "best") && strings.Contains(out, "Rmac:"+router)
	})

	// The prefix leads where it says: to that MAC in the segment's VNI. So
	// FRR's node reaches a guest of leaf2 from outside of the segment.
	g2, err := w.Guest("g2")
	must(w.t, err)
	target := g2.Address.Addr().String()
	w.inside("g2", "ip route replace default via 172.16.255.254")
	for _, command := range []string{
		"ip neigh replace " + leaf2 + " lladdr " + router + " dev br-blue nud permanent",
		"bridge fdb replace " + router + " dev vx-blue self master static dst " + leaf2,
		"ip route replace " + target + " via " + leaf2 + " dev br-blue onlink src " + leaf1,
		"ping -c 3 -i 0.2 -W 2 -I " + leaf1 + " " + target,
		"ip route del " + target,
	} {
		w.inside("leaf1", command)
	}

	// FRR tells its own by a VNI for routing, here without a VRF.
	for _, command := range []string{
		"link add br-l3 type bridge",
		"link add vx-l3 type vxlan id 4000 dstport 4789 nolearning local " + leaf1,
		"link set vx-l3 master br-l3 addrgenmode none",
		"link set vx-l3 up",
		"link set br-l3 up",
	} {
		w.inside("leaf1", "ip "+command)
	}
	f.vtysh("-c", "configure terminal", "-c", "vni 4000",
		"-c", fmt.Sprint("router bgp ", w.node("leaf1").ASN), "-c", "address-family l2vpn evpn", "-c", "advertise ipv4 unicast")
	for _, leaf := range []string{"leaf2", "leaf3"} {
		w.evpn(leaf, "type 5 of FRR", func(r status.EVPNRoute) bool {
			return r.Type == 5 && r.Route == "[5]:[0]:[32]:["+leaf1+"]" && r.VNI == 4000 && r.VTEP == leaf1 && !r.Used
		})
		w.evpn(leaf, "type 5 of leaf2 or leaf3", func(r status.EVPNRoute) bool {
			return r.Type == 5 && r.Route == "[5]:[0]:[16]:[172.16.0.0]" && !r.Local
		})
	}
	for _, s := range w.segmentsOf("leaf2") {
		if len(s.Problems) > 0 {
			w.t.Errorf("with FRR's prefixes: %q", s.Problems)
		}
	}
	load(string(without))
	f.eventually("show bgp l2vpn evpn route rd "+leaf2+":100 type prefix", func(out string) bool {
		return !strings.Contains(out, "172.16.0.0")
	})
	w.whole()
}

func (w *world) addGuest(node string) {
	w.t.Helper()
	g, err := w.NextGuest("", node)
	must(w.t, err)
	must(w.t, w.AddGuest(w.t.Context(), g))
}

// evpn waits until a node shows a route that satisfies ok.
func (w *world) evpn(node, what string, ok func(status.EVPNRoute) bool) {
	w.t.Helper()
	var routes []status.EVPNRoute
	limit := time.Now().Add(20 * time.Second)
	for time.Now().Before(limit) {
		var err error
		routes, err = api.NewClient(w.Socket(node)).EVPN(w.t.Context())
		for _, r := range routes {
			if err == nil && ok(r) {
				return
			}
		}
		time.Sleep(askInterval)
	}
	w.t.Fatalf("%s never shows %s: %+v", node, what, routes)
}

// frrSegment makes a segment's devices as the manual of FRR says, with the
// names that the document gives the bridge.
func (w *world) frrSegment(node string) {
	w.t.Helper()
	local := w.node(node).Loopback.String()
	for _, command := range []string{
		"link add br-blue type bridge",
		"link add vx-blue type vxlan id 100 dstport 4789 nolearning local " + local,
		"link set vx-blue master br-blue addrgenmode none",
		"link set vx-blue type bridge_slave neigh_suppress on learning off",
		"link set br-blue addrgenmode none",
		"link set vx-blue up",
		"link set br-blue up",
	} {
		must(w.t, w.namespace(node).Do(func() error {
			out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("ip %s: %w: %s", command, err, out)
			}
			return nil
		}))
	}
}

// frrKnows waits until FRR knows a guest's MAC to be at a VTEP.
func (w *world) frrKnows(f *frr, guest, at string) {
	w.t.Helper()
	g, err := w.Guest(guest)
	must(w.t, err)
	f.eventually("show evpn mac vni 100", func(out string) bool {
		for line := range strings.Lines(out) {
			if strings.Contains(line, g.MAC) && strings.Contains(line, w.node(at).Loopback.String()) {
				return true
			}
		}
		return false
	})
}
