package kernel_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"frond/internal/dataplane"
)

// TestUplink puts addresses on the interface that leads out and forwards by a
// router behind it.
func TestUplink(t *testing.T) {
	t.Parallel()
	s := newSpace(t, "up0", "up1")
	s.ip("link add br-blue type bridge")
	s.ip("link set br-blue alias %s", strings.ReplaceAll(dataplane.AliasPrefix, " ", "")+"x")
	s.ip("addr add 203.0.113.9/24 dev up1 proto 102") // of a document before
	s.ip("addr add 203.0.113.10/24 dev up1")          // the operator's
	n := s.start()
	prefix := netip.MustParsePrefix("192.0.2.2/24")
	uplink := dataplane.Uplink{Port: "up0", Addresses: []netip.Prefix{prefix, netip.MustParsePrefix("2001:db8::2/64")}}
	n.Set(dataplane.Desired{Uplink: uplink})
	router := dataplane.NextHop{Port: "up0", Via: netip.MustParseAddr("192.0.2.1")}
	everywhere := netip.MustParsePrefix("0.0.0.0/0")
	n.UpdateRoutes([]dataplane.RouteUpdate{{Prefix: everywhere, NextHops: []dataplane.NextHop{router}}})
	n.Complete()
	n.eventuallyForwards(everywhere, router)
	if shown := s.ip("route show default"); !strings.Contains(shown, "via 192.0.2.1 dev up0 proto 102") {
		t.Errorf("the default route is %s", shown)
	}
	addresses := func(want ...string) func() error {
		return func() error {
			shown := s.ip("-o addr show")
			for _, w := range want {
				w, absent := strings.CutPrefix(w, "!")
				if strings.Contains(shown, " "+w+" ") == absent {
					return fmt.Errorf("want %v, there is\n%s", want, shown)
				}
			}
			return nil
		}
	}
	n.eventually(addresses("192.0.2.2/24", "2001:db8::2/64", "203.0.113.10/24", "!203.0.113.9/24"))
	s.ip("addr del 192.0.2.2/24 dev up0")
	n.eventually(addresses("192.0.2.2/24"))
	n.eventuallyForwards(everywhere, router)

	n.Set(dataplane.Desired{Uplink: dataplane.Uplink{Port: "up0", Unsettled: true}})
	n.Set(dataplane.Desired{Uplink: dataplane.Uplink{Port: "up0", Addresses: uplink.Addresses[:1], Unsettled: true}})
	n.settled()
	if err := addresses("192.0.2.2/24", "2001:db8::2/64")(); err != nil {
		t.Error(err)
	}
	if err := n.Withdraw(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.eventually(addresses("!192.0.2.2/24", "!2001:db8::2/64", "203.0.113.10/24"))
}

// TestUplinkOfTheOperator leaves an address alone that was there before.
func TestUplinkOfTheOperator(t *testing.T) {
	t.Parallel()
	s := newSpace(t, "up0")
	s.ip("addr add 192.0.2.2/24 dev up0")
	n := s.start()
	n.Set(dataplane.Desired{Uplink: dataplane.Uplink{Port: "up0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}}})
	n.Complete()
	n.settled()
	if err := n.Withdraw(t.Context()); err != nil {
		t.Fatal(err)
	}
	if shown := s.ip("-o addr show dev up0"); !strings.Contains(shown, "192.0.2.2/24") {
		t.Errorf("the operator's address is gone: %s", shown)
	}
	if problems := n.Report().Problems; len(problems) > 0 {
		t.Errorf("problems: %v", problems)
	}
}
