package kernel_test

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"frond/internal/netns"
)

// TestRefreshMasquerade has a connection begin while there is no source NAT:
// it gets it with the next packet after a refresh, and keeps it after that.
func TestRefreshMasquerade(t *testing.T) {
	t.Parallel()
	s := newSpace(t, "up0")
	s.ip("addr add 192.0.2.2/24 dev up0")
	s.ip("link set up0 up")
	s.ip("addr add 172.16.0.1/32 dev lo")
	far := ""
	for _, link := range strings.Split(s.ipPeer("-o link"), "\n") {
		if name, _, ok := strings.Cut(strings.TrimLeft(link, "0123456789: "), "@"); ok {
			far = name
		}
	}
	s.ipPeer("addr add 192.0.2.1/24 dev %s", far)
	s.ipPeer("route add 172.16.0.1/32 via 192.0.2.2")
	m := masquerade("up0", "172.16.0.0/24")
	server, client := s.udp(s.peer, "192.0.2.1"), s.udp(s.name, "172.16.0.1")
	seen := func() string {
		t.Helper()
		if _, err := client.WriteTo([]byte("x"), server.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if err := server.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, from, err := server.ReadFromUDPAddrPort(make([]byte, 8))
		if err != nil {
			t.Fatal(err)
		}
		return from.Addr().Unmap().String()
	}
	// Connections are known from the first rule on that asks for them.
	s.nft("add table inet theirs")
	s.nft("add chain inet theirs out { type filter hook postrouting priority 0 ; }")
	s.nft("add rule inet theirs out ct state new accept")
	if got := seen(); got != "172.16.0.1" {
		t.Fatalf("without source NAT a packet comes from %s", got)
	}
	if err := s.kernel.SetMasquerade(m); err != nil {
		t.Fatal(err)
	}
	if got := seen(); got != "172.16.0.1" {
		t.Fatalf("a connection that the kernel knew comes from %s: this test shows nothing", got)
	}
	for range 2 {
		if err := s.kernel.RefreshMasquerade(m); err != nil {
			t.Fatal(err)
		}
		if got := seen(); got != "192.0.2.2" {
			t.Errorf("after a refresh it comes from %s", got)
		}
	}
}

func (s *space) udp(namespace, address string) *net.UDPConn {
	s.t.Helper()
	ns, err := netns.Open(namespace)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	var conn *net.UDPConn
	err = ns.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), 0)))
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestRouters reads the operator's default routes and not frond's.
func TestRouters(t *testing.T) {
	t.Parallel()
	s := newSpace(t, "up0", "up1")
	for i, port := range []string{"up0", "up1"} {
		s.ip("link set %s up", port)
		s.ip("addr add 192.0.%d.2/24 dev %s", i+1, port)
		s.ip("addr add 2001:db8:%d::2/64 dev %s nodad", i+1, port)
	}
	for _, route := range []string{
		"route add default via 192.0.1.9 dev up0 metric 200",
		"route add default via 192.0.1.1 dev up0 metric 100",
		"route add default via 192.0.1.8 dev up0 metric 20 proto 102", // frond's
		"route add default via 192.0.2.1 dev up1 metric 50",
		"route add 198.51.100.0/24 via 192.0.1.7 dev up0",
		"route add default via 192.0.1.6 dev up0 table 7",
		"route add default metric 300 nexthop via 192.0.1.3 dev up0 nexthop via 192.0.2.3 dev up1",
		"-6 route add default via fe80::1 dev up0 metric 1024",
	} {
		s.ip("%s", route)
	}
	got, err := s.kernel.Routers("up0")
	if err != nil {
		t.Fatal(err)
	}
	var want []netip.Addr
	for _, a := range []string{"192.0.1.1", "192.0.1.9", "192.0.1.3", "fe80::1"} {
		want = append(want, netip.MustParseAddr(a))
	}
	if !slices.Equal(got, want) {
		t.Errorf("routers are %v, want %v", got, want)
	}
	if _, err := s.kernel.Routers("up9"); err == nil || !strings.Contains(err.Error(), "up9") {
		t.Errorf("of no interface: %v", err)
	}
}
