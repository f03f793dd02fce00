package ra

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	vishnetns "github.com/vishvananda/netns"
	"go.uber.org/goleak"

	"frond/internal/netns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// host is a network namespace. The tests need root for it.
type host struct {
	t  *testing.T
	ns *netns.NS
	nl *netlink.Handle
}

var hosts atomic.Int32

func newHost(t *testing.T) *host {
	t.Helper()
	name := fmt.Sprintf("ra-%d-%d", os.Getpid(), hosts.Add(1))
	must(t, netns.Create(name))
	t.Cleanup(func() { must(t, netns.Delete(name)) })
	ns, err := netns.Open(name)
	must(t, err)
	t.Cleanup(func() { must(t, ns.Close()) })
	nl, err := netlink.NewHandleAt(vishnetns.NsHandle(ns.Fd()))
	must(t, err)
	t.Cleanup(nl.Close)
	return &host{t, ns, nl}
}

func (h *host) do(fn func() error) {
	h.t.Helper()
	must(h.t, h.ns.Do(fn))
}

func (h *host) link(name string) netlink.Link {
	h.t.Helper()
	link, err := h.nl.LinkByName(name)
	must(h.t, err)
	return link
}

// cable makes a veth pair between two hosts and sets both ends up.
func cable(a *host, portA string, b *host, portB string) (Port, Port) {
	a.t.Helper()
	must(a.t, a.nl.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: portA}, PeerName: portB, PeerNamespace: netlink.NsFd(b.ns.Fd()),
	}))
	return a.up(portA, false), b.up(portB, false)
}

// up sets a link up. Its link-local address is the modified EUI-64 one
// (RFC 4291 appendix A), which appears once the other end is up, too.
func (h *host) up(name string, detectDuplicates bool) Port {
	h.t.Helper()
	value := "0"
	if detectDuplicates {
		value = "1"
	}
	h.do(func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/accept_dad", []byte(value), 0)
	})
	link := h.link(name)
	must(h.t, h.nl.LinkSetUp(link))
	m := link.Attrs().HardwareAddr
	addr, _ := netip.AddrFromSlice(net.IP{0xfe, 0x80, 0, 0, 0, 0, 0, 0, m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
	return Port{Name: name, Index: link.Attrs().Index, Addr: addr, MAC: m}
}

// bridge makes a bridge, the switch that a cable may really go to.
func (h *host) bridge() netlink.Link {
	h.t.Helper()
	must(h.t, h.nl.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br"}}))
	must(h.t, h.nl.LinkSetUp(h.link("br")))
	return h.link("br")
}

// discover runs a Discovery on a host for the length of the test.
func (h *host) discover(ports ...Port) *Discovery {
	h.t.Helper()
	d := New(slog.New(slog.NewTextHandler(h.t.Output(), nil)))
	d.open = func(p Port) (s *socket, err error) {
		if doErr := h.ns.Do(func() error {
			s, err = openSocket(p)
			return nil
		}); doErr != nil {
			return nil, doErr
		}
		return s, err
	}
	d.SetPorts(ports)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- d.Run(ctx) }()
	h.t.Cleanup(func() {
		stop()
		must(h.t, <-done)
	})
	return d
}

// patience is how long a test waits for what must come. It ends a test that
// has failed; it is no measure of speed.
const patience = 45 * time.Second

// await takes events until what is told of a port fits.
func await(t *testing.T, d *Discovery, port, what string, fits func(Neighbors) bool) {
	t.Helper()
	limit := time.After(patience)
	var last Neighbors
	for {
		select {
		case n := <-d.Events():
			if n.Port != port {
				continue
			}
			if last = n; fits(n) {
				return
			}
		case <-limit:
			t.Fatalf("%s: last told %+v, want %s", port, last, what)
		}
	}
}

// expect takes events until a port's neighbours are exactly these.
func expect(t *testing.T, d *Discovery, port string, want ...netip.Addr) {
	t.Helper()
	await(t, d, port, fmt.Sprint(want), func(n Neighbors) bool { return slices.Equal(addrs(n), want) })
}

func addrs(n Neighbors) []netip.Addr {
	var all []netip.Addr
	for _, neighbor := range n.Neighbors {
		all = append(all, neighbor.Addr)
	}
	return all
}
