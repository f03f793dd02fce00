package probe_test

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"time"

	"frond/internal/probe"
)

func TestBroadcast(t *testing.T) {
	t.Parallel()
	ns := pair(t)
	hosts := []probe.Host{{Name: "a", NS: ns[0], Addr: addr4[0]}, {Name: "b", NS: ns[1], Addr: addr4[1]}}
	broadcast := func(timeout time.Duration) []probe.Copies {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), timeout)
		defer cancel()
		copies, err := probe.Broadcast(ctx, hosts, []int{1, 0})
		if err != nil {
			t.Fatal(err)
		}
		return copies
	}
	for i, c := range broadcast(20 * time.Second) {
		if !c.Once() || c.From != 1-i || c.Seen[i] != 1 {
			t.Errorf("%+v; want it to be seen once, by %d", c, i)
		}
	}

	// What a sends by one cable comes back by the other.
	run(t, "ip", "-n", ns[0].Name(), "link", "add", "y", "type", "veth", "peer", "name", "y", "netns", ns[1].Name())
	run(t, "ip", "-n", ns[1].Name(), "link", "add", "bridge0", "type", "bridge")
	for _, port := range []string{"x", "y"} {
		run(t, "ip", "-n", ns[1].Name(), "link", "set", port, "master", "bridge0")
	}
	for i := range ns {
		run(t, "ip", "-n", ns[i].Name(), "link", "set", "y", "up")
	}
	run(t, "ip", "-n", ns[1].Name(), "link", "set", "bridge0", "up")
	run(t, "ip", "-n", ns[1].Name(), "address", "flush", "dev", "x")
	run(t, "ip", "-n", ns[1].Name(), "address", "add", addr4[1].String()+"/24", "dev", "bridge0")
	for limit := time.Now().Add(20 * time.Second); ; { // the bridge forwards once it knows of carrier
		c := broadcast(100 * time.Millisecond)[1]
		if !c.Once() && c.Seen[0] == 1 {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("%+v; want it to come back to its sender", c)
		}
	}

	run(t, "ip", "-n", ns[1].Name(), "link", "set", "bridge0", "down")
	for _, port := range []string{"x", "y"} {
		run(t, "ip", "-n", ns[1].Name(), "link", "set", port, "down")
	}
	if c := broadcast(100 * time.Millisecond)[1]; c.Once() || c.Seen[1] != 0 {
		t.Errorf("%+v; want nobody to see it", c)
	}
}

func TestWatchARP(t *testing.T) {
	t.Parallel()
	ns := pair(t)
	inner := [2]netip.Addr{netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("192.168.0.2")}
	for i := range ns {
		run(t, "ip", "-n", ns[i].Name(), "link", "add", "vx", "type", "vxlan", "id", "100", "dstport", "4789",
			"local", addr4[i].String(), "remote", addr4[1-i].String())
		run(t, "ip", "-n", ns[i].Name(), "link", "set", "vx", "up")
	}
	watch := func(vni uint32, local netip.Addr) *probe.ARPWatch {
		t.Helper()
		w, err := probe.WatchARP(ns[0], local, vni)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	right, otherVNI, received := watch(100, addr4[0]), watch(101, addr4[0]), watch(100, addr4[1])
	var hosts []probe.Host
	for i := range ns {
		run(t, "ip", "-n", ns[i].Name(), "address", "add", inner[i].String()+"/24", "dev", "vx")
		hosts = append(hosts, probe.Host{NS: ns[i], Addr: inner[i]})
	}
	asks := func(from, _ int) bool { return from == 0 }
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if rounds := probe.ReachSome(ctx, hosts, asks); len(rounds) != 1 || !rounds[0].Answered {
		t.Fatalf("%+v; want one echo", rounds)
	}
	for _, tc := range []struct {
		watch *probe.ARPWatch
		want  []probe.ARPRequest
	}{
		{right, []probe.ARPRequest{{From: inner[0], For: inner[1]}}},
		{otherVNI, nil},
		{received, nil},
	} {
		got, err := tc.watch.Stop()
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%v, %v; want %v", got, err, tc.want)
		}
	}
}
