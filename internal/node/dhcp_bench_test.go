package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"frond/internal/dataplane"
	"frond/internal/dhcp"
	"frond/internal/gateway"
	"frond/internal/pki"
	"frond/internal/store"
)

// memberRole has the test binary be a member of the store.
const memberRole = "FROND_NODE_TEST_MEMBER"

func TestMain(m *testing.M) {
	if os.Getenv(memberRole) == "" {
		os.Exit(m.Run())
	}
	if err := store.ServeMember(context.Background(), os.Stdin, os.Stdout, slog.New(slog.DiscardHandler)); err != nil {
		os.Exit(1)
	}
}

// realStore is three members as processes, on loopback addresses of their own.
func realStore(b *testing.B) *store.Client {
	b.Helper()
	dir := b.TempDir()
	if _, err := pki.Init(dir, "bench", time.Now()); err != nil {
		b.Fatal(err)
	}
	var peers []store.Peer
	for i := range 3 {
		p := store.Peer{Name: fmt.Sprint("n", i+1), Address: netip.AddrFrom4([4]byte{127, 77, 0, byte(i + 1)})}
		if _, err := pki.Issue(dir, pki.Node{Name: p.Name, Addresses: []netip.Addr{p.Address}}, time.Now()); err != nil {
			b.Fatal(err)
		}
		peers = append(peers, p)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	b.Cleanup(func() { cancel(); running.Wait() })
	command := func() *exec.Cmd {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), memberRole+"=1")
		return cmd
	}
	log := slog.New(slog.DiscardHandler)
	for _, p := range peers {
		member := store.NewMember(command, store.MemberConfig{
			Fabric: "bench", Name: p.Name, Members: peers, Dir: filepath.Join(b.TempDir(), p.Name), Files: pki.FilesIn(dir, p.Name),
		}, os.Stderr, log)
		running.Go(func() { _ = member.Run(ctx) })
	}
	tls, err := pki.FilesIn(dir, "n1").Client(time.Now())
	if err != nil {
		b.Fatal(err)
	}
	client, err := store.Open(store.ClientConfig{Endpoints: store.Endpoints(peers), Prefix: store.Prefix("bench"), TLS: tls, Log: log})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(client.Close)
	for limit := time.Now().Add(time.Minute); ; {
		if _, err := client.Create(b.Context(), "ready", []byte("1"), nil); err == nil || store.IsConflict(err) {
			return client
		} else if time.Now().After(limit) {
			b.Fatal(err)
		}
	}
}

// loadedWire is the guests of a node: it answers for them.
type loadedWire struct {
	frames chan dataplane.GuestFrame
	reply  func(*dhcpv4.DHCPv4)
}

func (w *loadedWire) Frames() <-chan dataplane.GuestFrame { return w.frames }

const sizeHeaders = 14 + 20 + 8 // Ethernet, IPv4, UDP

func (w *loadedWire) Send(port dataplane.LocalPort, frame []byte) {
	if port.Port == "" {
		return // a probe, which nobody answers
	}
	if m, err := dhcpv4.FromBytes(frame[sizeHeaders:]); err == nil {
		w.reply(m)
	}
}

// client is one of many clients.
func client(n int) []byte { return []byte{2, 0, 0, byte(n >> 16), byte(n >> 8), byte(n)} }

func guestFrame(b *testing.B, kind dhcpv4.MessageType, n int, options ...dhcpv4.Modifier) dataplane.GuestFrame {
	b.Helper()
	m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(client(n)), dhcpv4.WithMessageType(kind)}, options...)...)
	if err != nil {
		b.Fatal(err)
	}
	payload := m.ToBytes()
	frame := make([]byte, sizeHeaders, sizeHeaders+len(payload))
	copy(frame[6:], client(n))
	frame[12], frame[14], frame[14+9] = 8, 0x45, 17
	frame[16], frame[17] = byte((28+len(payload))>>8), byte(28+len(payload))
	frame[34+3] = 67
	frame[34+4], frame[34+5] = byte((8+len(payload))>>8), byte(8+len(payload))
	return dataplane.GuestFrame{Port: dataplane.LocalPort{VNI: 100, Port: fmt.Sprint("g", n%64)}, Data: append(frame, payload...)}
}

func benchSegment() dhcp.Segment {
	a := netip.MustParseAddr
	return dhcp.Segment{
		Name: "blue", VNI: 100, Prefix: netip.MustParsePrefix("10.0.0.0/8"), Server: a("10.0.0.1"), Router: a("10.0.0.1"),
		Ranges: []dhcp.Range{{First: a("10.1.0.0"), Last: a("10.15.255.255")}}, Lease: 10 * time.Minute, Grace: time.Hour,
	}
}

// BenchmarkLeases is how many new leases (discover, offer, request,
// acknowledge, each probed) three nodes give together in a second on a store
// of three members, all on this machine, and then how many
// renewals: answered, and written back.
func BenchmarkLeases(b *testing.B) {
	client := realStore(b)
	const nodes = 3
	for b.Loop() {
		measureLeases(b, client, nodes, 3000, 256)
	}
}

func measureLeases(b *testing.B, client *store.Client, nodes, each, window int) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	var mu sync.Mutex
	addresses := make(map[netip.Addr]int)
	var took []time.Duration
	server := dhcpv4.WithOption(dhcpv4.OptServerIdentifier(benchSegment().Server.AsSlice()))
	type node struct {
		wire  *loadedWire
		held  map[int]netip.Addr
		acked chan int
	}
	all := make([]*node, nodes)
	var servers []*dhcp.Server
	var later atomic.Int64 // how much it is
	clock := func() time.Duration { return gateway.Boottime() + time.Duration(later.Load()) }
	for i := range all {
		n := &node{wire: &loadedWire{frames: make(chan dataplane.GuestFrame, 4096)}, held: map[int]netip.Addr{}, acked: make(chan int, each)}
		all[i] = n
		n.wire.reply = func(m *dhcpv4.DHCPv4) {
			who := int(m.ClientHWAddr[3])<<16 | int(m.ClientHWAddr[4])<<8 | int(m.ClientHWAddr[5])
			address, _ := netip.AddrFromSlice(m.YourIPAddr.To4())
			switch m.MessageType() { //nolint:exhaustive // what a server says
			case dhcpv4.MessageTypeOffer:
				n.wire.frames <- guestFrame(b, dhcpv4.MessageTypeRequest, who, server, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(address.AsSlice())))
			case dhcpv4.MessageTypeAck:
				mu.Lock()
				if other, twice := addresses[address]; twice && other != who {
					b.Errorf("%s is given to %d and %d", address, other, who)
				}
				addresses[address] = who
				n.held[who] = address
				mu.Unlock()
				n.acked <- who
			default:
				b.Errorf("guest %d is answered with %s", who, m.MessageType())
			}
		}
		s := dhcp.New(dhcp.Config{Node: fmt.Sprint("n", i+1), Store: keysBelow{client, dhcpKeys}, Wire: n.wire, Clock: clock}, slog.New(slog.DiscardHandler))
		servers = append(servers, s)
		s.SetSegments([]dhcp.Segment{benchSegment()})
		work.Go(func() { _ = s.Run(ctx) })
		work.Go(func() {
			for {
				select {
				case <-s.Kept():
				case <-s.Bound():
				case <-ctx.Done():
					return
				}
			}
		})
	}
	base := int(time.Now().UnixNano() / 1000 % (1 << 23))
	// run sends a message for each guest, so many at once, and waits for all.
	run := func(message func(n *node, who int) dataplane.GuestFrame) float64 {
		begun := time.Now()
		var running sync.WaitGroup
		for i, n := range all {
			running.Go(func() {
				sent := make(map[int]time.Time, window)
				for next, done := 0, 0; done < each; {
					if next < each && len(sent) < window {
						who := base + next*nodes + i
						sent[who] = time.Now()
						n.wire.frames <- message(n, who)
						next++
						continue
					}
					select {
					case who := <-n.acked:
						mu.Lock()
						took = append(took, time.Since(sent[who]))
						mu.Unlock()
						delete(sent, who)
						done++
					case <-time.After(2 * time.Second): // as clients do
						for who := range sent {
							n.wire.frames <- message(n, who)
						}
					}
				}
			})
		}
		running.Wait()
		return float64(nodes*each) / time.Since(begun).Seconds()
	}
	leases := run(func(_ *node, who int) dataplane.GuestFrame { return guestFrame(b, dhcpv4.MessageTypeDiscover, who) })
	b.ReportMetric(leases, "leases/s")
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-lease-median")
	took = nil
	later.Store(int64(benchSegment().Lease / 2))
	begun := time.Now()
	renewals := run(func(n *node, who int) dataplane.GuestFrame {
		mu.Lock()
		address := n.held[who]
		mu.Unlock()
		return guestFrame(b, dhcpv4.MessageTypeRequest, who, func(m *dhcpv4.DHCPv4) { m.ClientIPAddr = address.AsSlice() })
	})
	slices.Sort(took)
	b.ReportMetric(renewals, "renewals/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-renewal-median")
	for _, s := range servers {
		for s.Report().Unwritten > 0 {
			time.Sleep(time.Millisecond)
		}
	}
	b.ReportMetric(float64(nodes*each)/time.Since(begun).Seconds(), "renewals-written/s")
}
