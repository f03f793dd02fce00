package kernel_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"frond/internal/dataplane"
)

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

var (
	bridge     = dataplane.GuardedDevice{Name: "br-blue", Index: 2000}
	guestPorts = []dataplane.GuardedDevice{{Name: "vg1", Index: 2001}, {Name: "vg2", Index: 2002}, {Name: "vg3", Index: 2003}}
)

// newGuarded is a namespace with the devices of guards.
func newGuarded(t testing.TB) *space {
	t.Helper()
	s := newSpace(t)
	s.ip("link add %s index %d type bridge", bridge.Name, bridge.Index)
	for _, port := range guestPorts {
		s.addGuestPort(port)
	}
	return s
}

func (s *space) addGuestPort(port dataplane.GuardedDevice) {
	s.ip("link add %s index %d type veth peer name %s netns %s", port.Name, port.Index, port.Name, s.peer)
}

func someGuard() dataplane.Guard {
	return dataplane.Guard{
		Bridges: []dataplane.GuardedDevice{bridge}, GuestPorts: guestPorts[:2],
		Fabric: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:10::/48")},
		Local:  netip.MustParseAddr("10.0.200.1"), VTEPs: addrs("10.0.200.2", "10.0.200.3"), Ports: []string{"eth1"},
		Gateways: addrs("172.16.0.1", "fd00:172::1", "fe80::68:ff:fe00:64"),
		Holders: []dataplane.GuestAddress{
			{MAC: dataplane.MAC{2, 0, 0, 0, 0, 1}, IP: netip.MustParseAddr("172.16.0.11")},
			{MAC: dataplane.MAC{2, 0, 0, 0, 0, 2}, IP: netip.MustParseAddr("fd00:172::12")},
		},
		Places: []dataplane.GuestPlace{{Port: "vg1", MAC: dataplane.MAC{2, 0, 0, 0, 0, 1}}, {Port: "vg2", MAC: dataplane.MAC{2, 0, 0, 0, 0, 2}}},
	}
}

func (s *space) setGuard(g dataplane.Guard, changes bool, when string) {
	s.t.Helper()
	changed, err := s.kernel.SetGuard(g)
	if err != nil {
		s.t.Fatalf("%s: %v", when, err)
	}
	if changed != changes {
		s.t.Errorf("%s: changed %v\n%s", when, changed, s.nft("list ruleset"))
	}
}

// changesOfGuard are ways in which a guard may come to differ.
func changesOfGuard() map[string]func(*dataplane.Guard) {
	return map[string]func(*dataplane.Guard){
		"ports": func(g *dataplane.Guard) { g.GuestPorts = []dataplane.GuardedDevice{guestPorts[0], guestPorts[2]} },
		"a guest gone": func(g *dataplane.Guard) {
			g.Holders = g.Holders[:1]
			g.Places = nil
		},
		"another prefix": func(g *dataplane.Guard) { g.Fabric = g.Fabric[1:] },
		"no VTEPs":       func(g *dataplane.Guard) { g.VTEPs = nil },
	}
}

// TestGuardOptions turns on and off what needs other rules.
func TestGuardOptions(t *testing.T) {
	s := newGuarded(t)
	s.setGuard(someGuard(), true, "first")
	for name, change := range map[string]func(*dataplane.Guard){
		"strict":               func(g *dataplane.Guard) { g.Strict = true },
		"broadcast":            func(g *dataplane.Guard) { g.Broadcast = 10 },
		"broadcast, another":   func(g *dataplane.Guard) { g.Broadcast = 11 },
		"strict and broadcast": func(g *dataplane.Guard) { g.Strict, g.Broadcast = true, 10_000_000 },
	} {
		g := someGuard()
		change(&g)
		if err := s.kernel.UpdateGuard(someGuard(), g); err == nil {
			t.Errorf("%s: rules were made without a look", name)
		}
		s.setGuard(g, true, name)
		s.setGuard(g, false, name+", again")
		rules := s.nft("list table netdev frond-guard")
		if got := strings.Contains(rules, fmt.Sprintf("limit rate over %d/second burst %d packets", g.Broadcast, g.Broadcast)); got != (g.Broadcast > 0) {
			t.Errorf("%s: %s", name, rules)
		}
		if got := strings.Contains(rules, "goto drop-source"); got != g.Strict {
			t.Errorf("%s: %s", name, rules)
		}
		if _, err := s.kernel.GuardDrops(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	strict := someGuard()
	strict.Strict, strict.BoundPorts = true, []string{"vg2"}
	s.setGuard(strict, true, "a port bound")
	other := strict
	other.BoundPorts = []string{"vg1"}
	if err := s.kernel.UpdateGuard(strict, other); err != nil {
		t.Error(err)
	}
	s.setGuard(other, false, "another port bound")
	if bound := s.nft("list set netdev frond-guard bound-ports"); !strings.Contains(bound, `"vg1"`) || strings.Contains(bound, `"vg2"`) {
		t.Errorf("bound is\n%s", bound)
	}
	s.setGuard(someGuard(), true, "last")
	s.setGuard(dataplane.Guard{}, true, "removal")
}

func TestGuard(t *testing.T) {
	s := newGuarded(t)
	s.nft("add table inet theirs")
	s.setGuard(dataplane.Guard{}, false, "nothing to begin with")
	g := someGuard()
	s.setGuard(g, true, "first")
	s.setGuard(g, false, "again")
	rules := s.nft("list ruleset")
	for _, part := range []string{
		"table netdev frond-guard", "table inet frond-guard", "chain vg1-2001", `hook ingress device "vg1"`, `hook ingress device "br-blue"`, "fib daddr type unicast", "02:00:00:00:00:01 . 172.16.0.11",
		"@nh,112,32 @gateways4", "10.0.0.0/15", "icmpv6 type nd-router-advert", "udp sport 67", "udp dport 4789", "@vteps",
		`"vg1" . 02:00:00:00:00:01 . 172.16.0.11`, `"vg2" . 02:00:00:00:00:02 . fd00:172::12`, "iif . ",
	} {
		if !strings.Contains(rules, part) {
			t.Errorf("nft does not show %q:\n%s", part, rules)
		}
	}
	g.Bridges = nil
	s.setGuard(g, true, "no bridges")
	if rules := s.nft("list ruleset"); strings.Contains(rules, "netdev") || !strings.Contains(rules, "hook input") {
		t.Errorf("without bridges, what comes to the node is judged alone; there is\n%s", rules)
	}
	g = someGuard()
	s.setGuard(g, true, "bridges again")
	handle := s.nft("-a list chain netdev frond-guard guest")
	for name, change := range changesOfGuard() {
		changed := someGuard()
		change(&changed)
		if err := s.kernel.UpdateGuard(g, changed); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		s.setGuard(changed, false, name+", updated")
		if err := s.kernel.UpdateGuard(changed, g); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		s.setGuard(g, false, name+", updated back")
		s.setGuard(changed, true, name)
		s.setGuard(changed, false, name+", again")
		s.setGuard(g, true, name+", back")
	}
	if after := s.nft("-a list chain netdev frond-guard guest"); after != handle {
		t.Errorf("elements could not be changed without the rules:\n%s\n%s", handle, after)
	}
	for _, damage := range []string{
		"delete table inet frond-guard", "delete table netdev frond-guard", "flush chain netdev frond-guard guest",
		"insert rule netdev frond-guard sender-ip4 accept", "add chain inet frond-guard more", "delete chain netdev frond-guard vg1-2001", "flush chain netdev frond-guard br-blue-2000",
		"add element netdev frond-guard held4 { 192.0.2.1 }", "flush set netdev frond-guard fabric4", "flush set inet frond-guard vteps", "add table bridge frond-guard",
	} {
		s.nft(damage)
		s.setGuard(g, true, damage)
		s.setGuard(g, false, damage+", mended")
	}
	unsegmented := someGuard()
	unsegmented.Bridges = nil
	if err := s.kernel.UpdateGuard(g, unsegmented); err == nil {
		t.Error("a table was made needless without a look")
	}
	s.setGuard(unsegmented, true, "without segments")
	s.setGuard(unsegmented, false, "without segments, again")
	if left := s.nft("list tables"); strings.Contains(left, "netdev") {
		t.Errorf("without segments there is %s", left)
	}
	s.setGuard(g, true, "with segments again")
	if err := s.kernel.UpdateGuard(dataplane.Guard{}, g); err == nil {
		t.Error("rules were made without a look")
	}
	s.setGuard(dataplane.Guard{}, true, "removal")
	if left := strings.TrimSpace(s.nft("list tables")); left != "table inet theirs" {
		t.Errorf("after the removal there is %s", left)
	}
}

// TestGuardedDevicesComeAndGo has a guest's port vanish, and another take its name.
func TestGuardedDevicesComeAndGo(t *testing.T) {
	s := newGuarded(t)
	g := someGuard()
	s.setGuard(g, true, "first")
	s.ip("link del vg2")
	if _, err := s.kernel.SetGuard(g); err != nil {
		t.Errorf("with a port that is gone: %v", err)
	}
	s.setGuard(g, false, "with a port that is gone, again")
	next := someGuard()
	next.GuestPorts = []dataplane.GuardedDevice{guestPorts[0], {Name: "vg2", Index: 2102}}
	s.addGuestPort(next.GuestPorts[1])
	s.setGuard(next, true, "with another of its name")
	s.setGuard(next, false, "with another of its name, again")
	if chain := s.nft("list chain netdev frond-guard vg2-2102"); !strings.Contains(chain, `device "vg2"`) {
		t.Errorf("the port's chain is\n%s", chain)
	}
	if rules := s.nft("list ruleset"); strings.Contains(rules, "vg2-2002") {
		t.Errorf("the former port has left\n%s", rules)
	}
	s.setGuard(dataplane.Guard{}, true, "removal")
	s.setGuard(g, true, "made when a port is gone")
	s.setGuard(g, false, "made when a port is gone, again")
	if rules := s.nft("list ruleset"); strings.Contains(rules, "vg2-2002") {
		t.Errorf("there is a chain for a port that is gone:\n%s", rules)
	}
}

func TestGuardOfManyGuests(t *testing.T) {
	s := newGuarded(t)
	g := someGuard()
	for i := range 10_000 {
		ip := netip.AddrFrom4([4]byte{172, 17, byte(i >> 8), byte(i)})
		g.Holders = append(g.Holders, dataplane.GuestAddress{MAC: dataplane.MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}, IP: ip})
	}
	s.setGuard(g, true, "first")
	s.setGuard(g, false, "again")
	g.Holders = slices.Delete(g.Holders, 100, 9000)
	s.setGuard(g, true, "fewer")
	s.setGuard(g, false, "fewer, again")
}

// Many changes are several transactions, after which all is as it is to be.
func TestGuardChangesInSteps(t *testing.T) {
	s := newGuarded(t)
	many := func(port int) dataplane.Guard {
		g := someGuard()
		for i := range 10_000 {
			mac := dataplane.MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}
			g.Places = append(g.Places, dataplane.GuestPlace{Port: guestPorts[port].Name, MAC: mac})
		}
		return g
	}
	from, to := many(0), many(1)
	s.setGuard(from, true, "first")
	before := s.generation()
	if err := s.kernel.UpdateGuard(from, to); err != nil {
		t.Fatal(err)
	}
	if steps := s.generation() - before; steps < 5 {
		t.Errorf("the guards of 10,000 MACs were exchanged by %d transactions", steps)
	}
	s.setGuard(to, false, "as it is to be")
	if err := s.kernel.UpdateGuard(to, someGuard()); err != nil {
		t.Fatal(err)
	}
	s.setGuard(someGuard(), false, "without them")
	s.setGuard(to, true, "with them again")
}

// generation counts the transactions of the namespace.
func (s *space) generation() int {
	s.t.Helper()
	const header = 4 // struct nfgenmsg
	ns, err := os.Open("/run/netns/" + s.name)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(ns.Fd())})
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	answers, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   make([]byte, header),
	})
	if err != nil || len(answers) != 1 {
		s.t.Fatalf("ask for the generation: %d answers, %v", len(answers), err)
	}
	attributes, err := netlink.UnmarshalAttributes(answers[0].Data[header:])
	if err != nil {
		s.t.Fatal(err)
	}
	return int(binary.BigEndian.Uint32(attributes[0].Data)) // NFTA_GEN_ID
}

func BenchmarkSetGuard(b *testing.B) {
	for _, count := range []int{100, 10_000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			s := newGuarded(b)
			g := someGuard()
			for i := range count {
				ip := netip.AddrFrom4([4]byte{172, 17, byte(i >> 8), byte(i)})
				g.Holders = append(g.Holders, dataplane.GuestAddress{MAC: dataplane.MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}, IP: ip})
			}
			s.setGuard(g, true, "first")
			all := g.Holders
			for i := 0; b.Loop(); i++ {
				g.Holders = all[:len(all)-1+i%2]
				s.setGuard(g, i > 0 || len(g.Holders) < len(all), "one guest more or less")
			}
		})
		b.Run(fmt.Sprintf("known %d", count), func(b *testing.B) {
			s := newGuarded(b)
			g := someGuard()
			for i := range count {
				ip := netip.AddrFrom4([4]byte{172, 17, byte(i >> 8), byte(i)})
				g.Holders = append(g.Holders, dataplane.GuestAddress{MAC: dataplane.MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}, IP: ip})
			}
			s.setGuard(g, true, "first")
			less := g
			less.Holders = less.Holders[1:]
			for b.Loop() {
				if err := errors.Join(s.kernel.UpdateGuard(g, less), s.kernel.UpdateGuard(less, g)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
