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
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
	vns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"frond/internal/netns"
)

// beginner is a guest that has only just been started: it gets its address and
// at once says something to somebody beyond its gateway.
type beginner struct {
	Guest
	ns     *netns.NS
	link   *netlink.Handle
	dhcp   *net.UDPConn
	icmp   *net.IPConn
	eth0   netlink.Link
	round  byte
	ack    *dhcpv4.DHCPv4
	since  time.Time // when the guest's kernel had it
	leased netip.Addr
	took   time.Duration // from then to when it had the first answer
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
// a lock. Acknowledgements and answers count when the kernel has them: when the
// guest gets to run, one process here for all of them, is not the fabric's matter.
// The guests start all at once, once only for their addresses, and one after the
// other, so that two processors can be nodes and guests at the same time.
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
	b.Run("Each200ms", func(b *testing.B) { starting.reach(b, 200*time.Millisecond) })
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
		n.icmp, err = net.ListenIP("ip4:icmp", &net.IPAddr{IP: net.IPv4zero})
		return err
	}))
	for _, c := range []syscall.Conn{n.dhcp, n.icmp} {
		raw, err := c.SyscallConn()
		must(w.t, err)
		must(w.t, raw.Control(func(fd uintptr) {
			must(w.t, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1))
		}))
	}
	w.t.Cleanup(func() {
		n.link.Close()
		_ = n.icmp.Close()
		must(w.t, ns.Close())
	})
	return n
}

// shut has the guest be as one that is not started yet, with another MAC.
func (g *beginner) shut(round byte) error {
	g.round = round
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
	if err = g.ask(g.eth0.Attrs().HardwareAddr); err != nil {
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
	answered, err := g.ping(target)
	g.took, g.answer = answered.Sub(g.since), answered.Sub(begun)
	return err
}

// arrival is when the kernel took a packet in (SO_TIMESTAMPNS, socket(7)).
func arrival(control []byte) (time.Time, error) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return time.Time{}, err
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) == 16 {
			seconds, nanoseconds := binary.NativeEndian.Uint64(m.Data), binary.NativeEndian.Uint64(m.Data[8:])
			return time.Unix(int64(seconds), int64(nanoseconds)), nil //nolint:gosec // struct timespec
		}
	}
	return time.Time{}, errors.New("a packet without its time")
}

// ask gets an address, as clients do.
func (g *beginner) ask(mac net.HardwareAddr) error {
	const again, patience = time.Second, 20 * time.Second
	said, err := dhcpv4.NewDiscovery(mac, dhcpv4.WithBroadcast(true))
	if err != nil {
		return err
	}
	buffer, control := make([]byte, 1500), make([]byte, 128)
	for begun := time.Now(); time.Since(begun) < patience; {
		if _, err := g.dhcp.WriteTo(said.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: 67}); err != nil {
			return err
		}
		for limit := time.Now().Add(again); ; {
			if err := g.dhcp.SetReadDeadline(limit); err != nil {
				return err
			}
			n, controls, _, _, err := g.dhcp.ReadMsgUDP(buffer, control)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
			m, err := dhcpv4.FromBytes(buffer[:n])
			if err != nil || m.TransactionID != said.TransactionID {
				continue
			}
			if m.MessageType() == dhcpv4.MessageTypeAck {
				g.ack = m
				g.since, err = arrival(control[:controls])
				return err
			}
			if said, err = dhcpv4.NewRequestFromOffer(m, dhcpv4.WithBroadcast(true)); err != nil {
				return fmt.Errorf("after %s: %w", m.MessageType(), err)
			}
			break
		}
	}
	return errors.New("no lease")
}

// ping sends echoes until one is answered, counts them, and returns when that was.
func (g *beginner) ping(target netip.Addr) (time.Time, error) {
	const again, most = 20 * time.Millisecond, 500
	to := &net.IPAddr{IP: target.AsSlice()}
	buffer, control := make([]byte, 1500), make([]byte, 128)
	for g.echoes = 1; g.echoes <= most; g.echoes++ {
		echo := []byte{8, 0, 0, 0, 0x11, g.round, byte(g.echoes >> 8), byte(g.echoes)}
		binary.BigEndian.PutUint16(echo[2:], checksum(echo))
		if _, err := g.icmp.WriteTo(echo, to); err != nil {
			return time.Time{}, err
		}
		if err := g.icmp.SetReadDeadline(time.Now().Add(again)); err != nil {
			return time.Time{}, err
		}
		for {
			n, controls, _, from, err := g.icmp.ReadMsgIP(buffer, control)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return time.Time{}, err
			}
			if from.IP.Equal(to.IP) && g.isAnswer(buffer[:n]) {
				return arrival(control[:controls])
			}
		}
	}
	return time.Time{}, errors.New("no answer by the gateway")
}

// isAnswer tells whether an IPv4 packet answers an echo of this round: those of
// the one before may come late.
func (g *beginner) isAnswer(packet []byte) bool {
	header := 4 * int(packet[0]&0xf)
	return len(packet) >= header+8 && packet[header] == 0 && packet[header+5] == g.round
}
