package kernel_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"frond/internal/dataplane"
	"frond/internal/netns"
)

var (
	self4   = host("10.0.0.1")
	self6   = host("fd00::1")
	remote4 = host("10.0.0.2")
	remote6 = host("fd00::2")
	desired = dataplane.Desired{
		Ports:     ports("up.0", "up1"), // a name with a dot is a name
		Addresses: []netip.Prefix{self4, self6},
		Sysctls:   map[string]string{"net/ipv4/ip_forward": "1"},
	}
)

func update(prefix netip.Prefix, legs ...dataplane.NextHop) []dataplane.RouteUpdate {
	source := self4.Addr()
	if prefix.Addr().Is6() {
		source = self6.Addr()
	}
	return []dataplane.RouteUpdate{{Prefix: prefix, NextHops: legs, Source: source}}
}

// twoLegs is a node that forwards to one remote node over both its ports.
func twoLegs(t testing.TB) *node {
	t.Helper()
	s := newSpace(t, "up.0", "up1")
	n := s.start()
	n.Set(desired)
	n.UpdateRoutes(update(remote4, leg("up.0"), leg("up1")))
	n.UpdateRoutes(update(remote6, leg("up.0"), leg("up1")))
	n.Complete()
	n.whole()
	n.portsReady()
	return n
}

// whole waits until both remote addresses are reached over both legs.
func (n *node) whole() {
	n.t.Helper()
	n.eventuallyForwards(remote4, leg("up.0"), leg("up1"))
	n.eventuallyForwards(remote6, leg("up.0"), leg("up1"))
}

// portsReady waits until both ports can be spoken from.
func (n *node) portsReady() {
	n.t.Helper()
	n.eventually(func() error {
		for _, port := range []string{"up.0", "up1"} {
			if link := n.dump().Links[port]; !link.Up || !link.Carrier || !link.LinkLocal.IsValid() {
				return fmt.Errorf("%s is not ready: %+v", port, link)
			}
		}
		return nil
	})
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	n := twoLegs(t)
	single := netip.MustParsePrefix("10.9.0.0/16")
	n.UpdateRoutes(update(single, leg("up1")))
	n.eventuallyForwards(single, leg("up1"))

	// What ip(8) says is the second judge of what was encoded.
	for command, wants := range map[string][]string{
		"-d route show 10.0.0.2":    {"nhid", "proto 102", "src 10.0.0.1", "metric 20"},
		"-d route show 10.9.0.0/16": {"nhid", "via fe80::1 dev up1", "proto 102"},
		"-6 route show fd00::2":     {"nhid", "proto 102", "src fd00::1", "metric 20"},
		"nexthop show":              {"via fe80::1 dev up.0 scope link proto 102", "group 1711276"},
		"addr show lo":              {"LOWER_UP", "inet 10.0.0.1/32 scope global", "inet6 fd00::1/128 scope global"},
	} {
		got := n.ip("%s", command)
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("ip %s says %q, want %q in it", command, got, want)
			}
		}
	}
	if got := n.ip("route get 10.9.1.1"); !strings.Contains(got, "via inet6 fe80::1 dev up1 src 10.0.0.1") {
		t.Errorf("the kernel's choice is %q", got)
	}
	if problems := n.Report().Problems; len(problems) != 0 {
		t.Errorf("problems: %v", problems)
	}
	if got := n.Report(); got.Installed != 3 || got.Groups != 1 || got.NextHops != 2 {
		t.Errorf("report %+v, want 3 routes, 2 legs and 1 group", got)
	}
}

// TestAttached has hosts be at a port themselves.
func TestAttached(t *testing.T) {
	t.Parallel()
	n := twoLegs(t)
	for _, route := range []struct {
		prefix netip.Prefix
		via    netip.Addr
		family string
	}{
		{netip.MustParsePrefix("10.9.0.0/16"), netip.IPv4Unspecified(), ""},
		{netip.MustParsePrefix("fd00:9::/64"), netip.IPv6Unspecified(), "-6"},
	} {
		n.UpdateRoutes(update(route.prefix, dataplane.NextHop{Port: "up1", Via: route.via}))
		n.eventuallyForwards(route.prefix, dataplane.NextHop{Port: "up1", Via: route.via})
		host := route.prefix.Addr().Next().Next()
		if got := n.ip("%s route get %s", route.family, host); !strings.Contains(got, "dev up1") || strings.Contains(got, "via") {
			t.Errorf("the kernel's choice is %q", got)
		}
	}
	n.Resync()
	n.Complete()
	if problems := n.Report().Problems; len(problems) != 0 {
		t.Errorf("problems: %v", problems)
	}
}

func TestPortsAreReady(t *testing.T) {
	t.Parallel()
	s := newSpace(t, "up.0", "up1")
	before := readInRoot(t)
	s.ip("link set up1 addrgenmode none") // as those set it who manage interfaces
	n := s.start()
	n.Set(desired)
	n.portsReady()
	s.eventually(func() error {
		for path, want := range map[string]string{
			"net/ipv6/conf/up.0/accept_ra":   "0",
			"net/ipv6/conf/up.0/autoconf":    "0",
			"net/ipv6/conf/up1/accept_dad":   "0",
			"net/ipv4/conf/up.0/rp_filter":   "0",
			"net/ipv4/ip_forward":            "1",
			"net/ipv4/nexthop_compat_mode":   "0",
			"net/ipv6/conf/up1/disable_ipv6": "0",
		} {
			if got := s.kernel.Sysctls([]string{path})[path]; got != want {
				return fmt.Errorf("%s is %q, want %q", path, got, want)
			}
		}
		return nil
	})
	if after := readInRoot(t); after != before {
		t.Errorf("values of the test's own namespace changed from %q to %q", before, after)
	}

	// An operator's broom takes the link-local address: it comes back.
	s.ip("-6 addr flush dev up1")
	n.Resync()
	s.eventually(func() error {
		if !s.dump().Links["up1"].LinkLocal.IsValid() {
			return fmt.Errorf("up1 has no link-local address")
		}
		return nil
	})
	s.ip("link set up1 down")
	s.eventually(func() error {
		if link := s.dump().Links["up1"]; !link.Up || !link.LinkLocal.IsValid() {
			return fmt.Errorf("up1 is %+v", link)
		}
		return nil
	})
}

func readInRoot(t *testing.T) string {
	t.Helper()
	value, err := os.ReadFile("/proc/sys/net/ipv4/nexthop_compat_mode")
	if err != nil {
		t.Fatal(err)
	}
	return string(value)
}

// A host without IPv6 on the port, tentative addresses and all, is repaired
// before the port comes up: so there is no wait for duplicate detection.
func TestIPv6SwitchedOff(t *testing.T) {
	t.Parallel()
	s := newSpace(t, "up.0", "up1")
	enter(t, s.name, func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/up1/disable_ipv6", []byte("1"), 0)
	})
	n := s.start()
	n.Set(desired)
	n.UpdateRoutes(update(remote4, leg("up.0"), leg("up1")))
	n.eventuallyForwards(remote4, leg("up.0"), leg("up1"))
}

func enter(t *testing.T, name string, fn func() error) {
	t.Helper()
	ns, err := netns.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	if err := ns.Do(fn); err != nil {
		t.Fatal(err)
	}
}

func TestFailedLeg(t *testing.T) {
	t.Parallel()
	n := twoLegs(t)
	for range 5 {
		n.SetFailed([]dataplane.NextHop{leg("up1")})
		// Not eventually: the kernel has stopped using it when the call returns.
		for _, remote := range []netip.Prefix{remote4, remote6} {
			if err := n.forwards(remote, leg("up.0")); err != nil {
				t.Error(err)
			}
		}
		n.SetFailed(nil)
		n.whole()
	}
	n.SetFailed([]dataplane.NextHop{leg("up.0"), leg("up1")})
	n.eventuallyForwards(remote4)
	n.SetFailed([]dataplane.NextHop{leg("up.0")})
	n.eventuallyForwards(remote4, leg("up1"))
	n.SetFailed(nil)
	n.whole()
}

func TestCarrierFlaps(t *testing.T) {
	t.Parallel()
	n := twoLegs(t)
	for flap := range 20 {
		n.ipPeer("link set up1 down")
		if flap%2 == 0 {
			n.eventuallyForwards(remote4, leg("up.0"))
		}
		n.ipPeer("link set up1 up")
		n.whole()
	}
	n.ip("link set up.0 down") // the operator's hand on the node itself
	n.whole()
	n.ipPeer("link set up.0 down")
	n.ipPeer("link set up1 down")
	n.eventuallyForwards(remote4)
	n.ipPeer("link set up.0 up")
	n.ipPeer("link set up1 up")
	n.whole()
	if problems := n.Report().Problems; len(problems) != 0 {
		t.Errorf("problems: %v", problems)
	}
}

func TestOperatorDeletesWhatIsOurs(t *testing.T) {
	t.Parallel()
	n := twoLegs(t)
	n.ip("route del 10.0.0.2/32 proto 102")
	n.whole()
	n.ip("-6 route del fd00::2 proto 102")
	n.whole()
	n.ip("nexthop flush")
	n.whole()
	n.ip("addr del 10.0.0.1/32 dev lo")
	n.ip("addr del fd00::1/128 dev lo")
	n.eventually(func() error {
		state := n.dump()
		for _, prefix := range desired.Addresses {
			if _, ok := state.Addresses[prefix]; !ok {
				return fmt.Errorf("%s is not on lo", prefix)
			}
		}
		if got := state.Routes[remote4].Source; got != self4.Addr() {
			return fmt.Errorf("source of %s is %s", remote4, got)
		}
		if got := state.Routes[remote6].Source; got != self6.Addr() {
			return fmt.Errorf("source of %s is %s", remote6, got)
		}
		return nil
	})
	n.whole()
}

// operate puts into the namespace what an operator may have there.
func operate(s *space) {
	s.ip("link set lo up")
	s.ip("link add own0 type veth peer name own1")
	s.ip("link set own0 addrgenmode none")
	s.ip("link set own1 addrgenmode none")
	s.ip("link set own0 up")
	s.ip("link set own1 up")
	s.ip("addr add 192.0.2.1/24 dev own0")
	s.ip("addr add 2001:db8::1/64 dev own0 nodad")
	s.ip("addr add 10.0.0.77/32 dev lo")
	s.ip("addr add fd00::77/128 dev lo")
	s.ip("route add 10.0.0.2/32 via 192.0.2.2")      // the very prefix that frond has
	s.ip("-6 route add fd00::2/128 via 2001:db8::2") // likewise
	s.ip("route add 198.51.100.0/24 via 192.0.2.3 proto bgp")
	s.ip("nexthop add id %d via 192.0.2.9 dev own0", dataplane.FirstID) // an id of frond's range
	s.ip("nexthop add id 5 via 192.0.2.9 dev own0 proto static")
	s.ip("nexthop add id 6 group 5 proto static")
	s.ip("route add 203.0.113.0/24 nhid 6")
}

// What is not frond's stays as it is, whatever is next to it; and after
// Withdraw nothing else is there.
func TestOperatorsOwnAndWithdraw(t *testing.T) {
	t.Parallel()
	s := newSpace(t, "up.0", "up1")
	operate(s)
	first := s.start() // leaves the ports ready, and nothing else
	first.Set(dataplane.Desired{Ports: desired.Ports, Sysctls: desired.Sysctls})
	first.portsReady()
	first.stop()
	before := s.everything()
	n := s.start()
	d := desired
	d.Addresses = append(slices.Clone(d.Addresses), host("10.0.0.77"))
	n.Set(d)
	n.UpdateRoutes(update(remote4, leg("up.0"), leg("up1")))
	n.UpdateRoutes(update(remote6, leg("up.0"), leg("up1")))
	n.Complete()
	n.whole()
	now := s.everything()
	for _, line := range strings.Split(before, "\n") {
		if !strings.Contains(now, strings.TrimSpace(line)) {
			t.Errorf("missing while frond is there: %q", line)
		}
	}
	n.SetFailed([]dataplane.NextHop{leg("up.0")})
	n.SetFailed(nil)
	n.whole()
	if err := n.Withdraw(context.Background()); err != nil {
		t.Fatal(err)
	}
	if after := s.everything(); after != before {
		t.Errorf("before frond:\n%s\nafter Withdraw:\n%s", before, after)
	}
}

func TestRestartAdopts(t *testing.T) {
	t.Parallel()
	n := twoLegs(t)
	n.UpdateRoutes(update(host("10.0.0.3"), leg("up1")))
	n.eventuallyForwards(host("10.0.0.3"), leg("up1"))
	before := n.everything()
	n.stop()

	again := n.start()
	again.Set(desired)
	<-again.Adopted()
	if got, want := again.AdoptedNextHops(), []dataplane.NextHop{leg("up.0"), leg("up1")}; !slices.Equal(got, want) {
		t.Errorf("adopted %v, want %v", got, want)
	}
	for _, remote := range []netip.Prefix{remote4, remote6} {
		again.UpdateRoutes(update(remote, leg("up1"), leg("up.0")))
	}
	again.UpdateRoutes(update(host("10.0.0.3"), leg("up1")))
	again.Complete()
	n.eventually(func() error {
		if got := again.Report(); got.Installed != 3 || !got.Complete {
			return fmt.Errorf("report %+v", got)
		}
		return nil
	})
	again.stop()
	if ops := again.target.applied(); len(ops) != 0 {
		t.Errorf("a restart changed the kernel: %v", ops)
	}
	if after := n.everything(); after != before {
		t.Errorf("before the restart:\n%s\nafter:\n%s", before, after)
	}
}

func TestPortIsRenamed(t *testing.T) {
	t.Parallel()
	n := twoLegs(t)
	n.ip("link set up1 down")
	n.ip("link set up1 name new1")
	n.ip("link set new1 up")
	n.eventuallyForwards(remote4, leg("up.0"))
	d := desired
	d.Ports = ports("up.0", "new1")
	n.Set(d)
	n.UpdateRoutes(update(remote4, leg("new1"), leg("up.0")))
	n.eventuallyForwards(remote4, leg("new1"), leg("up.0"))

	// Renamed while it is up (Linux 6.2), if this kernel lets it be.
	n.ip("link set new1 name newer1")
	d.Ports = ports("up.0", "newer1")
	n.Set(d)
	n.UpdateRoutes(update(remote4, leg("newer1"), leg("up.0")))
	n.eventuallyForwards(remote4, leg("newer1"), leg("up.0"))
}

func TestPortIsRemovedAndReturns(t *testing.T) {
	t.Parallel()
	n := twoLegs(t)
	n.ip("link del up1")
	n.eventuallyForwards(remote4, leg("up.0"))
	if problems := n.Report().Problems; len(problems) != 0 {
		t.Errorf("a port that is not there is a problem: %v", problems)
	}
	n.plug("up1") // under the same name, another device
	n.whole()
}

func TestManyRoutes(t *testing.T) {
	t.Parallel()
	n := twoLegs(t)
	const many = 20000
	var updates []dataplane.RouteUpdate
	prefixOf := func(i int) netip.Prefix {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 64, byte(i >> 8), byte(i)}), 32)
	}
	both := []dataplane.NextHop{leg("up.0"), leg("up1")}
	for i := range many {
		updates = append(updates, dataplane.RouteUpdate{Prefix: prefixOf(i), NextHops: both, Source: self4.Addr()})
	}
	n.UpdateRoutes(updates)
	n.eventually(func() error {
		if got := len(n.dump().Routes); got != many+2 {
			return fmt.Errorf("%d routes, want %d", got, many+2)
		}
		return nil
	})
	n.eventuallyForwards(prefixOf(many-1), both...)

	// All of them at once to one leg: no route is touched.
	ops := len(n.target.applied())
	for i := range updates {
		updates[i].NextHops = both[:1]
	}
	updates = append(updates, update(remote4, leg("up.0"))...)
	updates = append(updates, update(remote6, leg("up.0"))...)
	n.UpdateRoutes(updates)
	n.eventuallyForwards(prefixOf(0), both[0])
	n.eventuallyForwards(prefixOf(many-1), both[0])
	if got := len(n.target.applied()) - ops; got > 2 {
		t.Errorf("%d operations to move %d routes, want the group's and the leg's", got, many)
	}

	// The kernel deletes all when the last leg goes; they come back.
	n.SetFailed(both)
	if got := len(n.dump().Routes); got != 0 {
		t.Errorf("%d routes without next hop", got)
	}
	n.SetFailed(nil)
	n.eventually(func() error {
		if got := len(n.dump().Routes); got != many+2 {
			return fmt.Errorf("%d routes, want %d", got, many+2)
		}
		return nil
	})
}

// Each refusal belongs to its operation, with the kernel's own words.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s := newSpace(t, "up.0", "up1")
	id := dataplane.FirstID
	s.ip("link set lo up")
	s.ip("nexthop add id %d blackhole", id+3)
	ops := []dataplane.Op{
		dataplane.SetSysctl{Path: "net/ipv4/no_such", Value: "1"},
		dataplane.SetSysctl{Path: "../etc/hostname", Value: "1"},
		dataplane.SetPort{Name: "up.0"},
		dataplane.SetPort{Name: "absent"},
		dataplane.AddAddress{Prefix: self4},
		dataplane.AddAddress{Prefix: self4},
		dataplane.SetNextHop{ID: id, NextHop: leg("up.0")},
		dataplane.SetNextHop{ID: id + 1, NextHop: leg("up1")}, // down
		dataplane.SetNextHop{ID: id + 2, NextHop: leg("absent")},
		dataplane.SetNextHop{ID: id + 3, NextHop: leg("up.0")}, // somebody else's id
		dataplane.SetGroup{ID: id + 4, Members: []uint32{id, id + 1}},
		dataplane.SetRoute{Prefix: remote4, NextHopID: id + 4},
		dataplane.SetRoute{Prefix: remote4, NextHopID: id, Source: self4.Addr()},
		dataplane.DeleteRoute{Prefix: remote6},
		dataplane.DeleteNextHop{ID: id + 9},
		dataplane.DeleteAddress{Prefix: self6},
	}
	want := map[int]string{
		0:  "no such file",
		1:  "want a path below /proc/sys",
		3:  "no such device",
		7:  "network is down",
		8:  "no such device",
		9:  "file exists",
		10: "invalid argument (",
		11: "invalid argument (",
	}
	for _, failed := range s.kernel.Apply(context.Background(), ops) {
		expect, ok := want[failed.Index]
		if !ok || !strings.Contains(failed.Error(), expect) {
			t.Errorf("operation %d: %v, want %q", failed.Index, failed, expect)
		}
		delete(want, failed.Index)
	}
	for index := range want {
		t.Errorf("not refused: %v", ops[index])
	}
	if err := s.forwards(remote4, leg("up.0")); err != nil {
		t.Error(err)
	}
}
