package lab

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"frond/internal/api"
	"frond/internal/status"
)

// attacker sends frames of any kind from a guest.
type attacker struct {
	w       *world
	guest   Guest
	mac     net.HardwareAddr
	socket  int
	markers uint32
}

var (
	broadcast = net.HardwareAddr{255, 255, 255, 255, 255, 255}
	allNodes6 = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
)

// experiment is an EtherType for experiments (IEEE 802 §9.2).
const experiment = 0x88b5

// packetSocket is open until the test ends.
func (w *world) packetSocket(guest string, protocol uint16) int {
	w.t.Helper()
	fd := w.openPacketSocket(guest, protocol)
	w.t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func (w *world) openPacketSocket(guest string, protocol uint16) int {
	w.t.Helper()
	ns, err := w.Host(guest)
	must(w.t, err)
	defer func() { must(w.t, ns.Close()) }()
	var fd int
	must(w.t, ns.Do(func() (err error) {
		swapped := protocol<<8 | protocol>>8
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(swapped)); err != nil {
			return err
		}
		wait := unix.NsecToTimeval(int64(10 * time.Second))
		return unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait)
	}))
	return fd
}

func (w *world) attacker(guest string) *attacker {
	w.t.Helper()
	g, err := w.Guest(guest)
	must(w.t, err)
	mac, err := net.ParseMAC(g.MAC)
	must(w.t, err)
	return &attacker{w: w, guest: g, mac: mac, socket: w.packetSocket(guest, 0)}
}

func (a *attacker) send(frame []byte) {
	a.w.t.Helper()
	must(a.w.t, unix.Sendto(a.socket, frame, 0, &unix.SockaddrLinklayer{Ifindex: guestIndex}))
}

// reaches tells whether a frame reaches a guest: what is sent after it
// certainly does, and by the same way.
func (a *attacker) reaches(victim int, frame []byte, arrives func(heard []byte) bool) bool {
	a.w.t.Helper()
	a.markers++
	mark := binary.BigEndian.AppendUint32(ethernet(broadcast, a.mac, experiment), a.markers)
	mark = append(mark, make([]byte, 60-len(mark))...)
	a.send(frame)
	a.send(mark)
	found := false
	buf := make([]byte, 2048)
	for {
		n, _, err := unix.Recvfrom(victim, buf, 0)
		if err != nil {
			a.w.t.Fatalf("the frame after the attack does not arrive: %v", err)
		}
		found = found || arrives(buf[:n])
		if bytes.HasPrefix(buf[:n], mark[:18]) {
			return found
		}
	}
}

func ethernet(to, from net.HardwareAddr, kind uint16) []byte {
	return binary.BigEndian.AppendUint16(append(append([]byte{}, to...), from...), kind)
}

// arpReply says that ip is at a MAC.
func arpReply(to, mac net.HardwareAddr, ip netip.Addr) []byte {
	b := append(ethernet(to, mac, unix.ETH_P_ARP), 0, 1, 8, 0, 6, 4, 0, 2)
	b = append(append(b, mac...), ip.AsSlice()...)
	b = append(append(b, to...), ip.AsSlice()...)
	return append(b, make([]byte, 60-len(b))...)
}

func ipv4(from, to netip.Addr, protocol byte, payload []byte) []byte {
	b := []byte{0x45, 0, 0, 0, 0x12, 0x34, 0, 0, 64, protocol, 0, 0}
	b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(payload)))
	return sum4(append(b, payload...))
}

// sum4 puts the checksum into an IPv4 header.
func sum4(b []byte) []byte {
	b[10], b[11] = 0, 0
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
	return b
}

func ipv6(from, to netip.Addr, next byte, payload []byte) []byte {
	b := []byte{0x60, 0, 0, 0, byte(len(payload) >> 8), byte(len(payload)), next, 255}
	return append(append(append(b, from.AsSlice()...), to.AsSlice()...), payload...)
}

func udp(from, to uint16, payload string) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...)
}

// TestGuardGuests has a guest attack others on its own node and on another,
// by all that the guard keeps guests from, and shows that each attack works
// without it.
func TestGuardGuests(t *testing.T) {
	w := populate(t, "guardguests", SpineLeaf(1, 2), 4, func(document string) string { // g1 and g3 on leaf1, g2 and g4 on leaf2
		return strings.Replace(document, "prefix: 172.16.0.0/16",
			`prefix: 172.16.0.0/16, prefix6: "fd00:172::/64", gateway: {address: 172.16.0.1, address6: "fd00:172::1"}`, 1)
	})
	w.whole()
	document, err := os.ReadFile(w.Document())
	must(t, err)
	for _, guest := range []string{"g1", "g2", "g3", "g4"} { // everybody is known
		w.inside(guest, "ping -c 1 -W 5 172.16.0.1")
	}
	for _, guest := range []string{"g1", "g2", "g3", "g4"} {
		for _, node := range []string{"leaf1", "leaf2"} {
			w.mac(node, guest, "known with its address", func(m status.MAC) bool { return len(m.IPs) > 0 })
		}
	}
	for _, address := range []string{"172.16.0.12", "172.16.0.13"} {
		w.shows("leaf1", "nft list set netdev frond-guard held4", address) // the kernel's rules know, too
	}
	w.shows("leaf1", "nft list set netdev frond-guard places", `"vg3" . `)
	w.inside("g1", "ping -c 1 -W 5 -I fd00:172::b fd00:172::1")
	w.shows("leaf1", "nft list set netdev frond-guard own6", "fd00:172::b") // attacks come from it
	a := w.attacker("g1")
	others := map[string]int{"g3": w.packetSocket("g3", unix.ETH_P_ALL), "g2": w.packetSocket("g2", unix.ETH_P_ALL)}
	own, gateway, gateway6 := a.guest.Address.Addr(), netip.MustParseAddr("172.16.0.1"), netip.MustParseAddr("fd00:172::1")
	g2, err := w.Guest("g2")
	must(t, err)
	g3, err := w.Guest("g3")
	must(t, err)
	mac3, err := net.ParseMAC(g3.MAC)
	must(t, err)
	all4, all6, own6 := netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("ff02::1"), netip.MustParseAddr("fd00:172::b")
	frame4 := func(from netip.Addr, source uint16) []byte {
		return append(ethernet(broadcast, a.mac, unix.ETH_P_IP), ipv4(from, all4, unix.IPPROTO_UDP, udp(source, 68, "attack"))...)
	}
	frame6 := func(from netip.Addr, next byte, payload []byte) []byte {
		return append(ethernet(allNodes6, a.mac, unix.ETH_P_IPV6), ipv6(from, all6, next, payload)...)
	}
	advert := func(target netip.Addr) []byte {
		return append(append([]byte{136, 0, 0, 0, 0x20, 0, 0, 0}, target.AsSlice()...), append([]byte{2, 1}, a.mac...)...)
	}
	attacks := []struct {
		rule, what string
		frame      []byte
	}{
		{"gateway", "the gateway's address by ARP", arpReply(broadcast, a.mac, gateway)},
		{"gateway", "the gateway's address by IP", frame4(gateway, 1000)},
		{"gateway", "the gateway's address by ND", frame6(own6, unix.IPPROTO_ICMPV6, advert(gateway6))},
		{"gateway", "the gateway's address by IPv6", frame6(gateway6, unix.IPPROTO_UDP, udp(1000, 1000, "attack"))},
		{"address", "a neighbour's address by ARP", arpReply(broadcast, a.mac, g3.Address.Addr())},
		{"address", "the address of a guest elsewhere by ARP", arpReply(broadcast, a.mac, g2.Address.Addr())},
		{"address", "a neighbour's address by IP", frame4(g3.Address.Addr(), 1000)},
		{"loopback", "a node's address", frame4(w.node("leaf2").Loopback, 1000)},
		{"loopback", "a node's IPv6 address", frame6(w.node("leaf2").Loopback6, unix.IPPROTO_UDP, udp(1000, 1000, "attack"))},
		{"dhcp-server", "answers of a DHCP server", frame4(own, 67)},
		{"dhcp-server", "answers of a DHCPv6 server", frame6(own6, unix.IPPROTO_UDP, udp(547, 546, "attack"))},
		{"router-advert", "router advertisements", frame6(own6, unix.IPPROTO_ICMPV6, []byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0})},
		{"router-advert", "router advertisements behind a header of options", frame6(own6, 0, append([]byte{58, 0, 1, 4, 0, 0, 0, 0}, 134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0))},
		{"router-advert", "redirects", frame6(own6, unix.IPPROTO_ICMPV6, append([]byte{137, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 32)...))},
		{"bpdu", "BPDUs", append(ethernet(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0}, a.mac, 38), 0x42, 0x42, 3, 0, 0, 0, 0)},
		{"mac-elsewhere", "a neighbour's MAC", append(ethernet(broadcast, mac3, experiment), 1, 2, 3, 4)},
	}
	for i := range attacks {
		if short := 60 - len(attacks[i].frame); short > 0 {
			attacks[i].frame = append(attacks[i].frame, make([]byte, short)...)
		}
	}
	try := func(when string, works bool) {
		for _, attack := range attacks {
			for name, victim := range others {
				arrived := a.reaches(victim, attack.frame, func(heard []byte) bool { return bytes.HasPrefix(heard, attack.frame[:40]) })
				// ARP and ND do not cross the fabric: each node answers for guests elsewhere.
				crosses := name == "g3" || !strings.HasSuffix(attack.what, "by ARP") && !strings.HasSuffix(attack.what, "by ND")
				if arrived != (works && crosses) {
					t.Errorf("%s: %s reaches %s: %v", when, attack.what, name, arrived)
				}
			}
		}
	}
	honest := frame4(own, 1000)
	if !a.reaches(others["g2"], honest, func(heard []byte) bool { return bytes.HasPrefix(heard, honest[:40]) }) {
		t.Error("an honest packet does not arrive")
	}
	try("guarded", false)
	drops, err := api.NewClient(w.Socket("leaf1")).Guard(t.Context())
	must(t, err)
	counted := make(map[string]uint64)
	for _, d := range drops.Drops {
		if d.Port == "vg1" && d.Segment == "blue" && len(d.MACs) == 1 && d.MACs[0] == a.guest.MAC {
			counted[d.Rule] += d.Packets
		}
	}
	for _, attack := range attacks {
		if counted[attack.rule] < 2 {
			t.Errorf("%s is counted %d times: %+v", attack.rule, counted[attack.rule], drops.Drops)
		}
	}
	for _, rule := range []string{"gateway", "address", "dhcp-server", "router-advert", "bpdu", "mac-elsewhere"} {
		w.fillCounters("leaf1", rule)
	}
	try("guarded, without room to count", false)
	w.mac("leaf2", "g3", "still the holder of its address", func(m status.MAC) bool {
		return len(m.IPs) > 0 && strings.Contains(strings.Join(m.IPs, " "), g3.Address.Addr().String())
	})
	w.whole()

	w.reload(string(document) + "guard: {guests: off}\n")
	w.ruleset("leaf1", "frond-guard", false)
	try("not guarded", true)
	w.reload(string(document))
	w.ruleset("leaf1", "frond-guard", true)
}

// fillCounters has the set that counts what a rule drops be full of other ports.
func (w *world) fillCounters(node, rule string) {
	w.t.Helper()
	var ports []string
	for i := range 1024 {
		ports = append(ports, fmt.Sprintf("other%d", i))
	}
	w.inside(node, "nft flush set netdev frond-guard drop-"+rule)
	w.inside(node, "nft add element netdev frond-guard drop-"+rule+" { "+strings.Join(ports, ", ")+" }")
}

// ruleset waits until a node's nf_tables have, or no longer have, such a text.
func (w *world) ruleset(node, text string, there bool) {
	w.t.Helper()
	for limit := time.Now().Add(20 * time.Second); time.Now().Before(limit); time.Sleep(askInterval) {
		if strings.Contains(w.inside(node, "nft list ruleset"), text) == there {
			return
		}
	}
	w.t.Fatalf("%s: %q in nf_tables is never %v", node, text, there)
}

// TestGuardServices has a guest send VXLAN to the nodes, by their loopbacks
// and through the gateway, whole and in fragments, with a packet for another
// guest in it; and speak to the ports of BGP, the store and the agent's API.
func TestGuardServices(t *testing.T) {
	w := populate(t, "guardservices", SpineLeaf(1, 2), 4, func(document string) string {
		return strings.Replace(document, "prefix: 172.16.0.0/16", "prefix: 172.16.0.0/16, gateway: {address: 172.16.0.1}", 1)
	})
	w.whole()
	document, err := os.ReadFile(w.Document())
	must(t, err)
	a := w.attacker("g1")
	toGateway := ethernet(net.HardwareAddr{2, 0x68, 0, 0, 0, 100}, a.mac, unix.ETH_P_IP)
	own := a.guest.Address.Addr()
	injected := append(ethernet(broadcast, net.HardwareAddr{2, 0xbb, 0, 0, 0, 1}, experiment), "injected into the segment of others, and long enough"...)
	vxlan := udp(4444, 4789, "\x08\x00\x00\x00\x00\x00\x64\x00"+string(injected))
	inject := func(node string) [][]byte {
		return [][]byte{append(append([]byte{}, toGateway...), ipv4(own, w.node(node).Loopback, unix.IPPROTO_UDP, vxlan)...)}
	}
	fragments := func(node string) [][]byte {
		first := ipv4(own, w.node(node).Loopback, unix.IPPROTO_UDP, vxlan[:24])
		first[6] = 0x20 // more fragments
		second := ipv4(own, w.node(node).Loopback, unix.IPPROTO_UDP, vxlan[24:])
		second[7] = 3 // behind 24 octets
		var frames [][]byte
		for _, packet := range [][]byte{first, second} {
			frames = append(frames, append(append([]byte{}, toGateway...), sum4(packet)...))
		}
		return frames
	}
	victims := map[string]int{"leaf1": w.packetSocket("g3", unix.ETH_P_ALL), "leaf2": w.packetSocket("g2", unix.ETH_P_ALL)}
	try := func(when string, works bool) {
		for node, victim := range victims {
			for what, frames := range map[string][][]byte{"whole": inject(node), "in fragments": fragments(node)} {
				for _, f := range frames[:len(frames)-1] {
					a.send(f)
				}
				arrived := a.reaches(victim, frames[len(frames)-1], func(heard []byte) bool { return bytes.HasPrefix(heard, injected) })
				if arrived != works {
					t.Errorf("%s: VXLAN to %s, %s, reaches its guest: %v", when, node, what, arrived)
				}
			}
		}
		for _, address := range []string{w.node("leaf1").Loopback.String(), w.node("leaf2").Loopback.String(), "172.16.0.1"} {
			for _, port := range []int{179, api.Port} {
				if answered := w.answers("g1", address, port); answered != works {
					t.Errorf("%s: port %d of %s answers a guest: %v", when, port, address, answered)
				}
			}
		}
	}
	try("guarded", false)
	w.whole()
	w.reload(string(document) + "guard: {guests: off}\n")
	w.ruleset("leaf1", "frond-guard", false)
	w.ruleset("leaf2", "frond-guard", false)
	try("not guarded", true)
}

// answers tells whether a TCP port answers a guest, be it by a refusal.
func (w *world) answers(guest, address string, port int) bool {
	w.t.Helper()
	ns, err := w.Host(guest)
	must(w.t, err)
	defer func() { must(w.t, ns.Close()) }()
	var answered bool
	must(w.t, ns.Do(func() error {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", address, port), 1500*time.Millisecond)
		if err == nil {
			_ = conn.Close()
		}
		answered = err == nil || strings.Contains(err.Error(), "refused") || strings.Contains(err.Error(), "reset")
		return nil
	}))
	return answered
}
