package lab

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"frond/internal/probe"
)

// rivals are two pairs of guests, each pair on leaf1 and leaf2: one on frond's
// devices, one on such as FRR's users make, and the leafs' loopbacks.
type rivals struct {
	*world
	frond, plain, routed [2]probe.Host
}

// newRivals makes devices beside frond's as the manual of FRR says, by ip(8)'s
// defaults but for the MTU, with the entries that zebra would put in. No rules
// of the guard are among them: what those cost, BenchmarkGuard says.
func newRivals(b *testing.B, spines int) rivals {
	b.Helper()
	unguarded := func(document string) string { return document + "guard: {guests: off}\n" }
	w := populate(b, "bench", SpineLeaf(spines, 2), 4, unguarded) // g1 and g3 on leaf1, g2 and g4 on leaf2
	w.whole()
	guests := make(map[string]Guest)
	for _, name := range []string{"g1", "g2", "g3", "g4"} {
		g, err := w.Guest(name)
		must(b, err)
		guests[name] = g
	}
	for _, plug := range []struct{ guest, other string }{{"g3", "g4"}, {"g4", "g3"}} {
		g, far := guests[plug.guest], guests[plug.other]
		vtep := w.node(far.Node).Loopback.String()
		for _, command := range []string{
			"ip link add br-plain type bridge",
			"ip link add vx-plain type vxlan id 200 dstport 4789 nolearning local " + w.node(g.Node).Loopback.String(),
			"ip link set vx-plain mtu 8950",
			"ip link set vx-plain master br-plain",
			"ip link set vx-plain type bridge_slave neigh_suppress on learning off",
			"ip link set vx-plain up",
			"ip link set br-plain up",
			"ip link set " + g.port() + " master br-plain",
			"bridge fdb append 00:00:00:00:00:00 dev vx-plain dst " + vtep,
			"bridge fdb replace " + far.MAC + " dev vx-plain self extern_learn dst " + vtep,
			"bridge fdb replace " + far.MAC + " dev vx-plain master extern_learn",
		} {
			w.inside(g.Node, command)
		}
	}
	r := rivals{world: w}
	for i, names := range [2][2]string{{"g1", "g3"}, {"g2", "g4"}} {
		r.frond[i], r.plain[i] = r.host(names[0], guests[names[0]].Address), r.host(names[1], guests[names[1]].Address)
		leaf := guests[names[0]].Node
		r.routed[i] = r.host(leaf, netip.PrefixFrom(w.node(leaf).Loopback, 32))
	}
	w.inside("g3", "ping -c 3 -i 0.2 -W 2 "+r.plain[1].Addr.String())
	return r
}

func (r rivals) host(name string, address netip.Prefix) probe.Host {
	r.t.Helper()
	ns, err := r.Host(name)
	must(r.t, err)
	r.t.Cleanup(func() { must(r.t, ns.Close()) })
	return probe.Host{Name: name, NS: ns, Addr: address.Addr()}
}

// BenchmarkOverlay is TCP between guests over frond's devices and over plain
// ones, each as a part of what routed loopbacks carry, and the one as a part
// of the other. The three are measured in turns, beginning with another one
// each time, and compared within each turn.
func BenchmarkOverlay(b *testing.B) {
	for _, spines := range []int{1, 2} {
		b.Run(fmt.Sprintf("%d uplinks", spines), func(b *testing.B) { compareOverlays(b, newRivals(b, spines)) })
	}
}

func compareOverlays(b *testing.B, r rivals) {
	const (
		turns = 31
		span  = 500 * time.Millisecond
	)
	for _, streams := range []int{1, 32} {
		b.Run(fmt.Sprintf("%d streams", streams), func(b *testing.B) {
			ways := [][2]probe.Host{r.frond, r.plain, r.routed, r.plain}
			var frond, plain, versus, itself, gigabits []float64
			for turn := range turns {
				rates := make([]float64, len(ways))
				for i := range ways {
					i = (i + turn) % len(ways)
					carried, err := probe.Bandwidth(b.Context(), ways[i][0], ways[i][1], streams, span)
					must(b, err)
					rates[i] = carried.BitsPerSecond()
				}
				frond = append(frond, rates[0]/rates[2])
				plain = append(plain, rates[1]/rates[2])
				versus = append(versus, rates[0]/rates[1])
				itself = append(itself, rates[3]/rates[1])
				gigabits = append(gigabits, rates[0]/1e9)
			}
			b.ReportMetric(median(frond), "frond/routed")
			b.ReportMetric(median(plain), "plain/routed")
			b.ReportMetric(median(versus), "frond/plain")
			b.ReportMetric(median(itself), "plain/plain")
			b.ReportMetric(median(gigabits), "Gbit/s-frond")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// BenchmarkUplinks is what part of 64 flows between two leafs the uplink
// carries that carries less: 50 % is best.
func BenchmarkUplinks(b *testing.B) {
	const turns, flows, packets = 5, 64, 100
	r := newRivals(b, 2)
	for _, way := range []struct {
		name  string
		hosts [2]probe.Host
	}{{"frond", r.frond}, {"plain", r.plain}, {"routed", r.routed}} {
		b.Run(way.name, func(b *testing.B) {
			var lesser []float64
			ports := []string{"eth1", "eth2"}
			for range turns {
				before, err := sentBytes(r.routed[0].NS, ports)
				must(b, err)
				for range flows {
					r.in(b).sendDatagrams(way.hosts, packets)
				}
				after, err := sentBytes(r.routed[0].NS, ports)
				must(b, err)
				first, second := after["eth1"]-before["eth1"], after["eth2"]-before["eth2"]
				lesser = append(lesser, 100*float64(min(first, second))/float64(first+second))
			}
			b.ReportMetric(slices.Min(lesser), "%-min")
			b.ReportMetric(median(lesser), "%-median")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// sendDatagrams sends so many packets from one port.
func (w *world) sendDatagrams(hosts [2]probe.Host, packets int) {
	w.t.Helper()
	must(w.t, hosts[0].NS.Do(func() error {
		flow, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(hosts[0].Addr, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(hosts[1].Addr, 9)))
		if err != nil {
			return err
		}
		payload := make([]byte, 1000)
		for range packets {
			_, _ = flow.Write(payload) // refused by the other side
		}
		return flow.Close()
	}))
}
