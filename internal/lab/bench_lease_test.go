package lab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
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
	eth0   netlink.Link
	ack    *dhcpv4.DHCPv4
	since  time.Time // when it came
	leased netip.Addr
	took   time.Duration // from the acknowledgement to the first answer
	answer time.Duration // from the first echo to that: all but the guest's own part
	echoes int           // sent until then
}

// beginners are guests on three nodes that start again and again, as others each
// time, and one of another segment that they speak to.
type beginners struct {
	*world
	all    []*beginner
	target netip.Addr
	round  byte
}

// BenchmarkLeaseToPing has many guests on three nodes start: how long until the
// last has its address, and how long after its lease each has the first answer of
// a guest of another segment on another node, through the gateway; and how much
// of that passes after the guest has begun to ask. Before that, it gives itself
// address and route, for which all the guests' kernels, which are one here, share
// a lock. The guests start all at once, once only for their addresses, and so many
// in a second as the machine can be for all of at once, nodes and guests.
func BenchmarkLeaseToPing(b *testing.B) {
	const guests = 300
	w := populate(b, "leaseping", SpineLeaf(2, 3), guests, leasing, func(document string) string {
		document = strings.Replace(document, "172.16.1.0-172.16.9.255", "172.16.1.0-172.16.99.255", 1) // others for each round
		return document + `  red: {vni: 200, nodes: ["leaf*"], prefix: 172.17.0.0/16, gateway: {address: 172.17.0.1}}` + "\n"
	})
	w.steady()
	target, err := w.NextGuest("red", "leaf3")
	must(b, err)
	must(b, w.AddGuest(b.Context(), target))
	starting := &beginners{world: w, all: make([]*beginner, guests), target: target.Address.Addr()}
	for i, g := range w.Topology.Guests[:guests] {
		starting.all[i] = w.beginner(g)
	}
	b.Run("Leases", func(b *testing.B) {
		var lasted []float64
		for b.Loop() {
			lasted = append(lasted, starting.start(b, 0, (*beginner).lease).Seconds())
			b.Logf("all have an address after %.2f s", lasted[len(lasted)-1])
		}
		b.ReportMetric(median(lasted), "s-all-median")
		b.ReportMetric(slices.Max(lasted), "s-all-longest")
	})
	b.Run("AtOnce", func(b *testing.B) { starting.reach(b, 0) })
	b.Run("Each50ms", func(b *testing.B) { starting.reach(b, 50*time.Millisecond) })
}

// reach measures guests that start at such intervals, until each has been
// answered.
func (s *beginners) reach(b *testing.B, interval time.Duration) {
	b.Helper()
	var medians, longest [2][]float64
	for b.Loop() {
		lasted := s.start(b, interval, func(g *beginner) error { return g.reach(s.target) })
		b.StopTimer()
		var took, answers []float64
		echoes := 0
		for _, g := range s.all {
			took = append(took, float64(g.took.Microseconds())/1000)
			answers = append(answers, float64(g.answer.Microseconds())/1000)
			echoes += g.echoes
		}
		slices.Sort(took)
		slices.Sort(answers)
		n := len(s.all)
		medians[0], medians[1] = append(medians[0], took[n/2]), append(medians[1], answers[n/2])
		longest[0], longest[1] = append(longest[0], took[n-1]), append(longest[1], answers[n-1])
		b.Logf("all in %.2f s; first answer after the lease: median %.1f, 99 %% %.1f, longest %.1f ms; after the first echo: %.1f, %.1f, %.1f ms, %.2f echoes each",
			lasted.Seconds(), took[n/2], took[n*99/100], took[n-1], answers[n/2], answers[n*99/100], answers[n-1], float64(echoes)/float64(n))
		b.StartTimer()
	}
	for i, since := range []string{"lease", "echo"} {
		b.ReportMetric(median(medians[i]), "ms-"+since+"-median")
		b.ReportMetric(slices.Max(longest[i]), "ms-"+since+"-longest")
	}
}

// start has all guests do the same at such intervals, after they were shut for a
// while, and returns how long it takes. No two have one address.
func (s *beginners) start(b *testing.B, interval time.Duration, do func(*beginner) error) time.Duration {
	b.Helper()
	b.StopTimer()
	s.round++
	for _, g := range s.all {
		must(b, g.shut(s.round))
	}
	time.Sleep(3 * time.Second) // the nodes have taken that in
	b.StartTimer()
	begun := time.Now()
	var starting sync.WaitGroup
	for i, g := range s.all {
		time.Sleep(time.Until(begun.Add(time.Duration(i) * interval)))
		starting.Go(func() {
			if err := do(g); err != nil {
				b.Errorf("%s: %v", g.Name, err)
			}
		})
	}
	starting.Wait()
	lasted := time.Since(begun)
	addresses := make(map[netip.Addr]string)
	for _, g := range s.all {
		if other, taken := addresses[g.leased]; taken {
			b.Errorf("%s and %s have one address, %s", other, g.Name, g.leased)
		}
		addresses[g.leased] = g.Name
	}
	return lasted
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

// lease has the guest begin, and get an address.
func (g *beginner) lease() error {
	var err error
	if g.eth0, err = g.link.LinkByName("eth0"); err != nil {
		return err
	}
	if err := g.link.LinkSetUp(g.eth0); err != nil {
		return err
	}
	g.ack, err = g.ask(g.eth0.Attrs().HardwareAddr)
	g.since = time.Now()
	if err != nil {
		return err
	}
	g.leased, _ = netip.AddrFromSlice(g.ack.YourIPAddr.To4())
	return nil
}

// reach has the guest begin, and speak to another one until that answers.
func (g *beginner) reach(target netip.Addr) error {
	if err := g.lease(); err != nil {
		return err
	}
	if err := g.link.AddrReplace(g.eth0, &netlink.Addr{IPNet: &net.IPNet{IP: g.ack.YourIPAddr, Mask: g.ack.SubnetMask()}}); err != nil {
		return err
	}
	err := g.link.RouteReplace(&netlink.Route{LinkIndex: g.eth0.Attrs().Index, Gw: g.ack.Router()[0]})
	if err != nil {
		return err
	}
	begun := time.Now()
	g.echoes, err = g.ping(target)
	g.took, g.answer = time.Since(g.since), time.Since(begun)
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
