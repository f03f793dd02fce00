package dataplane

import (
	"fmt"
	"net/netip"
	"testing"
)

func gatewayOf(mac MAC, address, address6 string) Gateway {
	g := Gateway{MAC: mac, Address: netip.MustParsePrefix(address)}
	if address6 != "" {
		g.Address6, g.LinkLocal = netip.MustParsePrefix(address6), mac.LinkLocal()
	}
	return g
}

func TestGatewayHoldsAndServes(t *testing.T) {
	g := gatewayOf(MAC{2, 0x68, 0, 0, 0, 100}, "172.16.0.1/24", "fd00:172:16::1/64")
	for text, want := range map[string][2]bool{
		"172.16.0.1":             {true, false},
		"172.16.0.2":             {false, true},
		"172.16.1.2":             {false, false},
		"fd00:172:16::1":         {true, false},
		"fd00:172:16::2":         {false, true},
		"fe80::68:ff:fe00:64":    {true, false},
		"fe80::68:ff:fe00:65":    {false, false},
		"10.0.0.1":               {false, false},
		"::":                     {false, false},
		"::ffff:172.16.0.1":      {false, false},
		"fd00:172:16:1::172:1:1": {false, false},
	} {
		a := netip.MustParseAddr(text)
		if got := [2]bool{g.Holds(a), g.Serves(a)}; got != want {
			t.Errorf("%s: holds, serves %v, want %v", a, got, want)
		}
	}
	if (Gateway{}).Holds(netip.Addr{}) || (Gateway{}).Serves(ip1) {
		t.Error("no gateway holds or serves something")
	}
}

// TestElectedKeepsIPv4 leaves the address of an elected gateway alone.
func TestElectedKeepsIPv4(t *testing.T) {
	kernel := newFakeOverlay()
	o := newTestOverlay(kernel)
	segment := blue
	segment.Gateway = Gateway{Address: netip.MustParsePrefix("172.16.0.1/24"), Elected: true}
	o.SetSegments([]Segment{segment})
	o.workOff(t)
	octets := segment.Local.As4()
	kernel.expect(t, "set bridge br-blue", "set vxlan vx-blue", fmt.Sprintf("add address 169.254.%d.%d/32 to br-blue", octets[2], octets[3]))
	segment.Gateway = Gateway{Address6: netip.MustParsePrefix("fd00::1/64"), Elected: true}
	o.SetSegments([]Segment{segment})
	o.workOff(t)
	kernel.expect(t, fmt.Sprintf("delete address 169.254.%d.%d/32 from br-blue", octets[2], octets[3]))
}

func TestGatewayAddresses(t *testing.T) {
	kernel := newFakeOverlay()
	o := newTestOverlay(kernel)
	segment := blue
	segment.Gateway = gatewayOf(MAC{2, 0x68, 0, 0, 0, 100}, "172.16.0.1/24", "fd00::1/64")
	o.SetSegments([]Segment{segment})
	o.workOff(t)
	kernel.expect(t, "set bridge br-blue", "set vxlan vx-blue",
		"add address 172.16.0.1/24 to br-blue", "add address fd00::1/64 to br-blue", "add address fe80::68:ff:fe00:64/64 to br-blue")
	if mac := kernel.state.Devices["br-blue"].MAC; mac != segment.Gateway.MAC {
		t.Errorf("the bridge has MAC %s", mac)
	}

	// One that somebody removes comes back, one of the operator's stays.
	operators := BridgeAddress{"br-blue", netip.MustParsePrefix("192.0.2.1/24")}
	kernel.state.Addresses[operators] = false
	delete(kernel.state.Addresses, BridgeAddress{"br-blue", segment.Gateway.Address})
	o.Resync()
	o.workOff(t)
	kernel.expect(t, "add address 172.16.0.1/24 to br-blue")

	segment.Gateway = gatewayOf(segment.Gateway.MAC, "172.16.0.254/24", "")
	o.SetSegments([]Segment{segment})
	o.workOff(t)
	kernel.expect(t, "add address 172.16.0.254/24 to br-blue", "delete address 172.16.0.1/24 from br-blue",
		"delete address fd00::1/64 from br-blue", "delete address fe80::68:ff:fe00:64/64 from br-blue")

	segment.Gateway = Gateway{}
	o.SetSegments([]Segment{segment})
	o.workOff(t)
	kernel.expect(t, "set bridge br-blue", "delete address 172.16.0.254/24 from br-blue")
	if _, there := kernel.state.Addresses[operators]; !there {
		t.Error("the operator's address is gone")
	}
}
