package kernel_test

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"frond/internal/dataplane"
	"frond/internal/netns"
)

func TestSegmentDevices(t *testing.T) {
	t.Parallel()
	a, b := newVTEPs(t, 1)
	join(a, b)
	// What ip(8) and bridge(8) say is the second judge of what was encoded.
	for line, wants := range map[string][]string{
		"ip -n %s -d link show br-blue": {
			"mtu 8950", "UP", "alias frond:segment blue", "02:66:0a:00:00:01",
			"stp_state 0", "mcast_snooping 0", "addrgenmode none",
		},
		"ip -n %s -d link show vx-blue": {
			"mtu 8950", "UP", "alias frond:segment blue", "master br-blue", "vxlan id 100", "local 10.0.0.1",
			"dstport 4789", "nolearning", "tos 0x10", "learning off", "neigh_suppress on", "isolated off", "addrgenmode none",
		},
		"bridge -n %s fdb show dev vx-blue": {"00:00:00:00:00:00 dst 10.0.0.2", "extern_learn"},
	} {
		got := command(t, line, a.name)
		for _, want := range wants {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %q, want %q in it", line, got, want)
			}
		}
	}
	state, err := a.kernel.DumpOverlay(t.Context(), []dataplane.Segment{a.segment()})
	if err != nil {
		t.Fatal(err)
	}
	// Newer than the tools.
	if bridge := state.Devices["br-blue"]; bridge.MaxLearned != 640 && !bridge.Unlimited {
		t.Errorf("the bridge learns %d MACs, want 640", bridge.MaxLearned)
	}
	for _, value := range []string{"net.ipv4.conf.br-blue.arp_ignore=1", "net.ipv6.conf.br-blue.accept_ra=0", "net.ipv6.conf.vx-blue.accept_ra=0"} {
		name, want, _ := strings.Cut(value, "=")
		if got := command(t, "ip netns exec %s sysctl -n %s", a.name, name); strings.TrimSpace(got) != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func TestSegmentCarriesGuests(t *testing.T) {
	t.Parallel()
	a, b := newVTEPs(t, 1)
	join(a, b)
	g1, g2 := a.guest(1), b.guest(2)
	g1.ping("172.16.0.2")
	g2.ping("fd00::1")
	if got := a.fdb("vx-blue"); strings.Contains(got, g2.mac.String()) {
		t.Errorf("the node has learned from what came in: %s", got)
	}
}

func mac(n int) dataplane.MAC {
	return dataplane.MAC{2, 1, 0, byte(n >> 16), byte(n >> 8), byte(n)}
}

func macsAt(n int, vtep netip.Addr) dataplane.OverlayUpdate {
	u := dataplane.OverlayUpdate{MACs: make(map[dataplane.MACKey]netip.Addr, n)}
	for i := range n {
		u.MACs[dataplane.MACKey{VNI: 100, MAC: mac(i)}] = vtep
	}
	return u
}

func (v *vtep) hasMACs(want int) error {
	state, err := v.kernel.DumpOverlay(v.t.Context(), []dataplane.Segment{v.segment()})
	if err != nil {
		return err
	}
	right := 0
	for _, installed := range state.Entries[100].MACs {
		if installed.VTEP.IsValid() && installed.Bridged {
			right++
		}
	}
	if all := len(state.Entries[100].MACs); right != want || all != want {
		return fmt.Errorf("%d MACs in the kernel, %d of them right, want %d", all, right, want)
	}
	return nil
}

func TestManyMACs(t *testing.T) {
	t.Parallel()
	const many = 10000
	a, b := newVTEPs(t, 1)
	join(a, b)
	a.Update(macsAt(many, b.address))
	a.settle()
	a.noProblems()
	if err := a.hasMACs(many); err != nil {
		t.Fatal(err)
	}
	a.Update(macsAt(many, netip.Addr{}))
	a.settle()
	a.noProblems()
	if err := a.hasMACs(0); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(a.fdb("vx-blue"), "extern_learn"); got != 1 {
		t.Errorf("%d entries left, want the one that is flooded to", got)
	}
}

// neighbor tells the node who an address of the other node's is.
func (v *vtep) neighbor(g *guest, at *vtep) {
	v.Update(dataplane.OverlayUpdate{
		MACs:      map[dataplane.MACKey]netip.Addr{{VNI: 100, MAC: g.mac}: at.address},
		Neighbors: map[dataplane.NeighborKey]dataplane.MAC{{VNI: 100, IP: g.ip4}: g.mac, {VNI: 100, IP: g.ip6}: g.mac},
	})
	v.settle()
	v.noProblems()
}

// Who the neighbours are is answered here: no request crosses the fabric.
func TestSuppression(t *testing.T) {
	t.Parallel()
	a, b := newVTEPs(t, 1)
	join(a, b)
	g1, g2 := a.guest(1), b.guest(2)
	for _, test := range []struct {
		known bool
		sent  bool
	}{{false, true}, {true, false}} {
		if test.known {
			a.neighbor(g2, b)
			b.neighbor(g1, a)
		}
		command(t, "ip -n %s neigh flush dev eth0", g1.name)
		command(t, "ip -n %s neigh flush dev eth0", g2.name)
		asked := b.countAsked()
		g1.ping(g2.ip4.String())
		g1.ping(g2.ip6.String())
		if got := asked(); got > 0 != test.sent {
			t.Errorf("neighbours known: %v; %d requests crossed the fabric", test.known, got)
		}
	}
}

// countAsked counts requests of ARP and neighbour discovery that come in
// from other nodes.
func (v *vtep) countAsked() func() int {
	v.t.Helper()
	rules := []string{
		"add table netdev asked",
		"add chain netdev asked in { type filter hook ingress device vx-blue priority 0; }",
		"add rule netdev asked in arp operation request counter",
		"add rule netdev asked in icmpv6 type nd-neighbor-solicit counter",
	}
	out, err := exec.Command("ip", "netns", "exec", v.name, "nft", strings.Join(rules, "; ")).CombinedOutput()
	if err != nil {
		v.t.Fatalf("nft: %v: %s", err, out)
	}
	return func() int {
		count := 0
		listing := command(v.t, "ip netns exec %s nft list table netdev asked", v.name)
		for _, after := range strings.Split(listing, "counter packets ")[1:] {
			var n int
			if _, err := fmt.Sscan(after, &n); err != nil {
				v.t.Fatal(err)
			}
			count += n
		}
		command(v.t, "ip netns exec %s nft delete table netdev asked", v.name)
		return count
	}
}

// full is a node with a bit of everything in its kernel.
func full(t *testing.T) (*vtep, dataplane.OverlayUpdate) {
	t.Helper()
	a, b := newVTEPs(t, 1)
	join(a, b)
	update := macsAt(100, b.address)
	update.Flood = map[uint32][]netip.Addr{100: {b.address, netip.MustParseAddr("10.0.0.3")}}
	update.Neighbors = make(map[dataplane.NeighborKey]dataplane.MAC)
	for i := range 100 {
		update.Neighbors[dataplane.NeighborKey{VNI: 100, IP: netip.AddrFrom4([4]byte{172, 16, 1, byte(i)})}] = mac(i)
	}
	a.Update(update)
	a.settle()
	a.noProblems()
	if err := a.isFull(); err != nil {
		t.Fatal(err)
	}
	return a, update
}

func (v *vtep) isFull() error {
	if err := v.hasMACs(100); err != nil {
		return err
	}
	state, err := v.kernel.DumpOverlay(v.t.Context(), []dataplane.Segment{v.segment()})
	if err != nil {
		return err
	}
	if entries := state.Entries[100]; len(entries.Neighbors) != 100 || len(entries.Flood) != 2 {
		return fmt.Errorf("%d neighbours and %d VTEPs to flood to, want 100 and 2", len(entries.Neighbors), len(entries.Flood))
	}
	return nil
}

func TestOverlayAdoption(t *testing.T) {
	t.Parallel()
	a, update := full(t)
	a.stop()
	if err := a.isFull(); err != nil {
		t.Fatalf("after the end: %v", err)
	}
	a.start()
	a.take([]dataplane.Segment{a.segment()})
	a.settle()
	if err := a.isFull(); err != nil {
		t.Fatalf("before everything that is desired is known: %v", err)
	}
	a.Update(update)
	a.Complete()
	a.settle()
	a.noProblems()
	if ops := a.target.take(); len(ops) > 0 {
		t.Errorf("%d operations to adopt what is right, the first: %s", len(ops), ops[0])
	}
	if err := a.isFull(); err != nil {
		t.Fatal(err)
	}
	// What the run before left and nobody desires any more goes.
	a.stop()
	a.start()
	a.take([]dataplane.Segment{a.segment()})
	a.Update(dataplane.OverlayUpdate{Flood: map[uint32][]netip.Addr{100: {netip.MustParseAddr("10.0.0.3")}}})
	a.Complete()
	a.settle()
	if err := a.hasMACs(0); err != nil {
		t.Error(err)
	}
	if got := a.fdb("vx-blue"); strings.Count(got, "dst") != 1 || !strings.Contains(got, "10.0.0.3") {
		t.Errorf("left is %s, want 10.0.0.3 to flood to", got)
	}
	if got := a.ip("neigh show dev br-blue"); got != "" {
		t.Errorf("neighbours left: %s", got)
	}
}

func TestOverlayRepair(t *testing.T) {
	t.Parallel()
	a, _ := full(t)
	for _, damage := range []string{
		"ip -n %s link del br-blue",
		"ip -n %s link del vx-blue",
		"ip -n %s link set vx-blue nomaster",
		"ip -n %s link set vx-blue down",
		"ip -n %s link set br-blue down",
		"ip -n %s link set br-blue mtu 1400",
		"ip -n %s link set br-blue address 02:00:00:00:00:99",
		"ip -n %s link set vx-blue type vxlan learning",
		"ip -n %s link set vx-blue type bridge_slave neigh_suppress off",
		"bridge -n %s fdb del 02:01:00:00:00:05 dev vx-blue self",
		"bridge -n %s fdb del 02:01:00:00:00:05 dev vx-blue master",
		"bridge -n %s fdb del 00:00:00:00:00:00 dst 10.0.0.3 dev vx-blue",
		"ip -n %s neigh del 172.16.1.9 dev br-blue",
		"ip netns exec %s sysctl -qw net.ipv4.conf.br-blue.arp_ignore=0",
	} {
		command(t, damage, a.name)
		if strings.Contains(damage, "fdb") || strings.Contains(damage, "sysctl") {
			a.Resync() // nobody is told of these: they are found by looking from time to time
		}
		eventually(t, func() error {
			if len(a.target.take()) == 0 {
				return fmt.Errorf("%s: nobody has noticed", damage)
			}
			return nil
		})
		eventually(t, func() error {
			if err := a.isFull(); err != nil {
				return fmt.Errorf("%s: %w", damage, err)
			}
			return nil
		})
		a.quiet(damage)
	}
}

// quiet waits until looking finds nothing to do any more.
func (v *vtep) quiet(after string) {
	v.t.Helper()
	eventually(v.t, func() error {
		v.target.take()
		v.Resync()
		v.settle()
		v.noProblems()
		if ops := v.target.take(); len(ops) > 0 {
			return fmt.Errorf("after %s: %d operations, the first: %s", after, len(ops), ops[0])
		}
		return nil
	})
}

func TestDevicesOfOthers(t *testing.T) {
	t.Parallel()
	for _, device := range []string{"br-blue", "vx-blue"} {
		t.Run(device, func(t *testing.T) {
			t.Parallel()
			a, _ := newVTEPs(t, 1)
			a.ip("link add %s type bridge", device)
			before := a.ip("link show %s", device)
			a.take([]dataplane.Segment{a.segment()})
			a.Complete()
			a.settle()
			problems := a.Report().Problems
			if len(problems) != 1 || !strings.Contains(problems[0].Text, device) || !strings.Contains(problems[0].Text, "not frond's") {
				t.Errorf("problems %+v, want one that names %s", problems, device)
			}
			if err := a.Withdraw(t.Context()); err != nil {
				t.Error(err)
			}
			if after := a.ip("link show %s", device); after != before {
				t.Errorf("the operator's device was %s and is %s", before, after)
			}
		})
	}
}

func TestSegmentChanges(t *testing.T) {
	t.Parallel()
	a, _ := full(t)
	index := a.ip("-o link show br-blue")[:3] + a.ip("-o link show vx-blue")[:3]
	segment := a.segment()
	green := dataplane.Segment{Name: "green", Bridge: "br-green", VXLAN: "vx-green", VNI: 200, Local: a.address, MTU: 8950}
	for _, change := range []struct {
		name     string
		segments func() []dataplane.Segment
		ops      int
		in       string // shown by ip -d link
	}{
		{"another segment", func() []dataplane.Segment { return []dataplane.Segment{segment, green} }, 2, "vxlan id 200"},
		{"MTU", func() []dataplane.Segment { segment.MTU = 1450; return []dataplane.Segment{segment, green} }, 2, "mtu 1450"},
		{"removed", func() []dataplane.Segment { return []dataplane.Segment{segment} }, 2, "vxlan id 100"},
		{"VTEP", func() []dataplane.Segment {
			segment.Local = netip.MustParseAddr("10.0.0.9")
			return []dataplane.Segment{segment}
		}, 2, "local 10.0.0.9"},
	} {
		a.target.take()
		a.take(change.segments())
		a.settle()
		a.noProblems()
		devices := 0
		for _, op := range a.target.take() {
			switch op.(type) {
			case dataplane.SetDevice, dataplane.DeleteDevice:
				devices++
			}
		}
		if devices != change.ops {
			t.Errorf("%s: %d operations on devices, want %d", change.name, devices, change.ops)
		}
		if got := a.ip("-d link show"); !strings.Contains(got, change.in) {
			t.Errorf("%s: want %q in %s", change.name, change.in, got)
		}
		eventually(t, func() error {
			if err := a.isFull(); err != nil {
				return fmt.Errorf("%s: %w", change.name, err)
			}
			return nil
		})
		if now := a.ip("-o link show br-blue")[:3] + a.ip("-o link show vx-blue")[:3]; now != index {
			t.Errorf("%s: devices were made anew: %s, were %s", change.name, now, index)
		}
	}
	// The VNI is what a VXLAN device is.
	segment.VNI = 300
	a.take([]dataplane.Segment{segment})
	a.settle()
	a.noProblems()
	if got := a.ip("-d link show vx-blue"); !strings.Contains(got, "vxlan id 300") {
		t.Errorf("want VNI 300 in %s", got)
	}
	// The VNI goes to a segment of another name.
	segment.Name, segment.Bridge, segment.VXLAN = "red", "br-red", "vx-red"
	a.take([]dataplane.Segment{segment})
	a.settle()
	a.noProblems()
	if got := a.ip("-d link show"); !strings.Contains(got, "vx-red") || strings.Contains(got, "blue") {
		t.Errorf("want the devices of red only: %s", got)
	}
}

// Devices that are removed together take nobody else's with them.
func TestSegmentsGo(t *testing.T) {
	t.Parallel()
	for purpose, group := range map[string]uint32{"usual": 0, "the same group": 0x66726f6e} {
		t.Run(purpose, func(t *testing.T) {
			t.Parallel()
			a, _ := newVTEPs(t, 1)
			a.ip("link add theirs group %d type bridge", group)
			a.ip("link add tap1 group %d type veth peer name tap2", group)
			before := a.ip("-br link")
			segments := make([]dataplane.Segment, 5)
			for i := range segments {
				s := a.segment()
				s.Name, s.Bridge, s.VXLAN, s.VNI = name("s", i), name("br-", i), name("vx-", i), uint32(100+i)
				segments[i] = s
			}
			a.take(segments)
			a.settle()
			a.noProblems()
			a.ip("link set tap1 master %s", segments[0].Bridge)
			a.take(nil)
			a.settle()
			a.noProblems()
			if after := a.ip("-br link"); after != before {
				t.Errorf("was %s, is %s", before, after)
			}
		})
	}
}

func TestWithdrawLeavesNothing(t *testing.T) {
	t.Parallel()
	a, b := newVTEPs(t, 1)
	before := a.ip("-br link") + a.ip("neigh")
	join(a, b)
	a.Update(macsAt(10, b.address))
	a.settle()
	if err := a.Withdraw(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after := a.ip("-br link") + a.ip("neigh"); after != before {
		t.Errorf("was %s, is %s", before, after)
	}
}

// A guest that appears here is not torn away by a repair, but by the word of
// who knows where it is.
func TestGuestAppearsHere(t *testing.T) {
	t.Parallel()
	a, b := newVTEPs(t, 1)
	join(a, b)
	g := a.guest(1)
	remote := dataplane.OverlayUpdate{MACs: map[dataplane.MACKey]netip.Addr{{VNI: 100, MAC: g.mac}: b.address}}
	here := func() bool {
		return strings.Contains(a.fdb(g.port), g.mac.String()+" master br-blue")
	}
	a.Update(remote)
	a.settle()
	a.noProblems()
	eventually(t, func() error {
		_ = exec.Command("ip", "netns", "exec", g.name, "ping", "-c1", "-W", "0.05", "172.16.0.99").Run()
		if !here() {
			return fmt.Errorf("the bridge does not learn: %s", a.fdb("br-blue"))
		}
		return nil
	})
	// And then it is silent.
	command(t, "ip netns exec %s sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1", g.name)
	command(t, "ip -n %s link set eth0 arp off", g.name)
	a.Resync()
	a.settle()
	if !here() {
		t.Fatal("a repair has torn the guest away")
	}
	a.Observe(dataplane.LocalMACs{{VNI: 100, MAC: g.mac, Port: g.port}})
	a.Update(remote)
	a.settle()
	if err := a.hasMACs(1); err != nil || here() {
		t.Errorf("the guest is remote by what is known, and not by the kernel: %v", err)
	}
	a.Update(dataplane.OverlayUpdate{MACs: map[dataplane.MACKey]netip.Addr{{VNI: 100, MAC: g.mac}: {}}})
	a.settle()
	if err := a.hasMACs(0); err != nil {
		t.Error(err)
	}
}

// 64 flows between two guests, over two cables.
func TestFlowsSpread(t *testing.T) {
	t.Parallel()
	a, b := newVTEPs(t, 2)
	join(a, b)
	g1, g2 := a.guest(1), b.guest(2)
	a.neighbor(g2, b)
	b.neighbor(g1, a)
	g1.ping(g2.ip4.String())
	before := [2]int{a.sent("up0"), a.sent("up1")}
	g1.sendFlows(g2.ip4, 64, 20)
	first, second := a.sent("up0")-before[0], a.sent("up1")-before[1]
	if all := first + second; all < 64*10 || first < 3*all/10 || second < 3*all/10 {
		t.Errorf("%d packets left by one cable and %d by the other, want at least 30 %% each", first, second)
	}
}

func (v *vtep) sent(device string) int {
	v.t.Helper()
	var n int
	text := command(v.t, "ip netns exec %s cat /proc/net/dev", v.name)
	_, line, _ := strings.Cut(text, device+":")
	fields := strings.Fields(line)
	if _, err := fmt.Sscan(fields[9], &n); err != nil {
		v.t.Fatal(err)
	}
	return n
}

// sendFlows sends so many packets from each of so many ports.
func (g *guest) sendFlows(to netip.Addr, flows, packets int) {
	g.t.Helper()
	ns, err := netns.Open(g.name)
	if err != nil {
		g.t.Fatal(err)
	}
	defer func() { _ = ns.Close() }()
	for range flows {
		var flow net.Conn
		err := ns.Do(func() (err error) {
			flow, err = net.Dial("udp", netip.AddrPortFrom(to, 9).String())
			return err
		})
		if err != nil {
			g.t.Fatal(err)
		}
		for range packets {
			_, _ = flow.Write([]byte("flow")) // refused by the other side
		}
		_ = flow.Close()
	}
}
