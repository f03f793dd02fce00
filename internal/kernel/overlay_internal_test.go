package kernel

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"

	"frond/internal/dataplane"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

func machine(t testing.TB, raw []bpf.RawInstruction) *bpf.VM {
	t.Helper()
	program, _ := bpf.Disassemble(raw)
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func TestOverlayFilter(t *testing.T) {
	raw, err := overlayFilter([]uint32{7, 0xfffffff0, 9})
	if err != nil {
		t.Fatal(err)
	}
	vm := machine(t, raw)
	tests := []struct {
		name   string
		kind   uint16
		port   uint32
		family byte
		flags  byte
		want   bool
	}{
		{"link", unix.RTM_NEWLINK, 0, 0, 0, true},
		{"own link", unix.RTM_DELLINK, 7, 0, 0, true},
		{"learned", unix.RTM_NEWNEIGH, 0, unix.AF_BRIDGE, 0, true},
		{"aged", unix.RTM_DELNEIGH, 0, unix.AF_BRIDGE, 0, true},
		{"of a control plane", unix.RTM_NEWNEIGH, 0, unix.AF_BRIDGE, unix.NTF_EXT_LEARNED, false},
		{"of a VXLAN device", unix.RTM_DELNEIGH, 0, unix.AF_BRIDGE, unix.NTF_SELF, false},
		{"neighbour", unix.RTM_NEWNEIGH, 0, unix.AF_INET, 0, false},
		{"neighbour of the kernel's", unix.RTM_DELNEIGH, 0, unix.AF_INET6, unix.NTF_ROUTER, false},
		{"own neighbour", unix.RTM_NEWNEIGH, 7, unix.AF_INET, unix.NTF_EXT_LEARNED, false},
		{"own neighbour, another port", unix.RTM_DELNEIGH, 0xfffffff0, unix.AF_INET6, unix.NTF_EXT_LEARNED, false},
		{"own neighbour, the last port", unix.RTM_DELNEIGH, 9, unix.AF_INET6, unix.NTF_EXT_LEARNED, false},
		{"own neighbour that others change", unix.RTM_DELNEIGH, 8, unix.AF_INET, unix.NTF_EXT_LEARNED, true},
		{"own neighbour that the kernel drops", unix.RTM_DELNEIGH, 0, unix.AF_INET, unix.NTF_EXT_LEARNED, true},
	}
	for _, test := range tests {
		data := make([]byte, unix.SizeofNlMsghdr+unix.SizeofNdMsg)
		binary.NativeEndian.PutUint16(data[4:], test.kind)
		binary.NativeEndian.PutUint32(data[12:], test.port)
		data[unix.SizeofNlMsghdr] = test.family
		data[unix.SizeofNlMsghdr+10] = test.flags
		if got, err := vm.Run(data); err != nil || got > 0 != test.want {
			t.Errorf("%s: passed %v, %v, want %v", test.name, got > 0, err, test.want)
		}
	}
}

var (
	guestMAC = dataplane.MAC{2, 0, 0, 0, 0, 1}
	otherMAC = dataplane.MAC{2, 0, 0, 0, 0, 2}
	guest4   = netip.MustParseAddr("172.16.0.1")
	guest6   = netip.MustParseAddr("fd00::1")
	other6   = netip.MustParseAddr("fd00::2")
)

func ethernet(source dataplane.MAC, kind uint16, packet ...[]byte) []byte {
	frame := append([]byte{255, 255, 255, 255, 255, 255}, source[:]...)
	frame = binary.BigEndian.AppendUint16(frame, kind)
	for _, part := range packet {
		frame = append(frame, part...)
	}
	return frame
}

func arpPacket(sender dataplane.MAC, ip netip.Addr) []byte {
	packet := append([]byte{0, 1, 8, 0, 6, 4, 0, 1}, sender[:]...)
	packet = append(packet, ip.AsSlice()...)
	return append(packet, make([]byte, 10)...)
}

func neighborPacket(hops, kind byte, source, target netip.Addr, options ...byte) []byte {
	packet := []byte{0x60, 0, 0, 0, 0, byte(24 + len(options)), icmpv6, hops}
	packet = append(packet, source.AsSlice()...)
	packet = append(packet, make([]byte, 16)...)
	packet = append(packet, kind, 0, 0, 0, 0, 0, 0, 0)
	return append(append(packet, target.AsSlice()...), options...)
}

func option(kind byte, mac dataplane.MAC) []byte { return append([]byte{kind, 1}, mac[:]...) }

func TestAnnouncements(t *testing.T) {
	none := netip.Addr{}
	tests := []struct {
		name   string
		frame  []byte
		passed bool // by the filter
		want   netip.Addr
	}{
		{"ARP", ethernet(guestMAC, unix.ETH_P_ARP, arpPacket(guestMAC, guest4)), true, guest4},
		{"ARP for another", ethernet(guestMAC, unix.ETH_P_ARP, arpPacket(otherMAC, guest4)), true, none},
		{"ARP probe", ethernet(guestMAC, unix.ETH_P_ARP, arpPacket(guestMAC, netip.IPv4Unspecified())), true, none},
		{"ARP from multicast", ethernet(guestMAC, unix.ETH_P_ARP, arpPacket(guestMAC, netip.MustParseAddr("224.0.0.1"))), true, none},
		{"ARP from broadcast", ethernet(guestMAC, unix.ETH_P_ARP, arpPacket(guestMAC, netip.MustParseAddr("255.255.255.255"))), true, none},
		{"ARP, link-local", ethernet(guestMAC, unix.ETH_P_ARP, arpPacket(guestMAC, netip.MustParseAddr("169.254.1.1"))), true, netip.MustParseAddr("169.254.1.1")},
		{"ARP cut short", ethernet(guestMAC, unix.ETH_P_ARP, arpPacket(guestMAC, guest4)[:27]), true, none},
		{"ARP from a group", ethernet(dataplane.MAC{1}, unix.ETH_P_ARP, arpPacket(dataplane.MAC{1}, guest4)), true, none},
		{"solicitation", ethernet(guestMAC, unix.ETH_P_IPV6, neighborPacket(255, neighborSolicit, guest6, other6, option(1, guestMAC)...)), true, guest6},
		{"solicitation without option", ethernet(guestMAC, unix.ETH_P_IPV6, neighborPacket(255, neighborSolicit, guest6, other6)), true, guest6},
		{"solicitation for another", ethernet(guestMAC, unix.ETH_P_IPV6, neighborPacket(255, neighborSolicit, guest6, other6, option(1, otherMAC)...)), true, none},
		{"address being checked", ethernet(guestMAC, unix.ETH_P_IPV6, neighborPacket(255, neighborSolicit, netip.IPv6Unspecified(), guest6)), true, none},
		{"advertisement", ethernet(guestMAC, unix.ETH_P_IPV6, neighborPacket(255, neighborAdvert, other6, guest6, option(2, guestMAC)...)), true, guest6},
		{"advertisement for another", ethernet(guestMAC, unix.ETH_P_IPV6, neighborPacket(255, neighborAdvert, other6, guest6, option(2, otherMAC)...)), true, none},
		{"advertisement behind another option", ethernet(guestMAC, unix.ETH_P_IPV6, neighborPacket(255, neighborAdvert, other6, guest6, append(option(9, otherMAC), option(2, otherMAC)...)...)), true, none},
		{"option of no length", ethernet(guestMAC, unix.ETH_P_IPV6, neighborPacket(255, neighborAdvert, other6, guest6, 2, 0, 0, 0, 0, 0, 0, 0)), true, none},
		{"option too long", ethernet(guestMAC, unix.ETH_P_IPV6, neighborPacket(255, neighborAdvert, other6, guest6, 2, 9, 0, 0, 0, 0, 0, 0)), true, none},
		{"forwarded by a router", ethernet(guestMAC, unix.ETH_P_IPV6, neighborPacket(254, neighborAdvert, other6, guest6)), false, none},
		{"router advertisement", ethernet(guestMAC, unix.ETH_P_IPV6, neighborPacket(255, 134, other6, guest6)), false, none},
		{"IPv4", ethernet(guestMAC, unix.ETH_P_IP, make([]byte, 60)), false, none},
		{"nothing", nil, false, none},
	}
	raw, err := bpf.Assemble(announcementFilter)
	if err != nil {
		t.Fatal(err)
	}
	vm := machine(t, raw)
	for _, test := range tests {
		if got, err := vm.Run(test.frame); err != nil || got > 0 != test.passed {
			t.Errorf("%s: passed %v, %v, want %v", test.name, got > 0, err, test.passed)
		}
		mac, ip, ok := announced(test.frame)
		if ok != test.want.IsValid() || ok && (ip != test.want || mac != guestMAC) {
			t.Errorf("%s: %s is at %s, %v; want %s", test.name, ip, mac, ok, test.want)
		}
	}
}

// Whatever a guest sends, and whatever a kernel of another version says.
func FuzzOverlayInput(f *testing.F) {
	f.Add(ethernet(guestMAC, unix.ETH_P_ARP, arpPacket(guestMAC, guest4)))
	f.Add(ethernet(guestMAC, unix.ETH_P_IPV6, neighborPacket(255, neighborAdvert, other6, guest6, option(2, guestMAC)...)))
	f.Add(ethernet(guestMAC, probeEtherType, []byte(probeMark+"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07")))
	var b batch
	b.createDevice(dataplane.Device{Name: "vx", Kind: dataplane.KindVXLAN, Local: guest4})
	b.setMAC(dataplane.SetMAC{VTEP: guest4}, 1)
	b.seal(1)
	f.Add(b.data)
	f.Fuzz(func(t *testing.T, data []byte) {
		if mac, ip, ok := announced(data); ok && (mac.IsGroup() || !ip.IsValid()) {
			t.Errorf("%s at %s", ip, mac)
		}
		if _, ok := sentBy(data, [8]byte{1}); ok != (len(data) >= offsetSentBy+4 && strings.HasPrefix(string(data[sizeEthernet:]), probeMark+"\x01\x00\x00\x00\x00\x00\x00\x00")) {
			t.Errorf("taken for a probe: %v", ok)
		}
		board := newSwitchboard(new(overlayNews), noTap, noTap, func(uint32) {})
		board.setSegments([]dataplane.Segment{{Bridge: "br"}})
		for m := range parse(data) {
			board.notice(m)
		}
		board.notice(message{kind: unix.RTM_NEWLINK, body: data})
		board.notice(message{kind: unix.RTM_NEWNEIGH, body: data})
	})
}

// What waits to be told stays bounded, and the last word counts.
func TestOverlayNews(t *testing.T) {
	var news overlayNews
	port := dataplane.LocalPort{VNI: 100, Port: "tap1"}
	other := dataplane.LocalPort{VNI: 100, Port: "tap2"}
	for i := range 3 * addressesPerPort {
		ip := netip.AddrFrom4([4]byte{172, byte(i >> 16), byte(i >> 8), byte(i)})
		news.address(port, dataplane.LocalAddress{VNI: 100, MAC: guestMAC, IP: ip, Port: port.Port})
	}
	news.address(other, dataplane.LocalAddress{VNI: 100, MAC: otherMAC, IP: guest4, Port: other.Port})
	key := dataplane.MACKey{VNI: 100, MAC: guestMAC}
	news.mac(key, dataplane.LocalMAC{VNI: 100, MAC: guestMAC, Port: port.Port})
	news.mac(key, dataplane.LocalMAC{VNI: 100, MAC: guestMAC, Port: other.Port})
	if got := len(news.addresses); got != addressesPerPort+1 {
		t.Errorf("%d addresses wait, want %d and one of the other port", got, addressesPerPort)
	}
	news.portGone(port)
	events := news.take()
	if len(events) != 3 || len(news.take()) != 0 {
		t.Fatalf("%d events, want 3 and then none", len(events))
	}
	if gone, ok := events[0].(dataplane.LocalPortsGone); !ok || len(gone) != 1 || gone[0] != port {
		t.Errorf("first %v, want the port that is gone", events[0])
	}
	if macs, ok := events[1].(dataplane.LocalMACs); !ok || len(macs) != 1 || macs[0].Port != other.Port {
		t.Errorf("then %v, want the MAC on its new port", events[1])
	}
	if addresses, ok := events[2].(dataplane.LocalAddresses); !ok || len(addresses) != 1 || addresses[0].Port != other.Port {
		t.Errorf("then %v, want the address behind the other port", events[2])
	}
}

// A MAC that moves from port to port counts where it is.
func TestSwitchboardMove(t *testing.T) {
	news := new(overlayNews)
	board := newSwitchboard(news, noTap, noTap, func(uint32) {})
	board.setSegments([]dataplane.Segment{{Name: "blue", Bridge: "br", VXLAN: "vx", VNI: 100, MACLimit: 1}})
	bridge := overlayLink{index: 1}
	bridge.Name, bridge.Kind, bridge.Owned = "br", dataplane.KindBridge, true
	links := map[uint32]overlayLink{1: bridge}
	for index, name := range map[uint32]string{2: "tap2", 3: "tap3"} {
		port := overlayLink{index: index, master: 1}
		port.Name = name
		links[index] = port
	}
	at := func(index uint32, mac dataplane.MAC) entry {
		return entry{family: unix.AF_BRIDGE, index: index, master: 1, mac: mac, state: unix.NUD_REACHABLE}
	}
	told := func() map[dataplane.LocalMAC]bool {
		all := make(map[dataplane.LocalMAC]bool)
		for _, event := range news.take() {
			if macs, ok := event.(dataplane.LocalMACs); ok {
				for _, mac := range macs {
					all[mac] = true
				}
			}
		}
		return all
	}
	board.replace(links, nil)
	board.learn(at(2, guestMAC))
	board.learn(at(3, guestMAC))
	board.learn(at(2, otherMAC)) // there is room for it now
	if got := told(); !got[dataplane.LocalMAC{VNI: 100, MAC: guestMAC, Port: "tap3"}] ||
		!got[dataplane.LocalMAC{VNI: 100, MAC: otherMAC, Port: "tap2"}] {
		t.Errorf("told of %v", got)
	}
	board.noticeLink(links[2], true)
	board.forget(at(3, guestMAC))
	if got := told(); len(got) != 1 || !got[dataplane.LocalMAC{VNI: 100, MAC: guestMAC, Port: "tap3", Aged: true}] {
		t.Errorf("then told of %v", got)
	}
}

func noTap(uint32, dataplane.LocalPort) func() { return func() {} }
