package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"

	"frond/internal/netns"
)

// beginner is a guest that has only just been started: it gets its address and
// at once says something to somebody beyond its gateway.
type beginner struct {
	Guest
	ns     *netns.NS
	link   *netlink.Handle
	dhcp   *net.UDPConn
	icmp   net.PacketConn
	leased netip.Addr
	took   time.Duration // from the acknowledgement to the first answer
	answer time.Duration // from the first echo to that: all but the guest's own part
	echoes int           // sent until then
}

// BenchmarkLeaseToPing has many guests on three nodes start at once: how long
// until the last has its address, and how long after its lease each has the
// first answer of a guest of another segment on another node, through the
// gateway; and how much of that passes after the guest has begun to ask. Before
// that, it gives itself address and route, for which all the guests' kernels,
// which are one here, share a lock. Those of each round have other MACs than
// those before.
func BenchmarkLeaseToPing(b *testing.B) {
	const guests = 300
	w := populate(b, "leaseping", SpineLeaf(2, 3), guests, leasing, func(document string) string {
		return document + `  red: {vni: 200, nodes: ["leaf*"], prefix: 172.17.0.0/16, gateway: {address: 172.17.0.1}}` + "\n"
	})
	w.steady()
	target, err := w.NextGuest("red", "leaf3")
	must(b, err)
	must(b, w.AddGuest(b.Context(), target))
	all := make([]*beginner, guests)
	for i, g := range w.Topology.Guests[:guests] {
		all[i] = w.beginner(g)
	}
	var medians, longest [2][]float64
	for round := 0; b.Loop(); round++ {
		b.StopTimer()
		for _, g := range all {
			must(b, g.shut(byte(round+1)))
		}
		time.Sleep(3 * time.Second) // the nodes have taken that in
		b.StartTimer()
		begun := time.Now()
		var starting sync.WaitGroup
		for _, g := range all {
			starting.Go(func() {
				if err := g.start(target.Address.Addr()); err != nil {
					b.Errorf("%s: %v", g.Name, err)
				}
			})
		}
		starting.Wait()
		lasted := time.Since(begun)
		b.StopTimer()
		var took, answers []float64
		var addresses []netip.Addr
		echoes := 0
		for _, g := range all {
			took = append(took, float64(g.took.Microseconds())/1000)
			answers = append(answers, float64(g.answer.Microseconds())/1000)
			addresses = append(addresses, g.leased)
			echoes += g.echoes
		}
		slices.Sort(took)
		slices.Sort(answers)
		slices.SortFunc(addresses, netip.Addr.Compare)
		if different := len(slices.Compact(addresses)); different != guests {
			b.Errorf("%d guests have %d addresses", guests, different)
		}
		medians[0], medians[1] = append(medians[0], took[guests/2]), append(medians[1], answers[guests/2])
		longest[0], longest[1] = append(longest[0], took[guests-1]), append(longest[1], answers[guests-1])
		b.Logf("all in %.2f s; first answer after the lease: median %.1f, 99 %% %.1f, longest %.1f ms; after the first echo: %.1f, %.1f, %.1f ms, %.2f echoes each",
			lasted.Seconds(), took[guests/2], took[guests*99/100], took[guests-1], answers[guests/2], answers[guests*99/100], answers[guests-1], float64(echoes)/guests)
		b.StartTimer()
	}
	for i, since := range []string{"lease", "echo"} {
		b.ReportMetric(median(medians[i]), "ms-"+since+"-median")
		b.ReportMetric(slices.Max(longest[i]), "ms-"+since+"-longest")
	}
}

// beginner takes a guest's namespace over.
func (w *world) beginner(g Guest) *beginner {
	w.t.Helper()
	ns, err := w.Host(g.Name)
	must(w.t, err)
	n := &beginner{Guest: g, ns: ns, dhcp: w.clientSocket(ns)}
	n.link, err = netlink.NewHandleAt(vns.NsHandle(ns.Fd()))
	must(w.t, err)
	must(w.t, ns.Do(func() (err error) {
		n.icmp, err = net.ListenPacket("ip4:icmp", "0.0.0.0")
		return err
	}))
	w.t.Cleanup(func() {
		n.link.Close()
		_ = n.icmp.Close()
		must(w.t, ns.Close())
	})
	return n
}

// shut has the guest be as one that is not started yet, with another MAC.
func (g *beginner) shut(round byte) error {
	eth0, err := g.link.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := g.link.LinkSetDown(eth0); err != nil {
		return err
	}
	addresses, err := g.link.AddrList(eth0, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, a := range addresses {
		if err := g.link.AddrDel(eth0, &a); err != nil {
			return err
		}
	}
	mac := slices.Clone(eth0.Attrs().HardwareAddr)
	mac[2] = round
	return g.link.LinkSetHardwareAddr(eth0, mac)
}

// start has the guest begin.
func (g *beginner) start(target netip.Addr) error {
	eth0, err := g.link.LinkByName("eth0")
	if err != nil {
		return err
	}
	if err := g.link.LinkSetUp(eth0); err != nil {
		return err
	}
	ack, err := g.ask(eth0.Attrs().HardwareAddr)
	leased := time.Now()
	if err != nil {
		return err
	}
	g.leased, _ = netip.AddrFromSlice(ack.YourIPAddr.To4())
	if err := g.link.AddrReplace(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: ack.YourIPAddr, Mask: ack.SubnetMask()}}); err != nil {
		return err
	}
	if err := g.link.RouteReplace(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: ack.Router()[0]}); err != nil {
		return err
	}
	begun := time.Now()
	g.echoes, err = g.ping(target)
	g.took, g.answer = time.Since(leased), time.Since(begun)
	return err
}

// ask gets an address, as clients do.
func (g *beginner) ask(mac net.HardwareAddr) (*dhcpv4.DHCPv4, error) {
	const again, patience = time.Second, 20 * time.Second
	said, err := dhcpv4.NewDiscovery(mac, dhcpv4.WithBroadcast(true))
	if err != nil {
		return nil, err
	}
	buffer := make([]byte, 1500)
	for begun := time.Now(); time.Since(begun) < patience; {
		if _, err := g.dhcp.WriteTo(said.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 67}); err != nil {
			return nil, err
		}
		for limit := time.Now().Add(again); ; {
			if err := g.dhcp.SetReadDeadline(limit); err != nil {
				return nil, err
			}
			n, err := g.dhcp.Read(buffer)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return nil, err
			}
			m, err := dhcpv4.FromBytes(buffer[:n])
			if err != nil || m.TransactionID != said.TransactionID {
				continue
			}
			if m.MessageType() == dhcpv4.MessageTypeAck {
				return m, nil
			}
			if said, err = dhcpv4.NewRequestFromOffer(m, dhcpv4.WithBroadcast(true)); err != nil {
				return nil, fmt.Errorf("after %s: %w", m.MessageType(), err)
			}
			break
		}
	}
	return nil, errors.New("no lease")
}

// ping sends echoes until one is answered, and returns how many.
func (g *beginner) ping(target netip.Addr) (echoes int, err error) {
	const again, most = 20 * time.Millisecond, 500
	to, buffer := &net.IPAddr{IP: target.AsSlice()}, make([]byte, 1500)
	for echoes = 1; echoes <= most; echoes++ {
		echo := []byte{8, 0, 0, 0, 0x11, 0x22, byte(echoes >> 8), byte(echoes)}
		binary.BigEndian.PutUint16(echo[2:], checksum(echo))
		if _, err := g.icmp.WriteTo(echo, to); err != nil {
			return echoes, err
		}
		if err := g.icmp.SetReadDeadline(time.Now().Add(again)); err != nil {
			return echoes, err
		}
		for {
			n, from, err := g.icmp.ReadFrom(buffer)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return echoes, err
			}
			if n >= 8 && buffer[0] == 0 && from.(*net.IPAddr).IP.Equal(to.IP) {
				return echoes, nil
			}
		}
	}
	return echoes, errors.New("no answer by the gateway")
}
