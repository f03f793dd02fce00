package kernel

import (
	"testing"

	"golang.org/x/net/bpf"
)

func TestRequestFilter(t *testing.T) {
	vm, err := bpf.NewVM(requestFilter)
	if err != nil {
		t.Fatal(err)
	}
	frame := func(etherType uint16, set map[int]byte) []byte {
		f := make([]byte, 100)
		f[12], f[13] = byte(etherType>>8), byte(etherType)
		for offset, octet := range set {
			f[offset] = octet
		}
		return f
	}
	const ip4, ip6, arp = 0x0800, 0x86dd, 0x0806
	for name, test := range map[string]struct {
		frame []byte
		want  bool
	}{
		"DHCP":                     {frame(ip4, map[int]byte{14: 0x45, 23: 17, 37: 67}), true},
		"DHCP behind options":      {frame(ip4, map[int]byte{14: 0x46, 23: 17, 41: 67}), true},
		"a fragment of DHCP":       {frame(ip4, map[int]byte{14: 0x45, 20: 0x20, 23: 17, 37: 67}), false},
		"DHCP to clients":          {frame(ip4, map[int]byte{14: 0x45, 23: 17, 37: 68}), false},
		"TCP":                      {frame(ip4, map[int]byte{14: 0x45, 23: 6, 37: 67}), false},
		"DHCPv6":                   {frame(ip6, map[int]byte{20: 17, 56: 2, 57: 0x23}), true},
		"DHCPv6 to clients":        {frame(ip6, map[int]byte{20: 17, 56: 2, 57: 0x22}), false},
		"TCP of IPv6":              {frame(ip6, map[int]byte{20: 6, 56: 2, 57: 0x23}), false},
		"a router solicitation":    {frame(ip6, map[int]byte{20: 58, 21: 255, 54: 133}), true},
		"a routed solicitation":    {frame(ip6, map[int]byte{20: 58, 21: 64, 54: 133}), false},
		"a neighbour solicitation": {frame(ip6, map[int]byte{20: 58, 21: 255, 54: 135}), false},
		"an answer to a probe":     {frame(arp, map[int]byte{21: 2}), true},
		"an answer to somebody":    {frame(arp, map[int]byte{21: 2, 41: 1}), false},
		"an ARP request":           {frame(arp, map[int]byte{21: 1}), false},
		"something else":           {frame(0x88cc, nil), false},
	} {
		n, err := vm.Run(test.frame)
		if got := n > 0; err != nil || got != test.want {
			t.Errorf("%s: passed is %t, want %t (%v)", name, got, test.want, err)
		}
		if test.want && isICMPv6(test.frame) != (test.frame[20] == 58 && test.frame[12] == 0x86) {
			t.Errorf("%s is taken for the other kind", name)
		}
	}
}
