package kernel_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"frond/internal/dataplane"
)

// wait waits until all that was asked for was tried.
func (n *node) wait() {
	n.t.Helper()
	done := make(chan struct{})
	n.Then(func() { close(done) })
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		n.t.Fatal("the reconciler never ends")
	}
}

// TestUplink puts addresses on the interface that leads out and forwards by a
// router behind it.
func TestUplink(t *testing.T) {
	t.Parallel()
	s := newSpace(t, "up0", "up1")
	s.ip("link add br-blue type bridge")
	alias := exec.Command("ip", "-n", s.name, "link", "set", "br-blue", "alias", dataplane.AliasPrefix+"blue")
	if out, err := alias.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.ip("addr add 203.0.113.10/24 dev up1") // the operator's
	earlier := []dataplane.Op{
		dataplane.AddPortAddress{PortAddress: dataplane.PortAddress{Port: "up1", Prefix: netip.MustParsePrefix("203.0.113.9/24")}},
		// A gateway's, which is not the uplink's matter.
		dataplane.AddPortAddress{PortAddress: dataplane.PortAddress{Port: "br-blue", Prefix: netip.MustParsePrefix("172.16.0.1/24")}},
	}
	if failed := s.kernel.Apply(t.Context(), earlier); len(failed) > 0 {
		t.Fatal(failed)
	}
	n := s.start()
	prefix := netip.MustParsePrefix("192.0.2.2/24")
	uplink := dataplane.Uplink{Port: "up0", Addresses: []netip.Prefix{prefix, netip.MustParsePrefix("2001:db8::2/64")}}
	n.Set(dataplane.Desired{Uplink: uplink})
	router := dataplane.NextHop{Port: "up0", Via: netip.MustParseAddr("192.0.2.1")}
	everywhere := netip.MustParsePrefix("0.0.0.0/0")
	n.UpdateRoutes([]dataplane.RouteUpdate{{Prefix: everywhere, NextHops: []dataplane.NextHop{router}}})
	n.Complete()
	n.eventuallyForwards(everywhere, router)
	if shown := s.ip("-d route show default"); !strings.Contains(shown, "via 192.0.2.1 dev up0 scope link proto 102") {
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
	n.eventually(addresses("192.0.2.2/24", "2001:db8::2/64", "203.0.113.10/24", "172.16.0.1/24", "!203.0.113.9/24"))
	s.ip("addr del 192.0.2.2/24 dev up0")
	n.eventually(addresses("192.0.2.2/24"))
	n.eventuallyForwards(everywhere, router)

	n.Set(dataplane.Desired{Uplink: dataplane.Uplink{Port: "up0", Unsettled: true}})
	n.Set(dataplane.Desired{Uplink: dataplane.Uplink{Port: "up0", Addresses: uplink.Addresses[:1], Unsettled: true}})
	n.wait()
	if err := addresses("192.0.2.2/24", "2001:db8::2/64")(); err != nil {
		t.Error(err)
	}
	if err := n.Withdraw(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.eventually(addresses("!192.0.2.2/24", "!2001:db8::2/64", "203.0.113.10/24", "172.16.0.1/24"))
}

// TestUplinkOfTheOperator leaves an address alone that was there before.
func TestUplinkOfTheOperator(t *testing.T) {
	t.Parallel()
	s := newSpace(t, "up0")
	s.ip("addr add 192.0.2.2/24 dev up0")
	n := s.start()
	n.Set(dataplane.Desired{Uplink: dataplane.Uplink{Port: "up0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}}})
	n.Complete()
	n.wait()
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
