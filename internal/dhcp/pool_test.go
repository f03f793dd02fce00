package dhcp

import (
	"fmt"
	"net/netip"
	"testing"
)

func anyAddress(netip.Addr) bool { return true }

func TestPool(t *testing.T) {
	s := blue("172.16.0.0", "172.16.0.9")
	s.Ranges = append(s.Ranges, Range{ip("172.16.255.250"), ip("172.16.255.255")}, Range{ip("172.16.1.0"), ip("172.16.1.0")})
	s.Reservations = []Reservation{{Client: "x", Address: ip("172.16.0.5")}, {Client: "y", Address: ip("172.16.9.9")}}
	p := newPool(s)
	// 10 + 6 + 1, without network, gateway, broadcast and what is reserved.
	if p.size != 17 || p.usable != 13 || p.frees != 13 {
		t.Errorf("size %d, usable %d, free %d", p.size, p.usable, p.frees)
	}
	got := map[netip.Addr]bool{}
	for {
		a, ok := p.pick("client", anyAddress)
		if !ok {
			break
		}
		if got[a] {
			t.Fatalf("%s is given twice", a)
		}
		got[a] = true
		p.set(a, taken)
	}
	if len(got) != 13 || p.frees != 0 {
		t.Errorf("%d were given, %d are left", len(got), p.frees)
	}
	for _, not := range []string{"172.16.0.0", "172.16.0.1", "172.16.0.5", "172.16.255.255", "172.16.9.9"} {
		if got[ip(not)] {
			t.Errorf("%s is given", not)
		}
	}
	for a := range got {
		if i, ok := p.index(a); !ok || p.address(i) != a {
			t.Errorf("%s is not found", a)
		}
	}
	p.set(ip("172.16.1.0"), stale)
	p.set(ip("172.16.0.7"), free)
	if a, ok := p.pick("client", anyAddress); a != ip("172.16.0.7") || !ok {
		t.Errorf("%s is given rather than one that nobody had", a)
	}
	p.set(ip("172.16.0.7"), taken)
	if a, ok := p.pick("client", anyAddress); a != ip("172.16.1.0") || !ok {
		t.Errorf("%s is given rather than one that somebody had", a)
	}
	if _, ok := p.pick("client", func(netip.Addr) bool { return false }); ok {
		t.Error("one is given that cannot be had")
	}
}

func TestPoolGivesTheSameAgain(t *testing.T) {
	s := blue("172.16.0.2", "172.16.7.255")
	one, other := newPool(s), newPool(s)
	different := map[netip.Addr]bool{}
	for i := range 200 {
		c := ClientOf(guestMAC(i))
		a, _ := one.pick(c, anyAddress)
		if b, _ := other.pick(c, anyAddress); a != b {
			t.Fatalf("client %d gets %s and %s", i, a, b)
		}
		different[a] = true
	}
	if len(different) < 180 {
		t.Errorf("200 clients choose only %d addresses of 2,046", len(different))
	}
}

func TestAssignable(t *testing.T) {
	for _, test := range []struct {
		prefix, address string
		want            bool
	}{
		{"10.0.0.0/24", "10.0.0.0", false}, {"10.0.0.0/24", "10.0.0.255", false}, {"10.0.0.0/24", "10.0.0.1", true},
		{"10.0.0.0/24", "10.0.1.1", false}, {"10.0.0.0/31", "10.0.0.0", true}, {"10.0.0.0/8", "10.1.0.0", true},
		{"10.0.0.0/24", "fd00::1", false}, {"fd00::/64", "fd00::", false}, {"fd00::/64", "fd00::ffff:ffff:ffff:ffff", true},
		{"fd00::/64", "fd00:0:0:1::1", false}, {"fd00::/127", "fd00::", true}, {"fd00::/64", "10.0.0.1", false},
	} {
		if got := assignable(netip.MustParsePrefix(test.prefix), ip(test.address)); got != test.want {
			t.Errorf("%s in %s: %t", test.address, test.prefix, got)
		}
	}
}

// A client of a pool that is nearly full costs a look at each word at most.
func BenchmarkPick(b *testing.B) {
	for _, left := range []int{65000, 100, 1} {
		b.Run(fmt.Sprintf("%d of 65000 left", left), func(b *testing.B) {
			p := newPool(blue("172.16.0.2", "172.16.253.233"))
			for i := range p.size - left {
				p.set(p.address(i), taken)
			}
			for i := 0; b.Loop(); i++ {
				if _, ok := p.pick(ClientOf(guestMAC(i)), anyAddress); !ok {
					b.Fatal("none is found")
				}
			}
		})
	}
}
